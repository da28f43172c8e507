package tokens

import (
	"context"
	"sync/atomic"
	"time"
)

// flight is one fetch of a name's token, shared by all waiting callers. It runs on the engine's context, never on a
// caller's.
type flight struct {
	name Name
	// replaces is the ID of the token to replace; empty if any valid token is enough.
	replaces string
	// awaited reports whether a caller waits, or has waited, for the flight. Otherwise it is background work.
	awaited atomic.Bool
	// leavePlace gives back the flight's place for background work; nil without a place. Only the flight's own
	// goroutine uses it.
	leavePlace func()
	// timed reports whether the token's own timer asked for the flight.
	timed bool
	// shape is the shape of the terms read by the attempt; empty before. Guarded by slot.mu.
	shape string
	// done closes when the results are set.
	done chan struct{}

	// The results: written before done closes, read after.
	token *Token // from the authorization server; nil if it was not needed, or if err is set
	err   error
}

// leave gives back the place for background work, if the flight still holds one.
func (f *flight) leave() {
	if f.leavePlace != nil {
		f.leavePlace()
		f.leavePlace = nil
	}
}

// waitMost bounds a caller's wait for a flight, the flight's time in queues included. Vault's seal and step-down wait
// for requests, so every request must end within 5 s, even if an authorization server hangs. The rest of the request
// has half a second.
const waitMost = 4500 * time.Millisecond

// wait waits for the flight until ctx ends.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return &WaitError{Name: f.name, Cause: context.Cause(ctx)}
	}
}

// attempt is one try under one revision of the name's terms. It is void when the revision changes.
type attempt struct {
	ctx      context.Context // ends when the attempt becomes void, or with the engine
	revision uint64
	load     bool // the stored token has not been loaded yet
}
