package mcpoauth

import "github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"

// assignPublicID draws a public id if the config begins to publish, or if its keys now sign for another party than
// those of old. old is nil for a new config. Authorization servers trust the URL, so its keys must never sign for
// another party, and a new config must not inherit a deleted config's trust.
func (c *config) assignPublicID(server string, old *config) {
	switch {
	case !c.publishes():
		c.PublicID = ""
	case !old.publishes() || !c.sameParty(old):
		c.PublicID = newPublicID(server)
	}
}

// sameParty reports whether the assertions of c and o are for the same party, discovered values included, and make
// the same claims about the client. Their keys must have the same owner: the plugin, or the operator with the same
// key.
func (c *config) sameParty(o *config) bool {
	return c.sameRoute(o) && c.samePurpose(o) && c.PublicURL == o.PublicURL && c.sameClaims(o) &&
		origin(c.tokenURL()) == origin(o.tokenURL()) &&
		discovery.SameIssuer(c.issuer(), o.issuer()) &&
		c.assertionAudience() == o.assertionAudience() &&
		c.operatorsKey() == o.operatorsKey()
}

// samePurpose reports whether the keys of c and o sign the same kind of JWT. A key is never used for two kinds:
// authorization servers accept a JWT grant as client authentication, and the other way round.
func (c *config) samePurpose(o *config) bool {
	return c.Identity == o.Identity && c.grantType() == o.grantType()
}

// sameClaims reports whether the assertions of c and o make the same claims about the client.
func (c *config) sameClaims(o *config) bool {
	return c.Identity == identityStatic ||
		c.AssertionSubject == o.AssertionSubject && fingerprint(c.AssertionClaims) == fingerprint(o.AssertionClaims)
}

// operatorsKey returns the operator's signing key in PEM form; empty for a plugin-made key.
func (c *config) operatorsKey() string {
	if c.KeyType != "" || len(c.Keys) == 0 {
		return ""
	}
	return c.Keys[0].PEM
}
