package mcpoauth

import (
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// validCredentials checks the credentials as far as is possible without the authorization server's metadata.
func (c *config) validCredentials() error {
	hasSecret, hasKey := c.ClientSecret != "", len(c.Keys) > 0
	hasCertificate := c.ClientCertificate != "" || c.ClientCertificateKey != ""
	if c.Grant == grant.JWTBearer && !(hasSecret && hasCertificate) {
		return c.validBearer(hasSecret, hasCertificate)
	}
	if hasSecret && (hasKey || hasCertificate) || hasKey && hasCertificate {
		return badRequest("a config holds one kind of credentials: empty the others in the same write, as in client_secret=\"\" or private_key=\"\" or client_certificate=\"\" client_certificate_key=\"\"")
	}
	switch c.authMethod() {
	case grant.PrivateKeyJWT:
		if !hasKey {
			return badRequest("private_key is missing: private_key_jwt needs one, or key_type for a key that the plugin makes; for other credentials write token_endpoint_auth_method=\"\"")
		}
	case grant.TLSClientAuth, grant.SelfSignedTLSClientAuth:
		if !hasCertificate {
			return badRequest("client_certificate and client_certificate_key are missing: %s needs them; for other credentials write token_endpoint_auth_method=\"\"", c.authMethod())
		}
	default:
		if !hasSecret && hasKey || !hasSecret && hasCertificate {
			return badRequest("token_endpoint_auth_method %s does not go with the credentials: write token_endpoint_auth_method=\"\", or client_secret", c.AuthMethod)
		}
	}
	if c.RawBasicAuth && c.AuthMethod != "" && c.AuthMethod != grant.ClientSecretBasic || c.RawBasicAuth && !hasSecret {
		return badRequest("raw_basic_auth goes with client_secret_basic: write raw_basic_auth=false")
	}
	if c.RawBasicAuth && strings.Contains(c.ClientID, ":") {
		return badRequest("raw_basic_auth does not go with a client_id that holds a colon, which ends it (RFC 7617 section 2): write raw_basic_auth=false")
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
	case !isPrintable(c.ClientSecret):
		return badRequest("client_secret must be printable characters")
	}
	return nil
}

// validBearer checks the keys of the JWT bearer grant and, if the client also authenticates, its credentials.
func (c *config) validBearer(hasSecret, hasCertificate bool) error {
	method := c.authMethod()
	switch {
	case (hasSecret || hasCertificate) && c.ClientID == "":
		return badRequest("client_id is missing: client_secret and client_certificate need one")
	case hasSecret && method.Certificate() || c.ClientCertificate != "" && !method.Certificate():
		return badRequest("token_endpoint_auth_method %s does not go with the credentials: write token_endpoint_auth_method=\"\"", c.AuthMethod)
	case c.RawBasicAuth && (method != grant.ClientSecretBasic || strings.Contains(c.ClientID, ":")):
		return badRequest("raw_basic_auth goes with client_secret_basic and a client_id without a colon: write raw_basic_auth=false")
	}
	if err := c.validKeys(true); err != nil {
		return err
	}
	switch {
	case hasSecret:
		return c.validSecret()
	case hasCertificate:
		return c.validClientCertificate()
	}
	return nil
}

// validKeys checks the signing key and the fields for it. Without a key the fields must be empty.
func (c *config) validKeys(hasKey bool) error {
	if !hasKey {
		if field := configTable.firstGiven(c, needsKey); field != "" {
			return badRequest("%s goes with a signing key: write private_key or key_type, or an empty %s", field, field)
		}
		if c.AssertionTTL != 0 {
			return badRequest("assertion_ttl goes with a signing key: write private_key or key_type, or an empty assertion_ttl")
		}
		return nil
	}
	switch {
	case c.KeyType != "" && c.KeyID != nil && *c.KeyID != "":
		return badRequest("key_id names a private_key, and a key that the plugin makes is named by its thumbprint: write key_id=thumbprint, or an empty key_id to send none")
	case c.KeyType != "" && c.Certificate != "":
		return badRequest("certificate goes with private_key: a key that the plugin makes has no certificate; write certificate=\"\"")
	case c.KeyID != nil && !isVisible(*c.KeyID):
		return badRequest("key_id must be printable ASCII characters")
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

// validExpiry refuses an expired client certificate if the write gives it. A stored one that has expired doesn't
// block other changes. old is nil for a new config.
func (c *config) validExpiry(old *config) error {
	end, ok := c.certificateEnd()
	if !ok || old != nil && old.ClientCertificate == c.ClientCertificate || time.Now().Before(end) {
		return nil
	}
	return badRequest("client_certificate expired at %s: write one that is valid", rfc3339(end))
}

// fitsServer checks the credentials against the authorization server's metadata.
func (c *config) fitsServer() error {
	if err := c.oneResource(nil); err != nil {
		return err
	}
	if c.AuthMethod == "" && c.authMethod() != grant.None && c.Discovered != nil && c.TokenURL == "" &&
		len(c.Discovered.AuthMethods) > 0 && !c.serverNames(c.authMethod()) {
		return badRequest("the authorization server's metadata names the client authentication methods %s, and the credentials are for %s: write other credentials, or set token_endpoint_auth_method to use them anyway",
			quote(strings.Join(c.Discovered.AuthMethods, " ")), c.authMethod())
	}
	if err := c.validDiscovered(); err != nil {
		return err
	}
	if c.authMethod().Certificate() && !strings.HasPrefix(strings.ToLower(c.tokenURL()), "https:") {
		return badRequest("%s needs an https token endpoint: a client certificate is sent in the TLS handshake; write token_url or issuer with https", c.authMethod())
	}
	if len(c.Keys) == 0 {
		return nil
	}
	if audience := c.assertionAudience(); c.Identity != identityStatic && strings.ContainsAny(audience, " ,\t") {
		return badRequest("assertion_audience must be one value with identity=%s: each of several audiences could use the assertion at the others", c.Identity)
	} else if audience == "" {
		return badRequest("assertion_audience=issuer needs the issuer: write issuer, or the audience itself")
	}
	if _, err := c.key(c.Keys[len(c.Keys)-1]); err != nil {
		return badRequest("%v", err)
	}
	return nil
}

// validDiscovered refuses a pinned http endpoint once allow_insecure_http is unset.
func (c *config) validDiscovered() error {
	if c.Discovered == nil || c.TokenURL != "" {
		return nil
	}
	err := validEndpoint("the discovered token endpoint", c.tokenURL(), c.AllowInsecureHTTP)
	if err == nil || !strings.HasPrefix(strings.ToLower(c.tokenURL()), "http:") {
		return err
	}
	return badRequest("the discovered token endpoint uses http: write rediscover=true to look for another one, or leave allow_insecure_http=true")
}
