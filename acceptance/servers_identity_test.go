//go:build servers

package acceptance

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/servers"
)

// newIdentity starts an MCP server, and writes a config with an identity that the server does not trust yet.
func (s *served) newIdentity(t *testing.T, fields map[string]any) *clientOf {
	t.Helper()
	c := s.newClient(t, "federated-jwt", func(c *servers.Client) { c.ID += "-identity" })
	c.name += "-identity"
	c.write(t, "settings", map[string]any{"public_url": strings.TrimSuffix(c.mountURL(), "/")})
	c.write(t, "config/"+c.name, c.identity(fields))
	return c
}

// identity returns the fields of a config without a secret, together with more.
func (c *clientOf) identity(more map[string]any) map[string]any {
	fields := c.fields(more)
	if more["client_id"] == nil {
		delete(fields, "client_id")
	}
	return fields
}

// shown returns a value of keys/ that an administrator enters at the server.
func (c *clientOf) shown(t *testing.T, field string) string {
	t.Helper()
	value, _ := c.read(t, "keys/"+c.name)[field].(string)
	if value == "" {
		t.Fatalf("keys/%s does not show %s", c.name, field)
	}
	return value
}

// newFederated returns a client that the server knows by its config's issuer and subject.
func (s *served) newFederated(t *testing.T) *clientOf {
	t.Helper()
	c := s.newIdentity(t, map[string]any{"identity": "issuer"})
	c.trusted(t, map[string]string{"supportsClientAssertions": "true"})
	c.as.Attributes = map[string]string{"jwt.credential.issuer": c.name, "jwt.credential.sub": c.shown(t, "subject")}
	c.register(t)
	return c
}

// obtain waits for a token and reads it.
func (c *clientOf) obtain(t *testing.T) *bed.Token {
	t.Helper()
	c.awaitToken(t)
	return c.token(t, "token/"+c.name)
}

// trusted makes the server trust the issuer of the config.
func (c *clientOf) trusted(t *testing.T, settings map[string]string) {
	t.Helper()
	bed.OK(t, c.server.keycloak().TrustIssuer(t.Context(), c.name, c.shown(t, "issuer"), settings))
}

// The mount is the issuer of client assertions, without a secret or a registered key. checkLife checks its rotation.
func checkFederatedClient(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newFederated(t)
	if got, want := c.shown(t, "audience"), s.Issuer("").URL; got != want {
		t.Errorf("keys/ shows the audience %q, want %q", got, want)
	}
	c.obtain(t)
	// The config may have the client's id at the server too.
	c.write(t, "config/"+c.name, map[string]any{"client_id": c.as.ID})

	// The server knows no client with this subject.
	c.write(t, "config/"+c.name, map[string]any{"client_id": "", "assertion_subject": "other"})
	c.refuse(t, "refresh/"+c.name, nil, http.StatusBadRequest, "")
}

// The server does not trust the issuer of an assertion caught by a thief.
func checkCaughtAssertion(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newFederated(t)
	c.obtain(t)

	thief := startThief(t)
	c.write(t, "config/"+c.name, map[string]any{
		"token_url": thief.URL, "issuer": s.Issuer("").URL, "assertion_audience": s.Issuer("").URL, "key_type": "rsa-2048",
	})
	readStatus(t.Context(), c.root, "token/"+c.name)
	caught := thief.form(t)
	a := exchangeForm(t, s.Issuer("").URL+"/protocol/openid-connect/token", caught)
	if a.status == http.StatusOK {
		t.Error("an assertion that was sent to another host is accepted")
	}
	t.Logf("the caught assertion is answered with %d %s", a.status, s.bed.Secrecy.Redact([]byte(a.body)))
}

