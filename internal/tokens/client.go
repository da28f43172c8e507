package tokens

import (
	"sync"
	"sync/atomic"
	"time"
)

// client is an OAuth client at its token endpoint: what an authorization server locks out,
// limits or refuses. Its failures are shared by all names that use it, and while it fails
// one name at a time probes.
type client struct {
	// failed is the latest failure that concerns the client; nil while it works. Stored
	// under mu, read without.
	failed atomic.Pointer[failure]

	mu sync.Mutex // guards the field below; never held across a call that waits
	// probe closes when the probe under way ends; nil if none is.
	probe chan struct{}
}

// rememberFailure is how long the failure of a client is kept that no name asks for.
const rememberFailure = 2 * retryAfterMost

func newClients() *shared[*client] {
	return newShared(func() *client { return &client{} }, func(c *client) bool {
		f := c.failed.Load()
		return f != nil && time.Since(f.at) < rememberFailure
	})
}

// permit is leave to ask the authorization server once. It ends with succeeded, failed or close.
type permit struct {
	client *client
	begun  time.Time
	probe  chan struct{} // closed when the permit ends; nil unless this is the probe
}

// admit returns a permit; or, within the backoff window, the client's failure; or, while another
// name probes, a channel that closes when that probe has ended.
func (c *client) admit(now time.Time, held bool) (p *permit, refused *failure, probing <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.failed.Load()
	switch {
	case f == nil:
		return &permit{client: c, begun: now}, nil, nil
	case left(f.end(held), now) > 0:
		return nil, f, nil
	case c.probe != nil:
		return nil, nil, c.probe
	}
	c.probe = make(chan struct{})
	return &permit{client: c, begun: now, probe: c.probe}, nil, nil
}

// close ends the permit, without an outcome if it has none yet.
func (p *permit) close() {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	if p.probe != nil && p.client.probe == p.probe {
		p.client.probe = nil
		close(p.probe)
	}
}

// overtaken reports whether the request began before the failure f: it says nothing about the
// time after it.
func (p *permit) overtaken(f *failure) bool { return f != nil && p.begun.Before(f.at) }

// succeeded notes that the client works. It reports whether it had been failing.
func (p *permit) succeeded() (recovered bool) {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	f := p.client.failed.Load()
	if f == nil || p.overtaken(f) {
		return false
	}
	p.client.failed.Store(nil)
	return true
}

// failed notes a failure that concerns the client, and returns the one then in force.
// Requests that were under way together count as one failure.
func (p *permit) failed(host string, cause error, now time.Time) *failure {
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	prev := c.failed.Load()
	if p.overtaken(prev) && !now.Add(retryAfter(cause)).After(prev.end(true)) {
		return prev
	}
	next := prev.next(host, cause, now)
	if p.overtaken(prev) {
		next.count, next.streak = prev.count, prev.streak
	}
	next.client = c
	c.failed.Store(next)
	return next
}

// limit returns the failure in force if the server itself named a time before which it is not
// to be asked (Retry-After); else nil.
func (c *client) limit(now time.Time) *failure {
	if f := c.failed.Load(); f != nil && f.limited && left(f.end(false), now) > 0 {
		return f
	}
	return nil
}

// reset forgets the client's failure, unless the server named a time that is not over. It
// reports whether a failure was forgotten.
func (c *client) reset(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed.Load() == nil || c.limit(now) != nil {
		return false
	}
	c.failed.Store(nil)
	return true
}
