package tokens

import (
	"errors"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// The backoff windows within which the authorization server is not asked again.
const (
	// A server that is unreachable or failing may be back in a second.
	unavailableFirst = time.Second
	unavailableMost  = time.Minute
	// A refusal may be a blip: a server that restarts refuses clients that it has not loaded
	// yet. One that lasts counts as failed logins, which lock accounts, so its window grows.
	refusedFirst = 5 * time.Second
	refusedMost  = 15 * time.Minute
	// refusedBlip is how many refusals in a row have short windows: about a minute of them.
	refusedBlip = 7
	// waitingMost bounds the window while no valid token is held and callers ask for one.
	waitingMost = 10 * time.Second
	// retryAfterMost bounds a Retry-After (RFC 9110 section 10.2.3): a mistaken
	// one must not take a token out of service for a day.
	retryAfterMost = 15 * time.Minute
)

// storageRetry is how long background work waits after its n-th failure in a row
// to use storage. Readers do not wait: their own look at storage is the retry.
func storageRetry(n int) time.Duration { return window(n, time.Second, time.Minute) }

// window doubles from first to most over the failures in a row, less up to a quarter.
func window(n int, first, most time.Duration) time.Duration {
	w := min(first<<min(n-1, 16), most)
	return w - jitter(w/4)
}

// refusedWindow is the window after the n-th refusal in a row.
func refusedWindow(n int) time.Duration {
	if n <= refusedBlip {
		return window(n, refusedFirst, waitingMost)
	}
	return window(n-refusedBlip, 2*waitingMost, refusedMost)
}

// failure is the remembered outcome of the latest attempt, immutable.
type failure struct {
	// client is whose failure this is, if it concerns the whole client; nil if it is the name's own.
	client *client
	host   string // the authorization server that was asked
	cause  error
	since  time.Time // when the first of this run of failures happened
	at     time.Time // when this one happened
	count  int       // failures in a row
	// streak is how many of these, the last ones, were of one kind: a refusal after
	// an outage is the first of its kind.
	streak int
	// wait is the length of the backoff window, its jitter included.
	wait time.Duration
	// limited reports whether the server named the time itself (Retry-After).
	limited bool
}

// next returns the failure that follows f, which may be nil.
func (f *failure) next(host string, cause error, now time.Time) *failure {
	next := &failure{host: host, cause: cause, since: now, at: now, count: 1, streak: 1}
	if f != nil {
		next.since, next.count = f.since, f.count+1
		if f.refused() == next.refused() {
			next.streak = f.streak + 1
		}
	}
	if next.refused() {
		next.wait = refusedWindow(next.streak)
	} else {
		next.wait = window(next.streak, unavailableFirst, unavailableMost)
	}
	if after := retryAfter(cause); after > 0 {
		// Never before the time that the server named, and not all at that time.
		next.limited = true
		next.wait = max(next.wait, after+jitter(after/10))
	}
	return next
}

// retryAfter is how long the server asked to be left alone; 0 if it did not.
func retryAfter(cause error) time.Duration {
	if unavailable, ok := errors.AsType[*grant.UnavailableError](cause); ok {
		return min(unavailable.RetryAfter, retryAfterMost)
	}
	return 0
}

// current returns the latest failure of the client whose failure f is, nil if that client
// works again, and f itself if it is the name's own.
func (f *failure) current() *failure {
	if f == nil || f.client == nil {
		return f
	}
	return f.client.failed.Load()
}

// end is the end of the backoff window: for a name that holds a valid token, or for one
// that callers wait for. A client that works again has no window.
func (f *failure) end(held bool) time.Time {
	c := f.current()
	switch {
	case c == nil:
		return f.at
	case held || c.limited:
		return c.at.Add(c.wait)
	default:
		return c.at.Add(min(c.wait, waitingMost))
	}
}

// lastAt is when the latest attempt failed: the name's own or, while its client fails, any of
// that client's.
func (f *failure) lastAt() time.Time {
	if c := f.current(); c != nil {
		return c.at
	}
	return f.at
}

// refused reports whether the authorization server said no.
func (f *failure) refused() bool {
	_, refused := errors.AsType[*grant.RefusedError](f.cause)
	return refused
}

// err is the failure for the readers of a name.
func (f *failure) err(name Name, held bool) error {
	return &FailedError{Name: name, Host: f.host, Cause: f.cause, NextAttempt: f.end(held)}
}
