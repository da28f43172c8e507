package grant

// AuthMethod is an OAuth client authentication method by its registered name (RFC 7591 section 2).
type AuthMethod string

const (
	// ClientSecretBasic sends client_id and secret as HTTP Basic credentials, each form-encoded first
	// (RFC 6749 section 2.3.1).
	ClientSecretBasic AuthMethod = "client_secret_basic"
	// ClientSecretPost sends client_id and secret as parameters of the body.
	ClientSecretPost AuthMethod = "client_secret_post"
	// PrivateKeyJWT sends an assertion signed by a private key (RFC 7523 section 2.2).
	PrivateKeyJWT AuthMethod = "private_key_jwt"
	// TLSClientAuth shows a client certificate in the TLS handshake (RFC 8705 section 2.1), and sends
	// client_id in the body.
	TLSClientAuth AuthMethod = "tls_client_auth"
	// SelfSignedTLSClientAuth is TLSClientAuth for a server that knows the certificate itself (RFC 8705
	// section 2.2). It sends the same request.
	SelfSignedTLSClientAuth AuthMethod = "self_signed_tls_client_auth"
	// None omits client authentication: JWTBearer's assertion is enough (RFC 7521 section 4.1). client_id is sent if
	// it is set.
	None AuthMethod = "none"
)

// Certificate reports whether the client authenticates with its certificate.
func (m AuthMethod) Certificate() bool { return m == TLSClientAuth || m == SelfSignedTLSClientAuth }
