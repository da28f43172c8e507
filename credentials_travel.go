package mcpoauth

import (
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// suppliesCredentials reports whether the request gives the credentials of c, and returns the names of their fields.
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
	switch { // only grant=jwt_bearer has a key beside other credentials
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

// sameRoute reports whether the credentials of c and o travel to the same place under the same protection. A write
// that changes the route must give the credentials: otherwise a caller with the update capability could send the
// stored secret to its own host.
func (c *config) sameRoute(o *config) bool {
	return c.discoverySource() == o.discoverySource() && configTable.equal(c, o, isRoute)
}

// sameCredentials reports whether c and o identify the client in the same way.
func (c *config) sameCredentials(o *config) bool {
	return fingerprint(c.credentials()) == fingerprint(o.credentials())
}

// credentials returns the values that identify the client. They contain secrets.
func (c *config) credentials() any {
	return append(configTable.values(c, isCredential), c.authMethod(), c.Keys, c.ExtraHeaders, c.PublicURL)
}

// sameEndpoint returns an error if the token endpoint in effect (or its alias for client certificates) has another
// origin than old's: the issuer's metadata may have changed since the last discovery. field names the credentials in
// the error.
func (c *config) sameEndpoint(old *config, field string) error {
	if origin(c.tokenURL()) == origin(old.tokenURL()) {
		return nil
	}
	if c.KeyType != "" {
		field = "another key_type, which makes a new key"
	}
	return badRequest("discovery now finds the token endpoint %s, at another origin than %s: if the credentials are meant for it, write %s too",
		quote(c.tokenURL()), quote(old.tokenURL()), field)
}
