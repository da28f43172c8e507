package tokens

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// failure is the remembered failure of the latest attempt. It is immutable.
type failure struct {
	// client is set if the failure concerns the whole client; nil if it concerns only the name.
	client *client
	host   string // the authorization server that was asked
	cause  error
	since  time.Time // when the first of this run of failures happened
	begun  time.Time // when the failed request began
	at     time.Time // when it failed
	count  int       // failures in a row
	// streak is how many of the last failures were of the same kind: a refusal after an outage is the first of
	// its kind.
	streak int
	// refusedServers are the servers whose credentials were refused in this run of failures.
	refusedServers []string
	// wait is the length of the backoff window, its jitter included.
	wait time.Duration
	// limited reports whether the authorization server set the window (Retry-After).
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
		// Never before the time that the server named, and spread after it.
		next.limited = true
		next.wait = max(next.wait, after+jitter(after/10))
	}
	return next
}

// current returns the latest failure of f's client, nil if that client works again; or f itself if it concerns only
// the name.
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

// of returns f, with server among refusedServers if its credentials were refused.
func (f *failure) of(server string, cause error) *failure {
	if !grant.FailedLogin(cause) || slices.Contains(f.refusedServers, server) {
		return f
	}
	with := *f
	with.refusedServers = append(slices.Clone(f.refusedServers), server)
	return &with
}

// end is the end of the backoff window, for a name with a valid token (held) or one with waiting callers. A client
// that works again has no window.
func (f *failure) end(held bool) time.Time {
	c := f.current()
	switch {
	case c == nil:
		return f.at
	case held || c.limited || c.refused(): // refusals begin with short windows
		return c.at.Add(c.wait)
	default:
		// A request that hung counts towards the window: callers must not wait as long again.
		return later(c.at, minTime(c.at.Add(c.wait), c.begun.Add(waitingMost)))
	}
}

// refused reports whether the authorization server refused the request.
func (f *failure) refused() bool {
	_, refused := errors.AsType[*grant.RefusedError](f.cause)
	return refused
}

// err is the failure for the readers of a name: while its client fails, the client's latest failure.
func (f *failure) err(name Name) *FailedError {
	latest := f.latest()
	return &FailedError{Name: name, Host: latest.host, Cause: latest.cause, NextAttempt: f.end(false)}
}

// client is an OAuth client at its token endpoint, which an authorization server may lock out, limit or refuse. All
// names of the client share its failures. While it fails, one name at a time probes.
type client struct {
	// failed is the latest failure that concerns the client; nil while it works. Stored
	// under mu, read without.
	failed atomic.Pointer[failure]

	mu sync.Mutex // guards the fields below; never held across a call that waits
	// probe closes when the probe under way ends; nil if none is.
	probe chan struct{}
	// waiting are the refreshes in the background that wait for the probe's end.
	waiting []*turn
	// resetAt is when the client's configuration was last written. Failures of requests that began before are void.
	resetAt time.Time
}

// rememberFailure is how long the failure of an unused client is kept.
const rememberFailure = 2 * retryAfterMost

func newClients() *shared[*client] {
	return newShared(func() *client { return &client{} }, func(c *client) bool {
		f := c.failed.Load()
		return f != nil && time.Since(f.at) < rememberFailure
	})
}

// permit permits one request to the authorization server. It ends with succeeded, failed or close.
type permit struct {
	client *client
	begun  time.Time
	probe  chan struct{} // closed when the permit ends; nil unless this is the probe
}

// admit returns a permit; or, within the backoff window, the client's failure; or, while another name probes, a
// channel which closes when the probe has ended. windowEnd returns the end of a failure's window for the name.
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

// close ends the permit, with or without an outcome. The refreshes that waited for the probe continue.
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

// wait makes a refresh wait for the probe under way. It returns false without a probe.
func (c *client) wait(t *turn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probe == nil {
		return false
	}
	c.waiting = append(c.waiting, t)
	return true
}

// overtaken reports whether the request began before the failure f. Then its result is older than f.
func (p *permit) overtaken(f *failure) bool { return f != nil && p.begun.Before(f.at) }

// succeeded records that the client works. It reports whether it had been failing.
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

// failed records a failure that concerns the client, and returns the current one. Concurrent requests count as one
// failure.
func (p *permit) failed(server, host string, cause error, now time.Time) *failure {
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	prev := c.failed.Load()
	if p.begun.Before(c.resetAt) && retryAfter(cause) == 0 {
		return prev.next(host, cause, now) // of the name alone
	}
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

// limit returns the current failure if the authorization server set its window (Retry-After) and it has not ended;
// else nil.
func (c *client) limit(now time.Time) *failure {
	if f := c.failed.Load(); f != nil && f.limited && left(f.end(false), now) > 0 {
		return f
	}
	return nil
}

// reset forgets the client's failure, unless the authorization server set a window that has not ended.
func (c *client) reset(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resetAt = now
	if c.limit(now) == nil {
		c.failed.Store(nil)
	}
}
