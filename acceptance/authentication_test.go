package acceptance

import (
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Each client authentication method gets a token for the MCP server. The config has only the MCP server's URL, the
// client's id and its credentials. The plugin discovers the authorization server, the scopes and, if the credentials
// leave one choice, method and algorithm.
func TestEveryClientAuthentication(t *testing.T) {
	t.Parallel()
	const made = true
	for _, c := range []struct {
		name        string
		credentials credentials
		fields      map[string]any // additional fields of the config
		method, alg string         // expected by the authorization server
		made        bool           // the plugin makes the key, so the write sends no token request
	}{
		{"basic", secret("client_secret_basic"), nil, "client_secret_basic", "", false},
		{"post", secret("client_secret_post"), map[string]any{"token_endpoint_auth_method": "client_secret_post"}, "client_secret_post", "", false},

		{"RS256 from PKCS 8", operatorKey(rsaPKCS8), nil, "private_key_jwt", "RS256", false},
		{"RS256 from PKCS 1", operatorKey(rsaPKCS1), nil, "private_key_jwt", "RS256", false},
		{"PS256", operatorKey(rsaPKCS8), map[string]any{"signing_alg": "PS256"}, "private_key_jwt", "PS256", false},
		{"ES256 from PKCS 8", operatorKey(p256PKCS8), nil, "private_key_jwt", "ES256", false},
		{"ES256 from SEC 1", operatorKey(p256SEC1), nil, "private_key_jwt", "ES256", false},
		{"ES384", operatorKey(p384PKCS8), nil, "private_key_jwt", "ES384", false},
		{"EdDSA", operatorKey(edPKCS8), nil, "private_key_jwt", "EdDSA", false},
		{"key with a name and a certificate", namedKey, nil, "private_key_jwt", "ES256", false},

		{"made rsa-2048", madeKey("rsa-2048"), nil, "private_key_jwt", "RS256", made},
		{"made rsa-2048 with PS256", madeKey("rsa-2048"), map[string]any{"signing_alg": "PS256"}, "private_key_jwt", "PS256", made},
		{"made ec-p256", madeKey("ec-p256"), nil, "private_key_jwt", "ES256", made},
		{"made ed25519", madeKey("ed25519"), nil, "private_key_jwt", "EdDSA", made},
		{"published rsa-2048", publishedKey("rsa-2048"), nil, "private_key_jwt", "RS256", made},
		{"published ec-p256", publishedKey("ec-p256"), nil, "private_key_jwt", "ES256", made},
		{"published ed25519", publishedKey("ed25519"), nil, "private_key_jwt", "EdDSA", made},

		{"certificate by subject", certificate(bySubject), nil, "tls_client_auth", "", false},
		{"certificate by name", certificate(byName), nil, "tls_client_auth", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, shared(t), "", 5*time.Minute)
			settings := u.discovered(c.credentials(t, u))
			settings["client_id"] = u.client.ID
			maps.Copy(settings, c.fields)
			answer := u.write(t, "config/"+u.name, settings)

			atWrite := u.requests(t)
			if c.made {
				if len(atWrite) > 0 {
					t.Errorf("the write sent a token request with a key that is not registered yet: %+v", atWrite)
				}
				if answer == nil || len(answer.Warnings) == 0 {
					t.Error("the write does not warn that the key has to be registered")
				}
				u.registerMadeKey(t)
			} else if len(atWrite) != 1 {
				t.Errorf("the write made %d token requests, want 1", len(atWrite))
			}

			token := u.token(t, "token/"+u.name)
			if token.Scope != u.client.Scope {
				t.Errorf("scope %q, want %q, which the MCP server's metadata names", token.Scope, u.client.Scope)
			}
			u.checkRequest(t, u.wantRequests(t, 1)[0], c.method, c.alg)
			u.checkConfig(t)
		})
	}
}

// checkRequest checks the token request that the authorization server received.
func (u *upstream) checkRequest(t *testing.T, got bed.TokenRequest, method, alg string) {
	t.Helper()
	if got.Status != http.StatusOK || got.AuthMethod != method || got.Resource != u.mcp.URL {
		t.Errorf("token request %+v, want method %s for %s", got, method, u.mcp.URL)
	}
	if alg == "" {
		return
	}
	assertion := got.Assertion
	if assertion.Alg != alg {
		t.Errorf("algorithm %q, want %q", assertion.Alg, alg)
	}
	if want := u.kid(t); assertion.KeyID != want {
		t.Errorf("kid %q, want %q", assertion.KeyID, want)
	}
	if assertion.X5T != u.x5t {
		t.Errorf("x5t#S256 %q, want %q", assertion.X5T, u.x5t)
	}
	// RFC 7523 section 3: most servers accept the issuer as the only audience.
	if assertion.Audience != u.bed.AS.Issuer {
		t.Errorf("aud %v, want %q", assertion.Audience, u.bed.AS.Issuer)
	}
	const bits128 = 22 // characters of base64
	if assertion.Type == "" || len(assertion.ID) < bits128 || assertion.Lifetime <= 0 || assertion.Lifetime > 60 {
		t.Errorf("assertion %+v, want a typ, a jti of 128 bits and at most 60 s", assertion)
	}
}

func (u *upstream) kid(t *testing.T) string {
	t.Helper()
	keys := u.client.JWKS
	if keys == nil {
		keys = u.publicKeys(t)
	}
	if len(keys.Keys) != 1 {
		t.Fatalf("%d public keys, want 1", len(keys.Keys))
	}
	return keys.Keys[0].KeyID
}

// checkConfig checks that a read of the config shows the discovered endpoints, and no secret.
func (u *upstream) checkConfig(t *testing.T) {
	t.Helper()
	config := u.read(t, "config/"+u.name)
	// A client certificate uses an alias of the token endpoint (RFC 8705 section 5). The config does not show it.
	if config["discovered_issuer"] != u.bed.AS.Issuer || config["discovered_token_url"] != u.bed.AS.TokenURL() {
		t.Errorf("discovered_issuer %v, discovered_token_url %v, want %s and %s",
			config["discovered_issuer"], config["discovered_token_url"], u.bed.AS.Issuer, u.bed.AS.TokenURL())
	}
	at, _ := config["discovered_at"].(string)
	if when, err := time.Parse(time.RFC3339, at); err != nil || time.Since(when) > time.Minute {
		t.Errorf("discovered_at %q, want a moment ago: %v", at, err)
	}
	for _, field := range []string{"client_secret", "private_key", "client_certificate_key"} {
		if _, shown := config[field]; shown {
			t.Errorf("a read of the config returns %s", field)
		}
	}
}
