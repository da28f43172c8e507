package mcpoauth

import (
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// suppliesCredentials reports whether the request holds the credentials that the config now has, and
// says which fields they are in.
func (c *config) suppliesCredentials(d *framework.FieldData, madeKey bool) (field string, ok bool) {
	var fields []string
	ok = true
	need := func(field string, given bool) {
		fields = append(fields, field)
		ok = ok && given
	}
	given := func(field string) bool {
		_, ok := d.GetOk(field)
		return ok
	}
	switch {
	case len(c.Keys) > 0 && c.KeyType != "":
		need("key_type (which makes a new key)", madeKey)
	case len(c.Keys) > 0:
		need("private_key", given("private_key"))
	}
	switch { // beside a key there are others with grant=jwt_bearer only
	case c.ClientCertificate != "":
		need("client_certificate_key", given("client_certificate_key"))
	case c.ClientSecret != "" || len(c.Keys) == 0:
		need("client_secret", given("client_secret"))
	}
	if len(c.ExtraHeaders) > 0 {
		need("extra_headers", suppliesHeaders(d))
	}
	return strings.Join(fields, " and "), ok
}

// sameRoute reports whether the credentials would travel to the same place under the
// same protection: if this changes they must be given again, or a caller who may update a
// config could have its secret sent to a host of their own.
func (c *config) sameRoute(o *config) bool {
	return c.discoverySource() == o.discoverySource() && configTable.equal(c, o, isRoute)
}

// sameCredentials reports whether the client would identify itself in the same way.
func (c *config) sameCredentials(o *config) bool {
	return fingerprint(c.credentials()) == fingerprint(o.credentials())
}

// credentials are what the client identifies itself with. They hold secrets.
func (c *config) credentials() any {
	return append(configTable.values(c, isCredential), c.authMethod(), c.Keys, c.ExtraHeaders, c.PublicURL)
}

// sameEndpoint returns an error if the token endpoint in effect, the alias for client certificates
// included, is at another origin than that of old. The issuer's metadata names it, and may name another
// one at the next discovery. field is what would bring the credentials.
func (c *config) sameEndpoint(old *config, field string) error {
	if origin(c.tokenURL()) == origin(old.tokenURL()) {
		return nil
	}
	if c.KeyType != "" {
		field = "another key_type, which makes a new key"
	}
	return badRequest("discovery now finds the token endpoint %s, at another origin than %s: write %s too, if the credentials are meant for it",
		quote(c.tokenURL()), quote(old.tokenURL()), field)
}
