//go:build servers

package acceptance

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/servers"
)

// claimsOf are additional claims about single servers, by name.
var claimsOf = map[string][]serverClaim{
	"Keycloak": {
		{"secrets that overlap", checkOverlappingSecrets},
		{"public host name", checkPublicHostName},
		{"uploaded certificate", checkUploadedCertificate},
		{"two keys at once", checkTwoKeysAtOnce},
		{"federated client", checkFederatedClient},
		{"caught assertion", checkCaughtAssertion},
		{"jwt bearer", checkJWTBearer},
		{"document", checkDocument},
		{"assertions of an issuer", checkAssertionsOfAnIssuer},
	},
	"Keycloak with resource-indicators": {
		{"unknown resource", checkUnknownResource},
		{"matching resource", checkMatchingResource},
	},
}

// keycloak returns the running Keycloak.
func (s *served) keycloak() *servers.Keycloak { return s.Server.(*servers.Keycloak) }

// inRealm creates a realm, and returns the server as seen by the realm's clients.
func (s *served) inRealm(t *testing.T, name string, attributes map[string]string) (*served, *servers.Keycloak) {
	t.Helper()
	k := bed.Must(s.keycloak().NewRealm(t.Context(), name, attributes))(t)
	return &served{Kind: s.Kind, Server: k, bed: s.bed, turns: s.turns}, k
}

// With Keycloak's rotation policy, the old secret stays valid beside the new one until an administrator ends it.
func checkOverlappingSecrets(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	in, k := s.inRealm(t, "overlap", nil)
	bed.OK(t, k.OverlapSecrets(t.Context()))
	c := in.newClient(t, "client_secret_basic", nil)
	c.configure(t, nil)
	old := c.as.Secret
	renewed := bed.Must(k.RegenerateSecret(t.Context(), c.as.ID))(t)
	for _, secret := range []string{old, renewed, old} { // each write gets a token
		c.write(t, "config/"+c.name, map[string]any{"client_secret": secret})
		c.write(t, "config/"+c.name, map[string]any{"client_secret": renewed})
	}
	bed.OK(t, k.EndOverlap(t.Context(), c.as.ID))
	c.refuse(t, "config/"+c.name, map[string]any{"client_secret": old}, http.StatusBadRequest, "unauthorized_client")
	c.write(t, "config/"+c.name, map[string]any{"client_secret": renewed})
}

// If Vault and brokers use different host names for Keycloak, the audience of an assertion has the brokers' one.
func checkPublicHostName(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	const public = "https://keycloak.example.com"
	in, k := s.inRealm(t, "public", map[string]string{"frontendUrl": public})
	c := in.newClient(t, "private_key_jwt", nil)
	internal := k.Issuer("")
	c.mcp.Trust(bed.Issuer{URL: public + "/realms/public", KeySet: internal.KeySet})
	fields := map[string]any{
		"token_url": internal.URL + "/protocol/openid-connect/token", "key_type": "ec-p256", "publish_jwks": true, "scopes": "files:read",
	}
	c.write(t, "config/"+c.name, c.fields(fields))
	if status := readStatus(t.Context(), c.root, "token/"+c.name); status != http.StatusBadRequest {
		t.Errorf("with the internal name as audience the status is %d, want 400", status)
	}
	c.configure(t, map[string]any{"assertion_audience": public + "/realms/public"})
}

// The key id of an uploaded certificate is the digest of the public key.
func checkUploadedCertificate(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	key, block := rsaPKCS8(t)
	private := string(pem.EncodeToMemory(block))
	s.bed.Secrecy.AddPrivateKey("key of an uploaded certificate", private)
	der := selfSigned(t, key)
	c := s.newClient(t, "private_key_jwt", func(c *servers.Client) {
		c.Attributes = map[string]string{
			"use.jwks.url": "false", "jwt.credential.certificate": base64.StdEncoding.EncodeToString(der),
		}
	})
	public := bed.Must(x509.MarshalPKIXPublicKey(key.Public()))(t)
	digest := sha256.Sum256(public)
	fields := c.fields(map[string]any{"private_key": private})
	c.refuse(t, "config/"+c.name, fields, http.StatusBadRequest, "key_id")
	c.configure(t, map[string]any{"private_key": private, "key_id": base64.RawURLEncoding.EncodeToString(digest[:])})
}

// Keycloak fetches a key set at most once in 10 s, and until then refuses a second new key.
func checkTwoKeysAtOnce(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newClient(t, "private_key_jwt", nil)
	begun := time.Now() // before Keycloak fetches the first key
	c.configure(t, map[string]any{"key_type": "ec-p256", "publish_jwks": true})
	c.write(t, "config/"+c.name, map[string]any{"key_type": "ed25519"})
	verify := func() error {
		_, err := c.root.Logical().WriteWithContext(t.Context(), bed.Mount+"/config/"+c.name, map[string]any{"client_id": c.as.ID})
		return err
	}
	err := verify()
	if took := time.Since(begun); took >= 10*time.Second {
		t.Logf("not checked that the second key is refused: it was sent %s after the first, when Keycloak may fetch again", took.Round(time.Second))
	} else if err == nil || !strings.Contains(err.Error(), "Unable to load public key") {
		t.Errorf("the second key is answered with %v, want its refusal", err)
	}
	bed.Eventually(t, 30*time.Second, verify)
}

// With resource-indicators, Keycloak refuses a resource that is not a client.
func checkUnknownResource(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newClient(t, "client_secret_basic", nil)
	c.refuse(t, "config/"+c.name, c.fields(map[string]any{"resource": "https://other.example.com/mcp"}), http.StatusBadRequest, "invalid_target")
	c.refuse(t, "config/"+c.name, c.fields(map[string]any{"resource": c.mcp.URL + ",https://other.example.com/mcp"}), http.StatusBadRequest, "duplicated parameter")
	c.configure(t, map[string]any{"omit_resource": true})
}

// With resource-indicators, Keycloak answers 500 for a matching resource, unless the client has the setting of issue
// 50251.
func checkMatchingResource(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newClient(t, "client_secret_basic", func(c *servers.Client) {
		c.Attributes = map[string]string{"client_credentials.use_refresh_token": "false"}
	})
	c.refuse(t, "config/"+c.name, c.fields(nil), http.StatusBadGateway, "unknown_error")
	c.as.Attributes = nil
	c.register(t)
	c.configure(t, nil)
}
