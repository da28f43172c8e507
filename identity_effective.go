package mcpoauth

import "cmp"

// clientID returns the client's identifier in effect; empty if the authorization server knows the client by the
// issuer and subject of its assertions.
func (c *config) clientID() string {
	if c.Identity == identityDocument {
		return c.documentURL()
	}
	return c.ClientID
}

// subject returns the sub of an issuer's assertions: the operator's, else the server's name.
func (c *config) subject() string {
	return cmp.Or(c.AssertionSubject, serverOf(c.PublicID))
}

// issuerURL returns the iss of an issuer's assertions.
func (c *config) issuerURL() string { return c.at(issuerPrefix) }

// documentURL returns the URL of the client's description, for identityDocument.
func (c *config) documentURL() string { return c.at(documentPrefix) }

func (c *config) at(prefix string) string {
	return settings{PublicURL: c.PublicURL}.url(prefix + c.PublicID)
}
