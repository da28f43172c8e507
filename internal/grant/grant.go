// Package grant makes one OAuth 2.0 client credentials token request (RFC 6749 section 4.4): it
// authenticates the client, sends the parameters, judges the answer and types the errors.
//
// The request itself is golang.org/x/oauth2/clientcredentials'. What that library leaves open (odd
// answers, redirects, timeouts, errors that carry secrets) is closed in the http.RoundTripper that it
// is given, see answer.go. One call is one HTTP request: retries, caching and sharing belong to the
// caller.
package grant

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// AuthMethod is an OAuth client authentication method by its registered name (RFC 7591 section 2).
type AuthMethod string

const (
	// ClientSecretBasic sends client_id and secret as HTTP Basic credentials, each form-encoded first
	// (RFC 6749 section 2.3.1).
	ClientSecretBasic AuthMethod = "client_secret_basic"
	// ClientSecretPost sends client_id and secret as parameters of the body.
	ClientSecretPost AuthMethod = "client_secret_post"
	// PrivateKeyJWT sends an assertion that a private key signed (RFC 7523 section 2.2).
	PrivateKeyJWT AuthMethod = "private_key_jwt"
	// TLSClientAuth shows a client certificate in the TLS handshake (RFC 8705 section 2.1), and sends
	// client_id in the body.
	TLSClientAuth AuthMethod = "tls_client_auth"
)

// Request is all that one token request needs. It is not changed by Do and may be used again.
type Request struct {
	// TokenURL is the token endpoint: an absolute http or https URL without user information. Whether
	// http is allowed is for the caller to say.
	TokenURL string
	// ClientID is the client's identifier at the authorization server.
	ClientID string
	// AuthMethod says how the client authenticates. There is no default: a guess would send the secret
	// twice.
	AuthMethod AuthMethod
	// ClientSecret is the secret of client_secret_basic and client_secret_post. It appears in no error.
	ClientSecret string
	// Assertion makes the assertions of private_key_jwt. They appear in no error.
	Assertion *Assertion
	// Certificate is the client certificate and key of tls_client_auth, as ParseClientCertificate
	// returns it. A Transport has its own.
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
	// CACert is the PEM of the certificates to trust in place of the system's roots; "" trusts those.
	// A Transport makes it void.
	CACert string
	// Timeout bounds the whole request, from the name lookup to the answer's last byte. Above zero.
	Timeout time.Duration
	// Control is called before each connection, with the address that the name was looked up to: see
	// net.Dialer. Where it is set no proxy is used. It may refuse with an *UnavailableError, which is
	// then Do's. nil allows every address. A Transport makes it void.
	Control func(network, address string, c syscall.RawConn) error
	// Transport sends the request. It must honour the request's context. nil is a fresh http.Transport
	// for this request alone, without keep-alive and with the proxy of the environment.
	Transport http.RoundTripper
}

// Format prints no secret, whatever the verb.
func (r Request) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "token request of client %q", r.ClientID)
}

// Token is an access token that is usable as a bearer token (RFC 6750).
type Token struct {
	// AccessToken is 1 to 65,536 visible ASCII characters.
	AccessToken string
	// Scope is what was granted, space-delimited: the asked scopes where the server did not say
	// (RFC 6749 section 5.1), so "" where none were asked either. It is also "" where the server said
	// that it granted none.
	Scope string
	// RequestedAt is when the request began, with a monotonic reading. The lifetime counts from here:
	// the server began to count at some unknown time after.
	RequestedAt time.Time
	// ExpiresIn is the lifetime, at most a year; 0 where the server did not say (missing, null, 0 or
	// empty).
	ExpiresIn time.Duration
}

