package tokens

import (
	"time"
)

// Observer is called with events of an engine. Its methods must return at once: they are called from many goroutines,
// some with locks held.
type Observer interface {
	// Fetched reports a request to an authorization server, its duration and its error, nil if it returned a token.
	// The error is a *grant.RefusedError, a *grant.UnavailableError, or a context's if the request was cancelled.
	Fetched(took time.Duration, err error)
	// Shared reports that a caller waits for a fetch already under way.
	Shared()
	// Refreshed reports a replaced token, and the delay of its refresh. It is not called for a token left to expire.
	Refreshed(late time.Duration)
}

// unobserved observes nothing.
type unobserved struct{}

func (unobserved) Fetched(time.Duration, error) {}

func (unobserved) Shared() {}

func (unobserved) Refreshed(time.Duration) {}
