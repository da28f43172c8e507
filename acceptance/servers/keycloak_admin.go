package servers

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// setUp creates the realm and its client scopes.
func (k *Keycloak) setUp(ctx context.Context, attributes map[string]string) error {
	if err := k.admin(ctx, http.MethodPost, "", map[string]any{
		"realm": k.realm, "enabled": true, "accessTokenLifespan": Lifetime, "attributes": attributes,
	}, nil); err != nil {
		return err
	}
	for _, scope := range Scopes {
		if err := k.admin(ctx, http.MethodPost, "/"+k.realm+"/client-scopes", map[string]any{
			"name": scope, "protocol": "openid-connect", "attributes": map[string]string{"include.in.token.scope": "true"},
		}, nil); err != nil {
			return err
		}
	}
	return nil
}

// SetClient creates a client or replaces it.
func (k *Keycloak) SetClient(ctx context.Context, c Client) error {
	audience, err := k.audience(ctx, c)
	if err != nil {
		return err
	}
	client := map[string]any{
		"clientId": c.ID, "enabled": !c.Disabled, "protocol": "openid-connect", "publicClient": false,
		"serviceAccountsEnabled": !c.Off, "standardFlowEnabled": false, "directAccessGrantsEnabled": false,
		"clientAuthenticatorType": "client-secret", "optionalClientScopes": c.Scopes,
		"protocolMappers": []any{map[string]any{
			"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
			"config": map[string]string{audience: c.Audience, "access.token.claim": "true"},
		}},
	}
	attributes := map[string]string{"tls.client.certificate.bound.access.tokens": strconv.FormatBool(c.BoundTokens)}
	switch c.Method {
	case "private_key_jwt":
		client["clientAuthenticatorType"] = "client-jwt"
		attributes["use.jwks.url"], attributes["jwks.url"] = "true", c.JWKSURI
	case "federated-jwt": // issuer and subject are attributes
		client["clientAuthenticatorType"] = c.Method
	case "tls_client_auth":
		client["clientAuthenticatorType"] = "client-x509"
		attributes["x509.subjectdn"], attributes["x509.casubjectdn"] = c.Subject, k.ca.Subject
		attributes["x509.allow.regex.pattern.comparison"] = "false"
	default:
		client["secret"] = c.Secret
		k.bed.Secrecy.AddClientSecret(c.ID, c.Secret)
	}
	if k.resourceIndicators {
		attributes["client_credentials.use_refresh_token"] = "true" // for Keycloak's issue 50251
	}
	maps.Copy(attributes, c.Attributes)
	client["attributes"] = attributes
	return k.set(ctx, c.ID, client)
}

// audience returns the setting of an audience mapper for the client's audience. With resource indicators, the
// resource must be a client, which audience creates.
func (k *Keycloak) audience(ctx context.Context, c Client) (string, error) {
	if !k.resourceIndicators {
		return "included.custom.audience", nil
	}
	return "included.client.audience", k.set(ctx, c.Audience, map[string]any{
		"clientId": c.Audience, "attributes": map[string]string{"resource_url": c.Audience},
	})
}

func (k *Keycloak) set(ctx context.Context, clientID string, client map[string]any) error {
	id, err := k.idOf(ctx, clientID)
	if err != nil {
		return err
	}
	if id == "" {
		return k.admin(ctx, http.MethodPost, "/"+k.realm+"/clients", client, nil)
	}
	return k.admin(ctx, http.MethodPut, "/"+k.realm+"/clients/"+id, client, nil)
}

// idOf returns the administration API's id of a client, or "".
func (k *Keycloak) idOf(ctx context.Context, clientID string) (string, error) {
	var known []struct{ ID string }
	err := k.admin(ctx, http.MethodGet, "/"+k.realm+"/clients?clientId="+url.QueryEscape(clientID), nil, &known)
	if err != nil || len(known) == 0 {
		return "", err
	}
	return known[0].ID, nil
}

