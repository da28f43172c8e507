package tokens

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// failure is the remembered outcome of the latest attempt, immutable.
type failure struct {
	// client is whose failure this is, if it concerns the whole client; nil if it is the name's own.
	client *client
	host   string // the authorization server that was asked
	cause  error
	since  time.Time // when the first of this run of failures happened
	begun  time.Time // when the request of this one began
	at     time.Time // when it failed
	count  int       // failures in a row
	// streak is how many of these, the last ones, were of one kind: a refusal after
	// an outage is the first of its kind.
	streak int
	// refusedServers are those whose credentials were refused in this run of failures of the client.
	refusedServers []string
	// wait is the length of the backoff window, its jitter included.
	wait time.Duration
	// limited reports whether the server named the time itself (Retry-After).
	limited bool
}

// next returns the failure that follows f, which may be nil.
func (f *failure) next(host string, cause error, now time.Time) *failure {
	next := &failure{host: host, cause: cause, since: now, begun: now, at: now, count: 1, streak: 1}
	if f != nil {
		next.since, next.count, next.refusedServers = f.since, f.count+1, f.refusedServers
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

// current returns the latest failure of the client whose failure f is, nil if that client
// works again; or f itself if it is the name's own.
func (f *failure) current() *failure {
	if f.client == nil {
		return f
	}
	return f.client.failed.Load()
}

// latest returns the failure of f's client or, if that works again, f.
func (f *failure) latest() *failure {
	if c := f.current(); c != nil {
		return c
	}
	return f
}

// of returns the failure with the server that it came of: with its name, if its credentials were refused.
func (f *failure) of(server string, cause error) *failure {
	if !grant.FailedLogin(cause) || slices.Contains(f.refusedServers, server) {
		return f
	}
	with := *f
	with.refusedServers = append(slices.Clone(f.refusedServers), server)
	return &with
}

// end is the end of the backoff window: for a name that holds a valid token, or for one
// that callers wait for. A client that works again has no window.
func (f *failure) end(held bool) time.Time {
	c := f.current()
	switch {
	case c == nil:
		return f.at
	case held || c.limited || c.refused(): // refusals have short windows at first, and long ones if they last
		return c.at.Add(c.wait)
	default:
		// A request that hung has taken up the window: once the server is back, callers are not to
		// wait for as long again.
		return later(c.at, minTime(c.at.Add(c.wait), c.begun.Add(waitingMost)))
	}
}

// refused reports whether the authorization server said no.
func (f *failure) refused() bool {
	_, refused := errors.AsType[*grant.RefusedError](f.cause)
	return refused
}

// err is the failure for the readers of a name: while its client fails, the latest of that client's.
func (f *failure) err(name Name) *FailedError {
	latest := f.latest()
	return &FailedError{Name: name, Host: latest.host, Cause: latest.cause, NextAttempt: f.end(false)}
}

// client is an OAuth client at its token endpoint: what an authorization server locks out,
// limits or refuses. Its failures are shared by all names that use it, and while it fails
// one name at a time probes.
type client struct {
	// failed is the latest failure that concerns the client; nil while it works. Stored
	// under mu, read without.
	failed atomic.Pointer[failure]

	mu sync.Mutex // guards the fields below; never held across a call that waits
	// probe closes when the probe under way ends; nil if none is.
	probe chan struct{}
	// waiting are the refreshes in the background that wait for the probe's end.
	waiting []*turn
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
// name probes, a channel that closes when that probe has ended. windowEnd returns the end of a
// failure's window for the name.
func (c *client) admit(now time.Time, windowEnd func(*failure) time.Time) (p *permit, refused *failure, probing <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.failed.Load()
	switch {
	case f == nil:
		return &permit{client: c, begun: now}, nil, nil
	case left(windowEnd(f), now) > 0:
		return nil, f, nil
	case c.probe != nil:
		return nil, nil, c.probe
	}
	c.probe = make(chan struct{})
	return &permit{client: c, begun: now, probe: c.probe}, nil, nil
}

// close ends the permit, without an outcome if it has none yet. The refreshes that waited for the probe go
// on.
func (p *permit) close() {
	for _, t := range p.end() {
		t.start()
	}
}

// end ends the permit, and returns the refreshes that waited for the probe.
func (p *permit) end() (waited []*turn) {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	if p.probe != nil {
		waited = p.client.waiting
		p.client.probe, p.client.waiting = nil, nil
		close(p.probe)
	}
	return waited
}

// wait has a refresh wait for the probe under way. It reports false if none is.
func (c *client) wait(t *turn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probe == nil {
		return false
	}
	c.waiting = append(c.waiting, t)
	return true
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

// failed notes a failure of a server's request that concerns the client, and returns the one then in
// force. Requests that were under way together count as one failure.
func (p *permit) failed(server, host string, cause error, now time.Time) *failure {
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	prev := c.failed.Load()
	if p.overtaken(prev) && !now.Add(retryAfter(cause)).After(prev.end(false)) {
		prev = prev.of(server, cause)
		c.failed.Store(prev)
		return prev
	}
	next := prev.next(host, cause, now).of(server, cause)
	if p.overtaken(prev) {
		next.count, next.streak = prev.count, min(prev.streak, next.streak)
	}
	next.client, next.begun = c, p.begun
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

// reset forgets the client's failure if that is older than the write of its configuration, unless
// the server named a time that is not over. While a write is applied to one name after the other,
// the requests of the first may have failed already.
func (c *client) reset(written, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.failed.Load(); f != nil && !f.at.After(written) && c.limit(now) == nil {
		c.failed.Store(nil)
	}
}
