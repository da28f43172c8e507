package grant

import (
	"crypto/tls"
	"fmt"
	"strings"
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
	// Scopes are the scopes asked for; none leaves the parameter out.
	Scopes []string
	// Resources are the resource indicators (RFC 8707), sent in this order as a repeated parameter.
	Resources []string
	// Audience is the audience parameter that some servers want; "" is not sent.
	Audience string
	// ExtraParams are sent as they are. A name for which IsReserved holds fails the request before
	// anything is sent.
	ExtraParams map[string]string
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

// reserved are the parameters that extra_params may not hold, in lower case.
var reserved = map[string]bool{
	// What makes the request this grant by this client (RFC 6749 section 4.4.2).
	"grant_type": true, "client_id": true,
	// Client authentication (RFC 6749 section 2.3.1, RFC 7521 section 4.2): secrets, and extra_params
	// are shown on read.
	"client_secret": true, "client_assertion": true, "client_assertion_type": true,
	// Fields of their own, which are part of what is asked and checked.
	"scope": true, "resource": true, "audience": true,
	// Other grants' credentials (RFC 6749, 7522, 7523, 7636, 8628, 8693, OpenID CIBA): without use
	// here, and secrets again.
	"assertion": true, "auth_req_id": true, "code": true, "code_verifier": true, "device_code": true,
	"password": true, "redirect_uri": true, "refresh_token": true, "username": true,
	"actor_token": true, "actor_token_type": true, "subject_token": true, "subject_token_type": true,
}

// IsReserved reports whether extra_params may not hold the parameter: it has a field of its own, is the
// client's authentication, or is the credential of another grant. Case does not matter, as it does not
// to some servers.
func IsReserved(param string) bool {
	return reserved[strings.ToLower(strings.TrimSpace(param))]
}
