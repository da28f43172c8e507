package tokens

import (
	"errors"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// The windows within which the authorization server is not asked again. A server
// that is down may be back in a second; one that refused will refuse again until
// somebody changes something, so it is left in peace for longer.
const (
	unavailableFirst = time.Second
	unavailableMost  = time.Minute
	refusedFirst     = 30 * time.Second
	refusedMost      = 15 * time.Minute
	// retryAfterMost bounds a Retry-After (RFC 9110 section 10.2.3): a mistaken
	// one must not take a token out of service for a day.
	retryAfterMost = 15 * time.Minute
)

// failure is the remembered outcome of the latest attempt, immutable.
type failure struct {
	host  string // the authorization server that was asked
	cause error
	since time.Time // when the first of this run of failures happened
	at    time.Time // when this one happened
	until time.Time // the end of the backoff window
	count int       // failures in a row
}

// after makes the failure that follows prev, which may be nil.
func (prev *failure) after(host string, cause error, now time.Time) *failure {
	next := &failure{host: host, cause: cause, since: now, at: now, count: 1}
	if prev != nil {
		next.since, next.count = prev.since, prev.count+1
	}
	first, most := unavailableFirst, unavailableMost
	if _, refused := errors.AsType[*grant.RefusedError](cause); refused {
		first, most = refusedFirst, refusedMost
	}
	window := min(first<<min(next.count-1, 16), most)
	window -= jitter(window / 4)
	if unavailable, ok := errors.AsType[*grant.UnavailableError](cause); ok && unavailable.RetryAfter > 0 {
		// Never before the time that the server named, and not all at that time.
		after := min(unavailable.RetryAfter, retryAfterMost)
		window = max(window, after+jitter(after/10))
	}
	next.until = now.Add(window)
	return next
}

// err is the failure as the readers of name are told of it.
func (f *failure) err(name Name) error {
	return &FailedError{Name: name, Host: f.host, Cause: f.cause, NextAttempt: f.until}
}
