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

// After a failure Vault is left in peace for the first window, which doubles with each failure in a
// row up to the most. Vault may be back in a second; and when it is, no broker should need a minute
// to notice.
const (
	windowFirst = time.Second
	windowMost  = 30 * time.Second
)

// slowPace is the least time from one request to the next while Vault answers 504. The plugin answers so after
// some seconds, but something in between may do so at once.
const slowPace = time.Second

// calls are calls of one kind: one at a time, and none within the window after a failure. The mutex
// that guards them is their owner's.
type calls struct {
	current  *call // under way, or nil
	err      error // of the last one
	failures int   // in a row, of one kind: with ErrNotReplaced, or other
	until    time.Time
}

// A call is one call to Vault, which any number may wait for. The mutex is that of the calls.
type call struct {
	done      chan struct{}
	err       error // to be read once done is closed
	overtaken *call // by this one, or nil
}

// end releases who waits for the call, and, if it succeeded, who waits for one that it overtook. mu is
// held.
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

// join returns the call under way, or starts one that does do. Within the window after a failure it
// returns that failure instead. mu is held; do is called without.
//
// The call has a context of its own, so that a caller who gives up disturbs no other, and its
// goroutine ends with it.
func (c *calls) join(mu *sync.Mutex, do func(context.Context) error) (*call, error) {
	if c.current != nil {
		return c.current, nil
	}
	if time.Now().Before(c.until) {
		return nil, c.err
	}
	return c.begin(context.Background(), mu, do), nil
}

// begin starts a call whatever came of earlier ones. It takes the place of the one under way, if any: who
// waits for that waits for the first of the two to succeed, or for its own end. mu is held; do is called
// without, until ctx is done at the latest.
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

// conclude notes how the call under way ended. The mutex is held.
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
		most = streakMost // Vault is there. What repeats a token is the authorization server
	}
	if kept != errors.Is(previous, ErrNotReplaced) {
		c.failures = 0 // a token that is still held after an outage is the first of its kind
	}
	window := min(windowFirst<<min(c.failures, 16), most)
	c.failures++
	// Brokers that noticed the same failure should not come back at one instant.
	c.until = time.Now().Add(window - rand.N(window/4)) //nolint:gosec // spreads load, guards nothing
}

// wait waits until the call is done, and returns its error, or until ctx is.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("brokerauth: waiting for Vault: %w", context.Cause(ctx))
	}
}

// A replacement is the attempt to have one token replaced. The mutex that guards it is its owner's.
type replacement struct {
	id        string    // of the refused token
	obtained  time.Time // when the refused token was obtained, by Vault's clock; zero if it was not held
	successor string    // the id that Vault named last, "" before
	calls     calls
}

// isReplacedBy reports whether a token is the named successor of the refused one, or another token that is no older
// than the refused one. A standby that lags far behind has an older one.
func (r *replacement) isReplacedBy(t *token) bool {
	return t != nil && t.id != r.id && (t.id == r.successor || !t.obtained.Before(r.obtained))
}

// whileFetching calls do again while Vault answers 504, which says that the plugin is still fetching. If ctx is
// done first, the 504 is the error.
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
