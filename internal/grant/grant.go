// Package grant makes one OAuth 2.0 token request, with the client credentials grant (RFC 6749 section 4.4) or with a
// JWT as the grant (RFC 7523 section 2.1). It authenticates the client, sends the parameters, judges the answer and
// types the errors.
//
// It sends the request with golang.org/x/oauth2/clientcredentials. The http.RoundTripper in answer.go handles odd
// answers and redirects, and keeps secrets out of errors. One call is one HTTP request: the caller retries, caches
// and shares.
package grant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// Token is an access token, usable as a bearer token (RFC 6750).
type Token struct {
	// AccessToken is 1 to 65,536 visible ASCII characters.
	AccessToken string
	// Scope is the granted scope, space-delimited: from the answer, else from the token if it is a JWT (RFC 9068
	// section 2.2.3), else the scopes asked for (RFC 6749 section 5.1). May be "".
	Scope string
	// RequestedAt is when the request began, with a monotonic reading. The lifetime counts from here, since
	// the time of issue is unknown.
	RequestedAt time.Time
	// ExpiresIn is the lifetime, at most a year; 0 if the server did not send one (missing, null, 0 or
	// empty).
	ExpiresIn time.Duration
}

// Do obtains a token with exactly one HTTP request. Its errors are *RefusedError and
// *UnavailableError, unwrapped, or ctx's own error if ctx ended.
func (r *Request) Do(ctx context.Context) (*Token, error) {
	own, err := newTransport(r)
	if err != nil {
		return nil, unsendable("%s", err)
	}
	defer own.CloseIdleConnections()
	return r.over(ctx, own)
}

// over sends the request over a transport, which must obey the request's context.
func (r *Request) over(ctx context.Context, base http.RoundTripper) (*Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	requestedAt := time.Now()
	config, err := r.config()
	if err != nil {
		return nil, err
	}
	normal := &normaliser{
		base:        base,
		clean:       newCleaner(r.ClientID, r.secrets(config)...),
		certificate: r.AuthMethod.Certificate(),
		headers:     r.ExtraHeaders,
		begun:       requestedAt,
	}
	if r.AuthMethod == ClientSecretBasic {
		normal.authorization = r.basic()
	}
	client := &http.Client{
		Transport: normal,
		// The normaliser turns a redirect into an error. It must never be followed: 307 and 308 would carry
		// the secret to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	timed, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()

	token, err := config.Token(context.WithValue(timed, oauth2.HTTPClient, client))
	if err != nil {
		err = r.failure(ctx, timed, err)
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			refused.Advice = r.advice(refused)
			if own, ok := base.(*transport); ok && r.AuthMethod.Certificate() && !own.asked.Load() && (refused.Code == "" || refused.clientRefused()) {
				refused.Advice = unasked
			}
		}
		return nil, err
	}
	scope := strings.Join(r.Scopes, " ")
	if normal.granted.scopeSaid {
		scope = normal.granted.scope
	} else if claims, _ := ParseClaims(token.AccessToken); claims.ScopeSaid {
		scope = claims.Scope
	}
	return &Token{
		AccessToken: token.AccessToken,
		Scope:       scope,
		RequestedAt: requestedAt,
		ExpiresIn:   normal.granted.expiresIn,
	}, nil
}

// config translates the request to the library's settings, or returns an error if it is invalid.
func (r *Request) config() (*clientcredentials.Config, error) {
	// User information would become a second set of Basic credentials.
	if u, err := url.Parse(r.TokenURL); err != nil || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, unsendable("token_url must be an absolute https URL without user information")
	}
	params, err := r.values()
	if err != nil {
		return nil, err
	}
	for name, value := range r.ExtraHeaders {
		if err := CheckHeader(name, value); err != nil {
			return nil, unsendable("extra_headers: %s", err)
		}
	}
	if r.Grant == JWTBearer {
		if err := r.bear(params); err != nil {
			return nil, err
		}
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

// bear adds the assertion that is the grant (RFC 7523 section 2.1).
func (r *Request) bear(params url.Values) error {
	switch {
	case r.AuthMethod == PrivateKeyJWT:
		return unsendable("grant=jwt_bearer does not go with %s: one key must not sign both", PrivateKeyJWT)
	case r.Assertion == nil || r.Assertion.Issuer == "":
		return unsendable("grant=jwt_bearer needs identity=issuer")
	case len(r.Resources) != 1:
		return unsendable("grant=jwt_bearer asks for exactly one resource, and this is for %d: write resource=", len(r.Resources))
	}
	assertion, err := r.Assertion.sign(r.ClientID, time.Now())
	if err != nil {
		return err
	}
	params.Set("grant_type", r.Grant.Parameter())
	params.Set("assertion", assertion)
	return nil
}

// authenticate adds the client authentication.
func (r *Request) authenticate(config *clientcredentials.Config) error {
	// The style is always explicit: by default the library repeats the request, with the secret, on every error.
	// client_id is sent with an assertion too: RFC 7521 section 4.2 makes it optional, and some servers find the
	// client by it.
	config.AuthStyle = oauth2.AuthStyleInParams
	if r.AuthMethod == None && r.Grant == JWTBearer {
		return nil
	}
	switch r.AuthMethod {
	case ClientSecretBasic:
		if r.RawBasicAuth && strings.Contains(r.ClientID, ":") {
			return unsendable("raw_basic_auth does not go with a client_id that holds a colon, which ends it (RFC 7617 section 2)")
		}
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
	case TLSClientAuth, SelfSignedTLSClientAuth:
		if r.Certificate == nil {
			return unsendable("%s needs client_certificate and client_certificate_key", r.AuthMethod)
		}
		if !strings.HasPrefix(strings.ToLower(r.TokenURL), "https:") {
			return unsendable("%s needs an https token_url", r.AuthMethod)
		}
	default:
		return unsendable("token_endpoint_auth_method %q is not supported: use %s, %s, %s, %s or %s", r.AuthMethod,
			ClientSecretBasic, ClientSecretPost, PrivateKeyJWT, TLSClientAuth, SelfSignedTLSClientAuth)
	}
	return nil
}

// failure converts an error of the library to a typed one. It never wraps: a url.Error contains the URL's query, a
// RetrieveError the request and the raw answer.
func (r *Request) failure(ctx, timed context.Context, err error) error {
	// The server's answer counts, even if ctx ended just after.
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
	if r.AuthMethod.Certificate() {
		return &UnavailableError{Reason: clientCertificateCause(err)}
	}
	return &UnavailableError{Reason: cause(err)}
}

// unasked is the advice if the server did not ask for the client certificate: many servers use another host or port
// for mutual TLS (RFC 8705 section 5).
const unasked = "the server asked for no client certificate: token_url must be its mutual TLS endpoint"

// secrets returns the request's secrets, for the cleaner.
func (r *Request) secrets(config *clientcredentials.Config) []string {
	return append(slices.Collect(maps.Values(r.ExtraHeaders)), r.ClientSecret,
		config.EndpointParams.Get("client_assertion"), config.EndpointParams.Get("assertion"))
}
