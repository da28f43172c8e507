package tokens

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Bounds on concurrent fetches. Background work may use three quarters of each, and
// queues behind waiting readers. Hosts that hang hold hostFetches
// each, so it takes allFetches/hostFetches hanging hosts to slow another one down.
const (
	hostFetches = 8
	allFetches  = 256
)

// gates bounds fetches per host and over all.
type gates struct {
	all *gate

	mu    sync.Mutex // guards hosts and the users of each
	hosts map[string]*hostGate
}

type hostGate struct {
	*gate
	users int
}

// gate admits a number of fetches, fewer of them in the background.
type gate struct {
	any        *semaphore.Weighted
	background *semaphore.Weighted
	readers    atomic.Int64 // that wait for a permit of any
}

func newGates() *gates {
	return &gates{all: newGate(allFetches), hosts: map[string]*hostGate{}}
}

func newGate(n int64) *gate {
	return &gate{any: semaphore.NewWeighted(n), background: semaphore.NewWeighted(n - n/4)}
}

// enter waits for a place at host and then for one over all: a fetch that waits for
// a hanging host must not hold a place that another host could use. patience ends
// when somebody waits for the fetch, which then stops being background work. waited
// tells whether there was a queue. leave must be called when err is nil.
func (g *gates) enter(ctx, patience context.Context, host string) (leave func(), waited bool, err error) {
	h := g.host(host)
	leaveHost, waitedHost, err := h.enter(ctx, patience)
	if err != nil {
		g.release(host, h)
		return nil, true, err
	}
	leaveAll, waitedAll, err := g.all.enter(ctx, patience)
	if err != nil {
		leaveHost()
		g.release(host, h)
		return nil, true, err
	}
	return func() {
		leaveAll()
		leaveHost()
		g.release(host, h)
	}, waitedHost || waitedAll, nil
}

func (g *gates) host(host string) *hostGate {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hosts[host]
	if h == nil {
		h = &hostGate{gate: newGate(hostFetches)}
		g.hosts[host] = h
	}
	h.users++
	return h
}

// release forgets a host that nobody uses, so that the map stays as small as the
// work under way.
func (g *gates) release(host string, h *hostGate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(g.hosts, host)
	}
}

func (g *gate) enter(ctx, patience context.Context) (leave func(), waited bool, err error) {
	background, waited, err := g.enterBackground(ctx, patience)
	if err != nil {
		return nil, true, err
	}
	queued, err := g.enterAny(ctx, patience)
	if err == nil {
		leave = func() { g.any.Release(1); background() }
		return leave, waited || queued, nil
	}
	background()
	return nil, true, err
}

// enterBackground takes a background permit unless, or until, patience has ended.
func (g *gate) enterBackground(ctx, patience context.Context) (leave func(), waited bool, err error) {
	if patience.Err() != nil {
		return func() {}, false, nil
	}
	patient, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(patience, cancel)()
	queued, err := acquire(patient, g.background)
	if err == nil {
		return func() { g.background.Release(1) }, queued, nil
	}
	return func() {}, true, ctx.Err() // nil when it was the patience that ended
}

// enterAny takes a permit of any. Background work that had to queue for it passes it
// on while readers queue: the semaphore knows the order of arrival only.
func (g *gate) enterAny(ctx, patience context.Context) (waited bool, err error) {
	if patience.Err() != nil {
		g.readers.Add(1)
		defer g.readers.Add(-1)
		return acquire(ctx, g.any)
	}
	for {
		queued, err := acquire(ctx, g.any)
		waited = waited || queued
		if err != nil || !queued || patience.Err() != nil || g.readers.Load() == 0 {
			return waited, err
		}
		g.any.Release(1)
	}
}

// acquire takes one permit, and tells whether it had to queue.
func acquire(ctx context.Context, s *semaphore.Weighted) (queued bool, err error) {
	if s.TryAcquire(1) {
		return false, nil
	}
	return true, s.Acquire(ctx, 1)
}
