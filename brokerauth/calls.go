package brokerauth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// callTimeout bounds one call to Vault, the retries of Vault's client included.
const callTimeout = 30 * time.Second

// The backoff window after a failure. It begins short, because Vault may be back in a second, and doubles with each
// further failure. It stays so short that a broker soon notices when Vault is back.
const (
	windowFirst = time.Second
	windowMost  = 30 * time.Second
)

// slowPace is the least time between requests while Vault answers 504. The plugin answers 504 after some seconds,
// but a proxy before Vault may do so at once.
const slowPace = time.Second

// calls makes calls of one kind, one at a time. After a failure it makes none until the backoff window has ended:
// callers get the failure at once. It is guarded by its owner's mutex.
type calls struct {
	current  *call // under way, or nil
	err      error // of the last one
	failures int   // consecutive ones of one kind: ErrNotReplaced, or others
	until    time.Time
}

// A call is one call to Vault. Any number of goroutines may wait for it. It is guarded by the mutex of its calls.
type call struct {
	done      chan struct{}
	err       error // to be read once done is closed
	overtaken *call // the call that this one replaced, or nil
}

// end releases the goroutines waiting for the call and, if it succeeded, those waiting for the call it replaced. The
// mutex is held.
func (c *call) end(err error) {
	select {
	case <-c.done: // overtaken
		return
	default:
	}
	c.err = err
	close(c.done)
	if err == nil && c.overtaken != nil {
		c.overtaken.end(nil)
	}
	c.overtaken = nil
}

// join returns the call in flight, or starts one that runs do. In the backoff window it returns the last failure
// instead. mu is held by the caller, and not held while do runs.
//
// The call has a context of its own: a caller that gives up does not cancel it for others.
func (c *calls) join(mu *sync.Mutex, do func(context.Context) error) (*call, error) {
	if c.current != nil {
		return c.current, nil
	}
	if time.Now().Before(c.until) {
		return nil, c.err
	}
	return c.begin(context.Background(), mu, do), nil
}

// begin starts a call even in the backoff window. It replaces a call in flight: goroutines waiting for the old call
// return when it ends or when the new one succeeds. mu is held by the caller, and not held while do runs. do ends
// when ctx is done.
func (c *calls) begin(ctx context.Context, mu *sync.Mutex, do func(context.Context) error) *call {
	current := &call{done: make(chan struct{}), overtaken: c.current}
	c.current = current
	go func() {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err := do(ctx)
		mu.Lock()
		defer mu.Unlock()
		if c.current == current {
			c.conclude(err)
		}
		current.end(err)
	}()
	return current
}

// conclude records the result of the call in flight. The mutex is held.
func (c *calls) conclude(err error) {
	previous := c.err
	c.current, c.err = nil, err
	if err == nil {
		c.failures, c.until = 0, time.Time{}
		return
	}
	most := windowMost
	kept := errors.Is(err, ErrNotReplaced)
	if kept {
		most = streakMost // Vault answers; the authorization server repeats the token
	}
	if kept != errors.Is(previous, ErrNotReplaced) {
		c.failures = 0 // failures of the other kind do not count
	}
	window := min(windowFirst<<min(c.failures, 16), most)
	c.failures++
	// Jitter: brokers that got the same failure should not retry at the same time.
	c.until = time.Now().Add(window - rand.N(window/4)) //nolint:gosec // spreads load, guards nothing
}

// wait returns the call's error once the call has ended, or an error once ctx is done.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("brokerauth: waiting for Vault: %w", context.Cause(ctx))
	}
}

// A replacement is the attempt to replace one refused token. It is guarded by its owner's mutex.
type replacement struct {
	id        string    // of the refused token
	obtained  time.Time // when the refused token was obtained, by Vault's clock; zero if it was not held
	successor string    // the id of the new token in Vault's last answer, or ""
	calls     calls
}

// isReplacedBy reports whether t is the successor named by Vault, or another token at least as new as the refused
// one. A lagging standby may still return an older token.
func (r *replacement) isReplacedBy(t *token) bool {
	return t != nil && t.id != r.id && (t.id == r.successor || !t.obtained.Before(r.obtained))
}

// whileFetching repeats do while Vault answers 504: the plugin is still fetching the token. If ctx is done first,
// it returns the 504.
func whileFetching(ctx context.Context, do func() error) error {
	var slow error
	for {
		pace := time.NewTimer(slowPace)
		err := do()
		if !isGatewayTimeout(err) {
			if err != nil && slow != nil && ctx.Err() != nil {
				return slow
			}
			return err
		}
		slow = err
		if wait(ctx, pace); ctx.Err() != nil {
			return slow
		}
	}
}

// wait waits for the timer, or until ctx is done.
func wait(ctx context.Context, timer *time.Timer) {
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
