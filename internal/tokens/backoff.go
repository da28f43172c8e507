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

// storageRetry is how long a background refresh waits after its n-th failure in a row
// to read storage. Readers do not wait: their own look at storage is the retry.
func storageRetry(n int) time.Duration { return window(n, time.Second, time.Minute) }

// window doubles from first to most over the failures in a row, less up to a quarter.
func window(n int, first, most time.Duration) time.Duration {
	w := min(first<<min(n-1, 16), most)
	return w - jitter(w/4)
}

// failure is the remembered outcome of the latest attempt, immutable.
type failure struct {
	host  string // the authorization server that was asked
	cause error
	since time.Time // when the first of this run of failures happened
	at    time.Time // when this one happened
	until time.Time // the end of the backoff window
	count int       // failures in a row
	// streak is how many of these, the last ones, were of one kind: a refusal after
	// an outage is the first of its kind.
	streak int
}

// next makes the failure that follows f, which may be nil.
func (f *failure) next(host string, cause error, now time.Time) *failure {
	next := &failure{host: host, cause: cause, since: now, at: now, count: 1, streak: 1}
	if f != nil {
		next.since, next.count = f.since, f.count+1
		if f.refused() == next.refused() {
			next.streak = f.streak + 1
		}
	}
	first, most := unavailableFirst, unavailableMost
	if next.refused() {
		first, most = refusedFirst, refusedMost
	}
	wait := window(next.streak, first, most)
	if unavailable, ok := errors.AsType[*grant.UnavailableError](cause); ok && unavailable.RetryAfter > 0 {
		// Never before the time that the server named, and not all at that time.
		after := min(unavailable.RetryAfter, retryAfterMost)
		wait = max(wait, after+jitter(after/10))
	}
	next.until = now.Add(wait)
	return next
}

// refused tells whether the authorization server said no.
func (f *failure) refused() bool {
	_, refused := errors.AsType[*grant.RefusedError](f.cause)
	return refused
}

// err is the failure as the readers of name are told of it.
func (f *failure) err(name Name) error {
	return &FailedError{Name: name, Host: f.host, Cause: f.cause, NextAttempt: f.until}
}
