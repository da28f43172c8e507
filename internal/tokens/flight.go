package tokens

import (
	"context"
	"sync/atomic"
	"time"
)

// flight is one fetch of a name's token, shared by all callers who wait for it. It runs on
// a context of the engine's, never on a caller's.
type flight struct {
	name Name
	// replaces is the ID of the token to be replaced; empty if any valid token will do.
	replaces string
	// awaited reports whether a caller waits, or has waited, for the flight; without one it is background
	// work.
	awaited atomic.Bool
	// leavePlace gives back the place for background work; nil if the flight holds none. For the flight's
	// own goroutine.
	leavePlace func()
	// timed reports whether the token's own timer asked for the flight.
	timed bool
	// shape is that of the terms that the attempt has read; empty before. Guarded by slot.mu.
	shape string
	// done closes when the results stand.
	done chan struct{}

	// The results: written before done closes, read after.
	token *Token // from the authorization server; nil if it was not needed, or err says why not
	err   error
}

// leave gives back the place for background work, if the flight still holds one.
func (f *flight) leave() {
	if f.leavePlace != nil {
		f.leavePlace()
		f.leavePlace = nil
	}
}

// waitMost is how long a caller waits for a flight, its time in queues included. Vault's
// seal and step-down wait for the requests under way, so no request may wait for long,
// whatever an authorization server does: 5 s, of which half a second is for the rest of the request.
const waitMost = 4500 * time.Millisecond

// wait waits for the flight, at most until ctx ends.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return &WaitError{Name: f.name, Cause: context.Cause(ctx)}
	}
}

// attempt is one try under one revision of the name's terms. It is void once that has changed.
type attempt struct {
	ctx      context.Context // ends when the attempt becomes void, or with the engine
	revision uint64
	load     bool // storage has not been looked into since the slot was made
}
