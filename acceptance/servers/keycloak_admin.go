package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const realm = "mcp"

// setUp creates the realm and its client scopes.
func (k *Keycloak) setUp(ctx context.Context) error {
	if err := k.admin(ctx, http.MethodPost, "", map[string]any{
		"realm": realm, "enabled": true, "accessTokenLifespan": Lifetime,
	}, nil); err != nil {
		return err
	}
	for _, scope := range Scopes {
		if err := k.admin(ctx, http.MethodPost, "/"+realm+"/client-scopes", map[string]any{
			"name": scope, "protocol": "openid-connect", "attributes": map[string]string{"include.in.token.scope": "true"},
		}, nil); err != nil {
			return err
		}
	}
	return nil
}

// SetClient creates a client or replaces it.
func (k *Keycloak) SetClient(ctx context.Context, c Client) error {
	client := map[string]any{
		"clientId": c.ID, "enabled": true, "protocol": "openid-connect", "publicClient": false,
		"serviceAccountsEnabled": !c.Off, "standardFlowEnabled": false, "directAccessGrantsEnabled": false,
		"clientAuthenticatorType": "client-secret", "optionalClientScopes": c.Scopes,
		"protocolMappers": []any{map[string]any{
			"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
			"config": map[string]string{"included.custom.audience": c.Audience, "access.token.claim": "true"},
		}},
	}
	attributes := map[string]string{"tls.client.certificate.bound.access.tokens": strconv.FormatBool(c.BoundTokens)}
	switch c.Method {
	case "private_key_jwt":
		client["clientAuthenticatorType"] = "client-jwt"
		attributes["use.jwks.url"], attributes["jwks.url"] = "true", c.JWKSURI
	case "tls_client_auth":
		client["clientAuthenticatorType"] = "client-x509"
		attributes["x509.subjectdn"], attributes["x509.allow.regex.pattern.comparison"] = c.Subject, "false"
	default:
		client["secret"] = c.Secret
		k.bed.Secrecy.AddClientSecret(c.ID, c.Secret)
	}
	client["attributes"] = attributes
	var known []struct{ ID string }
	if err := k.admin(ctx, http.MethodGet, "/"+realm+"/clients?clientId="+url.QueryEscape(c.ID), nil, &known); err != nil {
		return err
	}
	if len(known) == 0 {
		return k.admin(ctx, http.MethodPost, "/"+realm+"/clients", client, nil)
	}
	return k.admin(ctx, http.MethodPut, "/"+realm+"/clients/"+known[0].ID, client, nil)
}

// NewSigningKey adds a key provider of a higher priority than those before.
func (k *Keycloak) NewSigningKey(ctx context.Context) error {
	var own struct{ ID string }
	if err := k.admin(ctx, http.MethodGet, "/"+realm, nil, &own); err != nil {
		return err
	}
	k.signingKeys++
	return k.admin(ctx, http.MethodPost, "/"+realm+"/components", map[string]any{
		"name": fmt.Sprintf("signing key %d", k.signingKeys), "parentId": own.ID,
		"providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
		"config": map[string][]string{"priority": {strconv.Itoa(1000 + k.signingKeys)}, "algorithm": {"RS256"}, "keySize": {"2048"}},
	}, nil)
}

// admin makes a request of the administration's REST API, below /admin/realms, as the administrator.
func (k *Keycloak) admin(ctx context.Context, method, path string, body, answer any) error {
	token, err := k.login(ctx)
	if err != nil {
		return err
	}
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, k.base+"/admin/realms"+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	return exchange(request, answer)
}

// login gets an access token of the administrator.
func (k *Keycloak) login(ctx context.Context) (string, error) {
	secret, err := k.secret()
	if err != nil {
		return "", err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {keycloakAdministrator}, "client_secret": {secret}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, k.base+"/realms/master/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	err = exchange(request, &answer)
	return answer.AccessToken, err
}

// exchange sends a request and decodes the answer, if any is wanted. Any status but 2xx is an error.
func exchange(request *http.Request, answer any) error {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %w", request.Method, request.URL.Path, response.Status, errors.New(string(content)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(content, answer)
}
