package mcpoauth

import "github.com/hashicorp/vault/sdk/framework"

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

// sameRoute tells whether the credentials would travel to the same place under the
// same protection: where this changes they must be given anew, or whoever may update a
// config could have its secret sent to a host of their own.
func (c *config) sameRoute(o *config) bool {
	return c.TokenURL == o.TokenURL && c.Issuer == o.Issuer && c.discoverySource() == o.discoverySource() &&
		c.AssertionAudience == o.AssertionAudience && c.CACert == o.CACert &&
		c.AllowInsecureHTTP == o.AllowInsecureHTTP && c.AllowPrivateAddresses == o.AllowPrivateAddresses
}

// sameCredentials tells whether the client would identify itself in the same way.
func (c *config) sameCredentials(o *config) bool {
	return fingerprint(c.identity()) == fingerprint(o.identity())
}

// identity is what the client identifies itself with. It holds secrets.
func (c *config) identity() any {
	return []any{
		c.ClientID, c.authMethod(), c.ClientSecret, c.Keys, c.KeyID, c.SigningAlg, c.Certificate,
		c.ClientCertificate, c.ClientCertificateKey,
	}
}
