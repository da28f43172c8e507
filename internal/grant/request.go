package grant

import (
	"crypto/tls"
	"fmt"
	"syscall"
	"time"
)

// Request is all that one token request needs. It is not changed by Do and may be used again.
type Request struct {
	// TokenURL is the token endpoint: an absolute http or https URL without user information. Whether
	// http is allowed is for the caller to say.
	TokenURL string
	// Grant is the grant type; "" is ClientCredentials.
	Grant Type
	// ClientID is the client's identifier at the authorization server; "" is not sent, for servers that know the
	// client by its assertion.
	ClientID string
	// AuthMethod says how the client authenticates. There is no default: a guess would send the secret
	// twice.
	AuthMethod AuthMethod
	// ClientSecret is the secret of client_secret_basic and client_secret_post. It appears in no error.
	ClientSecret string
	// RawBasicAuth sends client_id and secret of client_secret_basic as they are, without the form-encoding
	// of RFC 6749 section 2.3.1, for servers that don't decode it. client_id must hold no colon then.
	RawBasicAuth bool
	// Assertion makes the assertions of private_key_jwt, or of JWTBearer: one key is never used for both, because
	// servers take one for the other. They appear in no error.
	Assertion *Assertion
	// Certificate is the client certificate and key of tls_client_auth and self_signed_tls_client_auth, as
	// ParseClientCertificate returns it.
	Certificate *tls.Certificate
	Parameters
	// ExtraHeaders are sent as they are, over the plugin's own. Their values may be secrets, and appear in no
	// error. One that CheckHeader refuses fails the request before anything is sent.
	ExtraHeaders map[string]string
	// CACert is the PEM of the certificates to trust in place of the system's roots; "" trusts those.
	CACert string
	// Timeout bounds the whole request, from the name lookup to the answer's last byte. Above zero.
	Timeout time.Duration
	// Control is called before each connection, with the address that the name was looked up to: see
	// net.Dialer. If it is set no proxy is used, unless Proxied is. It may refuse with an
	// *UnavailableError, which is then Do's. nil allows every address.
	Control func(network, address string, c syscall.RawConn) error
	// Proxied has the request go through the environment's proxy for TokenURL, if there is one, out of
	// Control's sight: for a server that the operator named.
	Proxied bool
}

// Format prints no secret, whatever the verb.
func (r Request) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "token request of client %q", r.ClientID)
}