// NewRealm creates another realm on the server.
func (k *Keycloak) NewRealm(ctx context.Context, name string, attributes map[string]string) (*Keycloak, error) {
	other := *k
	other.realm = name
	return &other, other.setUp(ctx, attributes)
}

// OverlapSecrets keeps a replaced client secret valid for a day.
func (k *Keycloak) OverlapSecrets(ctx context.Context) error {
	return k.clientPolicy(ctx, "overlap", "secret-rotation", map[string]any{
		"expiration-period": 30 * 86400, "rotated-expiration-period": 86400, "remaining-rotation-period": 10 * 86400,
	}, "client-access-type", map[string]any{"type": []string{"confidential"}})
}

// clientPolicy makes an executor run for clients that meet a condition.
func (k *Keycloak) clientPolicy(ctx context.Context, name, executor string, does map[string]any, condition string, clients map[string]any) error {
	if err := k.admin(ctx, http.MethodPut, "/"+k.realm+"/client-policies/profiles", map[string]any{"profiles": []any{map[string]any{
		"name": name, "executors": []any{map[string]any{"executor": executor, "configuration": does}},
	}}}, nil); err != nil {
		return err
	}
	return k.admin(ctx, http.MethodPut, "/"+k.realm+"/client-policies/policies", map[string]any{"policies": []any{map[string]any{
		"name": name, "enabled": true, "profiles": []string{name},
		"conditions": []any{map[string]any{"condition": condition, "configuration": clients}},
	}}}, nil)
}

// RegenerateSecret replaces a client's secret and returns the new one.
func (k *Keycloak) RegenerateSecret(ctx context.Context, clientID string) (string, error) {
	id, err := k.idOf(ctx, clientID)
	if err != nil {
		return "", err
	}
	var answer struct{ Value string }
	err = k.admin(ctx, http.MethodPost, "/"+k.realm+"/clients/"+id+"/client-secret", nil, &answer)
	k.bed.Secrecy.AddClientSecret(clientID, answer.Value)
	return answer.Value, err
}

// EndOverlap ends the validity of the replaced secret.
func (k *Keycloak) EndOverlap(ctx context.Context, clientID string) error {
	id, err := k.idOf(ctx, clientID)
	if err != nil {
		return err
	}
	return k.admin(ctx, http.MethodDelete, "/"+k.realm+"/clients/"+id+"/client-secret/rotated", nil, nil)
}

// NewSigningKey adds a key provider with a higher priority.
func (k *Keycloak) NewSigningKey(ctx context.Context) error {
	var own struct{ ID string }
	if err := k.admin(ctx, http.MethodGet, "/"+k.realm, nil, &own); err != nil {
		return err
	}
	k.signingKeys++
	return k.admin(ctx, http.MethodPost, "/"+k.realm+"/components", map[string]any{
		"name": fmt.Sprintf("signing key %d", k.signingKeys), "parentId": own.ID,
		"providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
		"config": map[string][]string{"priority": {strconv.Itoa(1000 + k.signingKeys)}, "algorithm": {"RS256"}, "keySize": {"2048"}},
	}, nil)
}

// admin makes an administrator's request to a path below /admin/realms.
func (k *Keycloak) admin(ctx context.Context, method, path string, body, answer any) error {
	token, err := k.login(ctx)
	if err != nil {
		return err
	}
	return bed.Call(ctx, method, k.base+"/admin/realms"+path, http.Header{"Authorization": {"Bearer " + token}}, body, answer)
}

func (k *Keycloak) login(ctx context.Context) (string, error) {
	secret, err := k.secret()
	if err != nil {
		return "", err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {keycloakAdministrator}, "client_secret": {secret}}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	err = bed.Call(ctx, http.MethodPost, k.base+"/realms/master/protocol/openid-connect/token", nil, form, &answer)
	return answer.AccessToken, err
}
