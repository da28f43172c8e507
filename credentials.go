package mcpoauth

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// updateKeys sets the signing key that the request holds or asks for. old is nil for a
// new config. The other fields have been set. made tells that the plugin made a key,
// which no authorization server can know yet.
func (c *config) updateKeys(d *framework.FieldData, old *config) (made bool, err error) {
	pem, givenKey := d.GetOk("private_key")
	kind, givenType := d.GetOk("key_type")
	switch {
	case givenKey && givenType && pem != "" && kind != "":
		return false, badRequest("private_key and key_type contradict each other: write private_key for a key of your own, or key_type for one that the plugin makes")
	case givenKey && pem != "":
		return false, c.useKey(pem.(string))
	case givenType && kind != "":
		return c.makeKey(grant.KeyType(kind.(string)), old)
	case !givenKey && givenType && c.KeyType != "" && c.AuthMethod == grant.PrivateKeyJWT:
		return false, nil // an empty key_type asks for a key of the default type: there is one
	case givenKey || givenType && c.KeyType != "": // empty
		c.KeyType, c.Keys = "", nil
		return false, nil
	case c.AuthMethod == grant.PrivateKeyJWT && len(c.Keys) == 0:
		return c.makeKey(defaultKeyType, old)
	case c.KeyType == "" && len(c.Keys) > 0:
		return false, c.useKey(c.Keys[0].PEM) // key_id may have changed
	}
	return false, nil
}

// useKey takes the operator's key.
func (c *config) useKey(pem string) error {
	key, err := grant.ParseKey(pem)
	if err != nil {
		return badRequest("%v", err)
	}
	if c.KeyID != "" {
		key.ID = c.KeyID
	}
	stored, err := storedKey(key, time.Time{})
	if err != nil {
		return err
	}
	c.KeyType, c.Keys = "", keyRing{stored}
	return nil
}

// makeKey makes a key, unless the stored one is of that type and goes on travelling to
// where it was made for: writing the same config again makes no new key.
func (c *config) makeKey(kind grant.KeyType, old *config) (made bool, err error) {
	if old != nil && old.KeyType == kind && len(old.Keys) > 0 && c.sameRoute(old) {
		return false, nil
	}
	if !slices.Contains(keyTypes, kind) {
		return false, badRequest("key_type %s is not supported: write rsa-2048, ec-p256 or ed25519", quote(string(kind)))
	}
	key, err := newSigningKey(kind, time.Time{})
	if err != nil {
		return false, err
	}
	c.KeyType, c.Keys = kind, keyRing{key}
	return true, nil
}

// keyTypes are the types of key that the plugin makes.
var keyTypes = []grant.KeyType{grant.RSA2048, grant.ECP256, grant.Ed25519}

// brought tells whether the request holds the credentials that the config now has, and
// says which field they are in.
func (c *config) brought(d *framework.FieldData, madeKey bool) (field string, ok bool) {
	switch {
	case len(c.Keys) > 0 && c.KeyType != "":
		return "key_type (which makes a new key)", madeKey
	case len(c.Keys) > 0:
		field = "private_key"
	case c.ClientCertificate != "":
		field = "client_certificate_key"
	default:
		field = "client_secret"
	}
	_, ok = d.GetOk(field)
	return field, ok
}

// validCredentials checks what can be checked without knowing the authorization server.
func (c *config) validCredentials() error {
	switch {
	case c.ClientID == "":
		return badRequest("client_id is missing: write the client's identifier at the authorization server")
	case !isVisible(c.ClientID):
		return badRequest("client_id must be printable ASCII characters (RFC 6749 appendix A.1)")
	case c.AuthMethod != "" && !slices.Contains(methods, c.AuthMethod):
		return badRequest("token_endpoint_auth_method %s is not supported: write client_secret_basic, client_secret_post, private_key_jwt or tls_client_auth", quote(string(c.AuthMethod)))
	}
	hasSecret, hasKey := c.ClientSecret != "", len(c.Keys) > 0
	hasCertificate := c.ClientCertificate != "" || c.ClientCertificateKey != ""
	if hasSecret && (hasKey || hasCertificate) || hasKey && hasCertificate {
		return badRequest("a config holds one kind of credentials: empty the others in the same write, as in client_secret=\"\" or private_key=\"\" or client_certificate=\"\" client_certificate_key=\"\"")
	}
	switch c.authMethod() {
	case grant.PrivateKeyJWT:
		if !hasKey {
			return badRequest("private_key is missing: private_key_jwt needs one, or key_type for a key that the plugin makes")
		}
	case grant.TLSClientAuth:
		if !hasCertificate {
			return badRequest("client_certificate and client_certificate_key are missing: tls_client_auth needs them")
		}
	default:
		if !hasSecret && hasKey || !hasSecret && hasCertificate {
			return badRequest("token_endpoint_auth_method %s does not go with the credentials: leave it out, or write client_secret", c.AuthMethod)
		}
	}
	if err := c.validKeys(hasKey); err != nil {
		return err
	}
	if hasCertificate {
		return c.validClientCertificate()
	}
	if hasKey {
		return nil
	}
	return c.validSecret()
}

