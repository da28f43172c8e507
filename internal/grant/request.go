package grant

import (
	"crypto/tls"
	"fmt"
	"syscall"
	"time"
)

// Request describes one token request. Do does not change it, so it can be used again.
type Request struct {
	// TokenURL is the token endpoint: an absolute http or https URL without user information. The caller
	// decides whether http is allowed.
	TokenURL string
	// Grant is the grant type; "" is ClientCredentials.
	Grant Type
	// ClientID is the client's identifier at the authorization server. "" is not sent: some servers identify the
	// client by its assertion.
	ClientID string
	// AuthMethod is the client authentication method. It is required: a guess would send the secret twice.
	AuthMethod AuthMethod
	// ClientSecret is the secret of client_secret_basic and client_secret_post. It never appears in an error.
	ClientSecret string
	// RawBasicAuth sends client_id and secret of client_secret_basic as they are, without the form-encoding
	// of RFC 6749 section 2.3.1, for servers that don't decode it. client_id must not hold a colon then.
	RawBasicAuth bool
	// Assertion makes the assertions of private_key_jwt, or of JWTBearer. One key must not be used for both, because
	// servers accept one kind of assertion for the other. Assertions never appear in an error.
	Assertion *Assertion
	// Certificate is the client certificate and key of tls_client_auth and self_signed_tls_client_auth, as
	// ParseClientCertificate returns it.
	Certificate *tls.Certificate
	Parameters
	// ExtraHeaders are sent as they are, and replace the plugin's own. Their values may be secrets, and never appear
	// in an error. An invalid header (CheckHeader) fails the request before it is sent.
	ExtraHeaders map[string]string
	// CACert is the PEM of the certificates to trust in place of the system's roots; "" trusts the system's.
	CACert string
	// Timeout bounds the whole request, from the name lookup to the answer's last byte. Above zero.
	Timeout time.Duration
	// Control is called before each connection, with the resolved address: see net.Dialer. If it is set, a proxy is
	// used only if Proxied is set. It may refuse with an *UnavailableError, which Do returns. nil allows every
	// address.
	Control func(network, address string, c syscall.RawConn) error
	// Proxied sends the request through the environment's proxy for TokenURL, if there is one. Control is not called
	// then, so set it only for a server that the operator named.
	Proxied bool
}

// Format omits secrets, whatever the verb.
func (r Request) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "token request of client %q", r.ClientID)
}