// The assertion is the grant, for a user linked to the subject. The server also requires a confidential client.
func checkJWTBearer(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newClient(t, "client_secret_basic", func(c *servers.Client) {
		c.Attributes = map[string]string{"oauth2.jwt.authorization.grant.enabled": "true"}
	})
	c.write(t, "settings", map[string]any{"public_url": strings.TrimSuffix(c.mountURL(), "/")})
	c.write(t, "config/"+c.name, c.fields(map[string]any{"identity": "issuer", "grant": "jwt_bearer", "assertion_subject": "agent"}))
	c.trusted(t, map[string]string{"jwtAuthorizationGrantEnabled": "true", "jwtAuthorizationGrantLimitAccessTokenExp": "true"})
	bed.OK(t, s.keycloak().LinkUser(t.Context(), c.name, "agent"))
	c.as.Attributes["oauth2.jwt.authorization.grant.idp"] = c.name
	c.register(t)
	token := c.obtain(t)
	if left := time.Until(token.ExpiresAt); left > servers.Lifetime*time.Second {
		t.Errorf("the token is valid for %s", left)
	}
	// The token ends when the assertion does.
	c.write(t, "config/"+c.name, map[string]any{"assertion_ttl": "20s"})
	if left := time.Until(c.obtain(t).ExpiresAt); left > 20*time.Second {
		t.Errorf("with assertion_ttl=20s the token is valid for %s", left)
	}
	c.write(t, "config/"+c.name, map[string]any{"assertion_subject": "nobody"})
	c.refuse(t, "refresh/"+c.name, nil, http.StatusBadRequest, "invalid_grant")
}

// The server knows a client by the URL of its document after one authorization request.
func checkDocument(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	in, k := s.inRealm(t, "documents", nil)
	bed.OK(t, k.TakeDocuments(t.Context()))
	c := in.newIdentity(t, map[string]any{"identity": "document", "scopes": "profile"})
	document := c.shown(t, "document_url")
	status, page, err := k.Authorize(t.Context(), document, document+"/none")
	bed.OK(t, err)
	known, err := k.ClientOf(t.Context(), document)
	if err != nil || known == nil {
		t.Fatalf("after an authorization request with status %d, the server knows %v, %v:\n%s", status, known, err, page)
	}
	c.write(t, "config/"+c.name, map[string]any{"max_ttl": "1h", "verify": true})
	c.awaitToken(t)
	wantStatus(t, c.root, "token/"+c.name, http.StatusOK)
}

// The plugin must not send these assertions: the server refuses them even from a trusted issuer.
func checkAssertionsOfAnIssuer(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	issuer := startIssuer(t)
	c := s.newClient(t, "federated-jwt", func(c *servers.Client) { c.Scopes = servers.Scopes })
	settings := map[string]string{"supportsClientAssertions": "true"}
	bed.OK(t, s.keycloak().TrustIssuer(t.Context(), c.name, issuer.URL, settings))
	c.as.Attributes = map[string]string{"jwt.credential.issuer": c.name, "jwt.credential.sub": "agent"}
	c.register(t)
	realm := s.Issuer("").URL
	now := time.Now()
	reused := "used before"
	for _, test := range []struct {
		name   string
		change func(claims map[string]any)
		ok     bool
	}{
		{"as the plugin's", func(claims map[string]any) { claims["jti"] = reused }, true},
		{"reused jti", func(claims map[string]any) { claims["jti"] = reused }, false},
		{"no jti", func(claims map[string]any) { delete(claims, "jti") }, false},
		{"another sub", func(claims map[string]any) { claims["sub"] = "other" }, false},
		{"another iss", func(claims map[string]any) { claims["iss"] = issuer.URL + "/other" }, false},
		{"iss = sub", func(claims map[string]any) { claims["sub"] = issuer.URL }, false},
		{"two audiences", func(claims map[string]any) { claims["aud"] = []string{realm, "https://other.example.com"} }, false},
		{"expired", func(claims map[string]any) {
			claims["iat"], claims["exp"] = now.Add(-10*time.Minute).Unix(), now.Add(-5*time.Minute).Unix()
		}, false},
	} {
		claims := map[string]any{
			"iss": issuer.URL, "sub": "agent", "aud": realm, "jti": newSecret(),
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		}
		test.change(claims)
		a := exchangeForm(t, realm+"/protocol/openid-connect/token", map[string][]string{
			"grant_type": {"client_credentials"}, "client_assertion": {issuer.sign(t, claims)},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		})
		if (a.status == http.StatusOK) != test.ok {
			t.Errorf("%s: %d %s", test.name, a.status, s.bed.Secrecy.Redact([]byte(a.body)))
		}
	}
}