func (c *config) validSecret() error {
	switch {
	case c.ClientSecret == "":
		return badRequest("client_secret is missing: %s needs one", c.authMethod())
	case strings.TrimRight(c.ClientSecret, "\r\n") != c.ClientSecret:
		return badRequest("client_secret ends in a line break, which a file often adds: write the secret without it")
	case !isVisible(c.ClientSecret):
		return badRequest("client_secret must be printable ASCII characters (RFC 6749 appendix A.2)")
	}
	return nil
}

// validKeys checks the fields that go with signing keys.
func (c *config) validKeys(hasKey bool) error {
	if !hasKey {
		for _, f := range []struct {
			field string
			given bool
		}{
			{"key_id", c.KeyID != ""},
			{"signing_alg", c.SigningAlg != ""},
			{"certificate", c.Certificate != ""},
			{"publish_jwks", c.PublishJWKS},
			{"assertion_audience", c.AssertionAudience != ""},
		} {
			if f.given {
				return badRequest("%s goes with a signing key: write private_key or key_type, or leave it out", f.field)
			}
		}
		return nil
	}
	switch {
	case c.KeyType != "" && c.KeyID != "":
		return badRequest("key_id names a private_key: a key that the plugin makes is named by its thumbprint")
	case c.KeyType != "" && c.Certificate != "":
		return badRequest("certificate belongs to a private_key: for a key that the plugin makes there is none")
	case !isVisible(c.KeyID):
		return badRequest("key_id must be printable ASCII characters")
	case !isPrintable(c.AssertionAudience):
		return badRequest("assertion_audience must be printable characters")
	}
	key, err := grant.ParseKey(c.Keys[len(c.Keys)-1].PEM)
	if err != nil {
		return badRequest("%v", err)
	}
	if _, err := key.ChooseAlgorithm(c.SigningAlg, nil); err != nil {
		return badRequest("%v", err)
	}
	if c.Certificate != "" {
		if _, err := grant.ParseCertificate(c.Certificate, key); err != nil {
			return badRequest("%v", err)
		}
	}
	return nil
}

func (c *config) validClientCertificate() error {
	if _, err := grant.ParseClientCertificate(c.ClientCertificate, c.ClientCertificateKey); err != nil {
		return badRequest("%v", err)
	}
	return nil
}

// unexpired refuses a client certificate that the write brings and that has expired. One that expired in
// storage keeps nobody from changing the rest. old is nil for a new config.
func (c *config) unexpired(old *config) error {
	end, ok := c.certificateEnd()
	if !ok || old != nil && old.ClientCertificate == c.ClientCertificate || time.Now().Before(end) {
		return nil
	}
	return badRequest("client_certificate expired at %s: write one that is valid", rfc3339(end))
}

// fitsServer checks the credentials against what is known of the authorization server.
func (c *config) fitsServer() error {
	if c.AuthMethod == "" && c.Discovered != nil && c.TokenURL == "" &&
		len(c.Discovered.AuthMethods) > 0 && !c.serverNames(c.authMethod()) {
		return badRequest("the authorization server's metadata names the client authentication methods %s, and the credentials are for %s: write others, or set token_endpoint_auth_method to use it all the same",
			quote(strings.Join(c.Discovered.AuthMethods, " ")), c.authMethod())
	}
	if err := c.validDiscovered(); err != nil {
		return err
	}
	if c.authMethod() == grant.TLSClientAuth && !strings.HasPrefix(strings.ToLower(c.tokenURL()), "https:") {
		return badRequest("tls_client_auth needs an https token endpoint: a client certificate is shown in the TLS handshake")
	}
	if len(c.Keys) == 0 {
		return nil
	}
	if c.assertionAudience() == "" {
		return badRequest("assertion_audience=issuer needs the issuer: write issuer, or the audience itself")
	}
	if _, err := c.key(c.Keys[len(c.Keys)-1]); err != nil {
		return badRequest("%v", err)
	}
	return nil
}

// validDiscovered refuses a pinned endpoint that allow_insecure_http let in and that it no
// longer covers.
func (c *config) validDiscovered() error {
	if c.Discovered == nil || c.TokenURL != "" {
		return nil
	}
	err := c.validEndpoint("the token endpoint that was discovered", c.tokenURL())
	if err == nil || !strings.HasPrefix(strings.ToLower(c.tokenURL()), "http:") {
		return err
	}
	return badRequest("the token endpoint that was discovered uses http: write rediscover=true to look for another, or leave allow_insecure_http=true")
}
