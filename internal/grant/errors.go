package grant

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// RefusedError says that the authorization server understood the request and said no. Asking again
// unchanged will not help.
type RefusedError struct {
	// Status is the HTTP status, which need not be 4xx: some servers refuse with 200.
	Status int
	// Code is the OAuth error code (RFC 6749 section 5.2), or the server's own if it has none of those;
	// "" if it named none.
	Code string
	// Description is the server's reason, cleaned: printable, on one line, at most 600 characters, without
	// anything that looks like a secret. May be "".
	Description string
	// Advice says what was sent and which field to change, in our own words; "" if nothing fits.
	Advice string
}

// Error reads "invalid_client: client authentication failed (HTTP 401); check client_secret".
func (e *RefusedError) Error() string {
	said := e.Code
	if said == "" {
		said = "refused without an OAuth error code"
	}
	if e.Description != "" {
		said += ": " + e.Description
	}
	said += fmt.Sprintf(" (HTTP %d)", e.Status)
	if e.Advice != "" {
		said += "; " + e.Advice
	}
	return said
}

// UnavailableError says that there was no usable answer: the server was not reached, did not answer in
// time, was busy or broken, redirected, or answered nonsense. Asking again later may help.
type UnavailableError struct {
	// Status is the HTTP status; 0 if there was no answer.
	Status int
	// Reason is what happened, in words, without the status; "" if the status says it all.
	Reason string
	// RetryAfter is how long the server asked to be left alone, from now; 0 if it did not. Never
	// negative, at most a year.
	RetryAfter time.Duration

	// ofToken is set if the server issued a token, and that token is of no use: another token of the same
	// client may be fine.
	ofToken bool
}

// Error reads "connection refused", "HTTP 503" or "server_error: out of memory (HTTP 500)".
func (e *UnavailableError) Error() string {
	switch {
	case e.Status == 0:
		return e.Reason
	case e.Reason == "":
		return fmt.Sprintf("HTTP %d", e.Status)
	default:
		return fmt.Sprintf("%s (HTTP %d)", e.Reason, e.Status)
	}
}

// ofTheName are the OAuth error codes that can be about what one token was asked for: its scopes,
// resource, audience or extra parameters. true: whatever the status is.
var ofTheName = map[string]bool{
	"invalid_scope":                 true,  // RFC 6749 section 5.2
	"invalid_target":                true,  // RFC 8707 section 2
	"invalid_resource":              true,  // Microsoft Entra ID
	"invalid_audience":              true,  // servers with an audience parameter
	"invalid_authorization_details": true,  // RFC 9396 section 5
	"insufficient_scope":            true,  // RFC 6750 section 3.1
	"access_denied":                 false, // Auth0: with 403 an audience, with 401 the secret
	"invalid_request":               false,
}

// ClientWide reports whether a failure of Do concerns the client at its token endpoint, so that the same
// client's other tokens would fail too. If not, it concerns what this one token was asked for, or ctx
// ended.
func ClientWide(err error) bool {
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		always, name := ofTheName[refused.Code]
		return !name || !always && refused.Status == http.StatusUnauthorized
	}
	unavailable, ok := errors.AsType[*UnavailableError](err)
	return ok && !unavailable.ofToken
}

// FailedLogin reports whether err is a refusal of the client's authentication (RFC 6749 section 5.2):
// authorization servers count these, and may lock the client's account.
func FailedLogin(err error) bool {
	refused, ok := errors.AsType[*RefusedError](err)
	return ok && (refused.Code == "invalid_client" || refused.Status == http.StatusUnauthorized)
}

// unsendable is the error of a request that was never sent because of what it holds.
func unsendable(format string, args ...any) *UnavailableError {
	return &UnavailableError{Reason: fmt.Sprintf(format, args...)}
}

// quoted puts a value of the request into an error, cut short.
func quoted(s string) string {
	const limit = 200
	if runes := []rune(s); len(runes) > limit {
		s = string(runes[:limit]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
