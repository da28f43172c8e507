package grant

// Type is the grant type, by its name in the API.
type Type string

const (
	// ClientCredentials asks with the client's own authentication (RFC 6749 section 4.4).
	ClientCredentials Type = "client_credentials"
	// JWTBearer asks with an assertion about its subject (RFC 7523 section 2.1), for exactly one resource. The
	// assertion does not authenticate a client.
	JWTBearer Type = "jwt_bearer"
)

// Parameter returns the grant_type parameter.
func (t Type) Parameter() string {
	if t == JWTBearer {
		return "urn:ietf:params:oauth:grant-type:jwt-bearer"
	}
	return string(ClientCredentials)
}
