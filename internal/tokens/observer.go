package tokens

import (
	"time"
)

// Observer is told of what an engine does. Its methods return at once; they are called
// from many goroutines, some of which hold locks.
type Observer interface {
	// Fetched tells that a request to an authorization server took so long, and ended
	// with a token or with an error: a *grant.RefusedError, a *grant.UnavailableError, or
	// that of a context where it was broken off.
	Fetched(took time.Duration, err error)
	// Shared tells that a caller waits for a fetch that was under way already.
	Shared()
	// Refreshed tells that a token was replaced so long after its refresh was due. It is
	// not told of a token that was left because nobody asked for it.
	Refreshed(late time.Duration)
}

// unobserved observes nothing.
type unobserved struct{}

func (unobserved) Fetched(time.Duration, error) {}

func (unobserved) Shared() {}

func (unobserved) Refreshed(time.Duration) {}
