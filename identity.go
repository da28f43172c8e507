package mcpoauth

import "cmp"

// identity says who authorization servers trust: the value of the field of that name, empty for the default.
type identity string

const (
	// identityStatic is a client that was registered with a secret, a key, the URL of its keys or a certificate.
	identityStatic identity = ""
	// identityIssuer is the mount as the issuer of assertions about its clients, each config an issuer of its own.
	identityIssuer identity = "issuer"
	// identityDocument is a client whose id is the URL of its description (Client ID Metadata Document).
	identityDocument identity = "document"
)

// staticName is the name of identityStatic in the API.
const staticName = "static"

func (i identity) String() string { return cmp.Or(string(i), staticName) }

// The paths that are answered without a Vault token, each with the public id of a config after it.
const (
	jwksPrefix     = "jwks/"
	issuerPrefix   = "issuer/" // issuer/<id>/.well-known/openid-configuration, issuer/<id>/jwks
	documentPrefix = "client/"
)

// jwksPath is the path of the config's public keys under a public id.
func (i identity) jwksPath(id string) string {
	if i == identityIssuer {
		return issuerPrefix + id + "/jwks"
	}
	return jwksPrefix + id
}