// Do obtains a token with exactly one HTTP request. Its errors are *RefusedError and
// *UnavailableError, unwrapped, or ctx's own error where ctx ended.
func (r *Request) Do(ctx context.Context) (*Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	requestedAt := time.Now()
	config, err := r.config()
	if err != nil {
		return nil, err
	}
	base := r.Transport
	var own *transport
	if base == nil {
		if own, err = newTransport(r); err != nil {
			return nil, unsendable("%s", err)
		}
		defer own.CloseIdleConnections()
		base = own
	}
	normal := &normaliser{
		base:        base,
		clean:       newCleaner(r.ClientID, r.ClientSecret, config.EndpointParams.Get("client_assertion")),
		certificate: r.AuthMethod == TLSClientAuth,
	}
	client := &http.Client{
		Transport: normal,
		// The normaliser already turns a redirect into an error. Should one ever pass, it must not be
		// followed: 307 and 308 would carry the secret to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	timed, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()

	token, err := config.Token(context.WithValue(timed, oauth2.HTTPClient, client))
	if err != nil {
		err = r.failure(ctx, timed, err)
		if r.AuthMethod == TLSClientAuth && own != nil && !own.asked.Load() {
			err = unasked(err)
		}
		return nil, err
	}
	scope := strings.Join(r.Scopes, " ")
	if normal.granted.scopeSaid {
		scope = normal.granted.scope
	}
	return &Token{
		AccessToken: token.AccessToken,
		Scope:       scope,
		RequestedAt: requestedAt,
		ExpiresIn:   normal.granted.expiresIn,
	}, nil
}

// config translates the request to the library's settings, or says why it cannot be sent.
func (r *Request) config() (*clientcredentials.Config, error) {
	// User information would become a second set of Basic credentials.
	if u, err := url.Parse(r.TokenURL); err != nil || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, unsendable("token_url must be an absolute https URL without user information")
	}
	params := url.Values{}
	for name, value := range r.ExtraParams {
		if IsReserved(name) {
			return nil, unsendable("extra_params must not hold %q", name)
		}
		params.Set(name, value)
	}
	if len(r.Resources) > 0 {
		params["resource"] = r.Resources
	}
	if r.Audience != "" {
		params.Set("audience", r.Audience)
	}
	config := &clientcredentials.Config{
		ClientID:       r.ClientID,
		TokenURL:       r.TokenURL,
		Scopes:         r.Scopes,
		EndpointParams: params,
	}
	if err := r.authenticate(config); err != nil {
		return nil, err
	}
	return config, nil
}

// authenticate adds what the client authenticates with.
func (r *Request) authenticate(config *clientcredentials.Config) error {
	// Always explicit: the library's auto-detection repeats the request, secret included, on any error.
	// In the body, client_id is sent with an assertion too: RFC 7521 section 4.2 leaves that open, and
	// some servers find the client by it.
	config.AuthStyle = oauth2.AuthStyleInParams
	switch r.AuthMethod {
	case ClientSecretBasic:
		config.AuthStyle = oauth2.AuthStyleInHeader
		config.ClientSecret = r.ClientSecret
	case ClientSecretPost:
		config.ClientSecret = r.ClientSecret
	case PrivateKeyJWT:
		assertion, err := r.Assertion.sign(r.ClientID, time.Now())
		if err != nil {
			return err
		}
		config.EndpointParams.Set("client_assertion_type", assertionType)
		config.EndpointParams.Set("client_assertion", assertion)
	case TLSClientAuth:
		if r.Certificate == nil {
			return unsendable("%s needs client_certificate and client_certificate_key", TLSClientAuth)
		}
		if !strings.HasPrefix(strings.ToLower(r.TokenURL), "https:") {
			return unsendable("%s needs an https token_url", TLSClientAuth)
		}
	default:
		return unsendable("token_endpoint_auth_method %q is not supported: use %s, %s, %s or %s", r.AuthMethod,
			ClientSecretBasic, ClientSecretPost, PrivateKeyJWT, TLSClientAuth)
	}
	return nil
}

// unsendable is the error of a request that was never sent because of what it holds.
func unsendable(format string, args ...any) *UnavailableError {
	return &UnavailableError{Reason: fmt.Sprintf(format, args...)}
}

// failure types an error of the library. It copies and never wraps: a url.Error carries the URL's
// query, a RetrieveError the request and the raw answer.
func (r *Request) failure(ctx, timed context.Context, err error) error {
	// What the server said stands, even if ctx ended just after.
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused
	}
	if unavailable, ok := errors.AsType[*UnavailableError](err); ok {
		return unavailable
	}
	if err := reach.Ended(ctx); err != nil {
		return err
	}
	if reach.Ended(timed) != nil {
		return &UnavailableError{Reason: fmt.Sprintf("timed out after %s", r.Timeout)}
	}
	if r.AuthMethod == TLSClientAuth {
		return &UnavailableError{Reason: clientCertificateCause(err)}
	}
	return &UnavailableError{Reason: cause(err)}
}

// unasked adds to a refusal of the client that the server never asked for its certificate: many have
// another host or port for that (RFC 8705 section 5).
func unasked(err error) error {
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok || refused.Code != "" && refused.Code != "invalid_client" {
		return err
	}
	const hint = "the server asked for no client certificate: token_url must be its mutual TLS endpoint"
	if refused.Description != "" {
		refused.Description += "; "
	}
	refused.Description += hint
	return refused
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
