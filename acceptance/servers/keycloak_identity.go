package servers

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// TrustIssuer makes the realm trust assertions of an issuer, as an identity provider with this name. The server
// fetches the issuer's metadata.
func (k *Keycloak) TrustIssuer(ctx context.Context, name, issuer string, settings map[string]string) error {
	var config map[string]any
	err := k.admin(ctx, http.MethodPost, "/"+k.realm+"/identity-provider/import-config", map[string]any{
		"providerId": "oidc", "fromUrl": issuer + "/.well-known/openid-configuration",
	}, &config)
	if err != nil {
		return err
	}
	if config["issuer"] != issuer {
		return fmt.Errorf("Keycloak read the metadata of %v, want %s", config["issuer"], issuer)
	}
	// Keycloak requires the endpoints of user logins, although they are not used.
	maps.Copy(config, map[string]any{"clientId": "unused", "authorizationUrl": issuer + "/none", "tokenUrl": issuer + "/none"})
	for setting, value := range settings {
		config[setting] = value
	}
	return k.admin(ctx, http.MethodPost, "/"+k.realm+"/identity-provider/instances", map[string]any{
		"alias": name, "providerId": "oidc", "enabled": true, "config": config,
	}, nil)
}

// LinkUser creates a user for an issuer's subject.
func (k *Keycloak) LinkUser(ctx context.Context, issuer, subject string) error {
	if err := k.admin(ctx, http.MethodPost, "/"+k.realm+"/users", map[string]any{
		"username": issuer + "-" + subject, "enabled": true, "firstName": subject, "lastName": subject,
		"email": subject + "@" + issuer + ".example.com", "emailVerified": true,
	}, nil); err != nil {
		return err
	}
	var known []struct{ ID string }
	err := k.admin(ctx, http.MethodGet, "/"+k.realm+"/users?exact=true&username="+url.QueryEscape(issuer+"-"+subject), nil, &known)
	if err != nil || len(known) != 1 {
		return fmt.Errorf("the user of %s: %d, %w", subject, len(known), err)
	}
	return k.admin(ctx, http.MethodPost, "/"+k.realm+"/users/"+known[0].ID+"/federated-identity/"+issuer, map[string]any{
		"identityProvider": issuer, "userId": subject, "userName": subject,
	}, nil)
}

// TakeDocuments makes the realm accept clients identified by the URL of a document on loopback.
func (k *Keycloak) TakeDocuments(ctx context.Context) error {
	return k.clientPolicy(ctx, "documents", "client-id-metadata-document", map[string]any{
		"cimd-allow-http-scheme": true, "cimd-allow-permitted-domains": []string{"127.0.0.1"}, "only-allow-confidential-client": true,
	}, "client-id-uri", map[string]any{
		"client-id-uri-scheme": []string{"http", "https"}, "client-id-uri-allow-permitted-domains": []string{"127.0.0.1"},
	})
}

// Authorize makes an authorization request, by which the server learns the client of a document. It returns the
// answer's status and page. No user logs in.
func (k *Keycloak) Authorize(ctx context.Context, clientID, redirectURI string) (status int, page string, err error) {
	query := url.Values{
		"client_id": {clientID}, "redirect_uri": {redirectURI}, "response_type": {"code"}, "scope": {"openid"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+"/realms/"+k.realm+"/protocol/openid-connect/auth?"+query.Encode(), http.NoBody)
	if err != nil {
		return 0, "", err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Timeout: bed.HTTPClient.Timeout, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// ClientOf returns the server's description of a client.
func (k *Keycloak) ClientOf(ctx context.Context, clientID string) (map[string]any, error) {
	id, err := k.idOf(ctx, clientID)
	if err != nil || id == "" {
		return nil, err
	}
	var client map[string]any
	return client, k.admin(ctx, http.MethodGet, "/"+k.realm+"/clients/"+id, nil, &client)
}
