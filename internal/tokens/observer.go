package tokens

import (
	"time"
)

// Observer is called with what an engine does. Its methods return at once; they are called
// from many goroutines, some of which hold locks.
type Observer interface {
	// Fetched reports a request to an authorization server: how long it took, and its error,
	// nil if it ended with a token. The error is a *grant.RefusedError, a
	// *grant.UnavailableError, or that of a context if the request was cancelled.
	Fetched(took time.Duration, err error)
	// Shared reports a caller who waits for a fetch that was under way already.
	Shared()
	// Refreshed reports a token that was replaced, and how long after its refresh was due. It
	// is not called for a token that was left to expire because no caller read it.
	Refreshed(late time.Duration)
}

// unobserved observes nothing.
type unobserved struct{}

func (unobserved) Fetched(time.Duration, error) {}

func (unobserved) Shared() {}

func (unobserved) Refreshed(time.Duration) {}
