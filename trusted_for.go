package mcpoauth

import "github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"

// assignPublicID draws a public id if the config begins to publish, or if its keys now sign for another
// party than those of old, which is nil for a new config. Authorization servers trust a URL: what is at it
// must never sign for another party, and a deleted config's successor must not inherit its trust.
func (c *config) assignPublicID(server string, old *config) {
	switch {
	case !c.publishes():
		c.PublicID = ""
	case !old.publishes() || !c.signsFor(old):
		c.PublicID = newPublicID(server)
	}
}

// signsFor reports whether the assertions of c are for the same party as those of o, what discovery found
// included, say the same of the client, and are signed by keys in the same hands: the plugin's, or the very key
// that the operator wrote.
func (c *config) signsFor(o *config) bool {
	return c.sameRoute(o) && c.samePurpose(o) && c.PublicURL == o.PublicURL && c.saysTheSame(o) &&
		origin(c.tokenURL()) == origin(o.tokenURL()) &&
		discovery.SameIssuer(c.issuer(), o.issuer()) &&
		c.assertionAudience() == o.assertionAudience() &&
		c.operatorsKey() == o.operatorsKey()
}

// samePurpose reports whether the keys sign the same kind of statement. One key is never used for two:
// authorization servers take a JWT that is a grant for the authentication of a client, and the other way round.
func (c *config) samePurpose(o *config) bool {
	return c.Identity == o.Identity && c.grantType() == o.grantType()
}

// saysTheSame reports whether an issuer's assertions say the same of the client.
func (c *config) saysTheSame(o *config) bool {
	return c.Identity == identityStatic ||
		c.AssertionSubject == o.AssertionSubject && fingerprint(c.AssertionClaims) == fingerprint(o.AssertionClaims)
}

// operatorsKey is the signing key that the operator wrote, in PEM form; empty for a key that the plugin made.
func (c *config) operatorsKey() string {
	if c.KeyType != "" || len(c.Keys) == 0 {
		return ""
	}
	return c.Keys[0].PEM
}
