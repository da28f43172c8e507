package mcpoauth

import "cmp"

// identity is the value of the field of that name: the party trusted by authorization servers. Empty is the default.
type identity string

const (
	// identityStatic is a client registered with a secret, a key, the URL of its keys or a certificate.
	identityStatic identity = ""
	// identityIssuer is the mount as the issuer of assertions about its clients. Each config is a separate issuer.
	identityIssuer identity = "issuer"
	// identityDocument is a client whose id is the URL of its description (Client ID Metadata Document).
	identityDocument identity = "document"
)

// staticName is the name of identityStatic in the API.
const staticName = "static"

func (i identity) String() string { return cmp.Or(string(i), staticName) }

// The paths answered without a Vault token. The public id of a config follows.
const (
	jwksPrefix     = "jwks/"
	issuerPrefix   = "issuer/" // issuer/<id>/.well-known/openid-configuration, issuer/<id>/jwks
	documentPrefix = "client/"
)

// jwksPath returns the path of a config's public keys. id is its public id.
func (i identity) jwksPath(id string) string {
	if i == identityIssuer {
		return issuerPrefix + id + "/jwks"
	}
	return jwksPrefix + id
}
