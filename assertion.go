package mcpoauth

import (
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// assertion returns the key and claims of an assertion that is signed at now.
func (c *config) assertion(now time.Time) (*grant.Assertion, error) {
	active := c.Keys.activeAt(now)
	if active < 0 {
		return nil, badRequest("private_key is missing: write one, or key_type for a key that the plugin makes")
	}
	key, err := c.key(c.Keys[active])
	if err != nil {
		return nil, err
	}
	if c.KeyID != nil && *c.KeyID == "" {
		key.ID = "" // only the assertion omits the kid; the key set has it
	}
	a := &grant.Assertion{
		Key: key, Audience: c.assertionAudience(), Type: c.AssertionType, Lifetime: c.assertionTTL(), Claims: decoded(c.AssertionClaims),
	}
	if c.Identity == identityIssuer {
		a.Issuer, a.Subject = c.issuerURL(), c.subject()
	}
	if c.Certificate != "" {
		if a.Certificate, err = grant.ParseCertificate(c.Certificate, key); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// key parses a stored key and chooses its algorithm.
func (c *config) key(stored signingKey) (*grant.Key, error) {
	key, err := grant.ParseKey(stored.PEM)
	if err != nil {
		return nil, err
	}
	key.ID = stored.ID
	key.Alg, err = key.ChooseAlgorithm(c.SigningAlg, c.supportedAlgs())
	return key, err
}

// Special values of assertion_audience. The plugin replaces them.
const (
	audienceIssuer        = "issuer"
	audienceTokenEndpoint = "token_endpoint"
)

// assertionAudience returns the aud of assertions; empty if it should be the issuer and the issuer is unknown.
func (c *config) assertionAudience() string {
	switch c.AssertionAudience {
	case audienceIssuer:
		return c.issuer()
	case audienceTokenEndpoint:
		return c.tokenURL()
	case "":
		issuer := c.issuer()
		if c.Grant == grant.JWTBearer || issuer == "" && c.Identity != identityDocument {
			return c.tokenURL()
		}
		return issuer
	default:
		return c.AssertionAudience
	}
}
