package grant

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// RefusedError means that the authorization server understood the request and refused it. The same request
// will fail again.
type RefusedError struct {
	// Status is the HTTP status, which need not be 4xx: some servers refuse with 200.
	Status int
	// Code is the OAuth error code (RFC 6749 section 5.2), or the server's own code; "" without a code.
	Code string
	// Description is the server's reason, cleaned: printable, on one line, at most 600 characters, without
	// text that looks like a secret. May be "".
	Description string
	// Advice names the values sent and the field to change. May be "".
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

// UnavailableError means that the request failed without a refusal: the server was not reached, did not answer in
// time, was busy or broken, redirected, or sent an invalid answer. A later request may succeed.
type UnavailableError struct {
	// Status is the HTTP status; 0 without an answer.
	Status int
	// Reason is the cause in words, without the status; "" if the status is enough.
	Reason string
	// RetryAfter is how long the server asked not to be called, from now; 0 if it did not ask. Never
	// negative, at most a year.
	RetryAfter time.Duration

	// ofToken is set if the server issued an unusable token: another token of the same client may be fine.
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

// ofTheName holds the OAuth error codes that can concern the parameters of one token: its scopes, resource, audience
// or extra parameters. true: with every status; false: unless the status is 401.
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

// ClientWide reports whether a failure of Do concerns the client at its token endpoint: then the client's
// other tokens would fail too. Otherwise it concerns the parameters of this token, or ctx ended.
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

// unsendable returns the error for an invalid request, which was not sent.
func unsendable(format string, args ...any) *UnavailableError {
	return &UnavailableError{Reason: fmt.Sprintf(format, args...)}
}

// quoted returns a value of the request for an error, cut short.
func quoted(s string) string {
	const limit = 200
	if runes := []rune(s); len(runes) > limit {
		s = string(runes[:limit]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
