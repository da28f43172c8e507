package tokens

import (
	"context"
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
	all   *gate
	hosts *shared[*gate]
}

// gate admits a number of fetches, fewer of them in the background.
type gate struct {
	any        *semaphore.Weighted
	background *semaphore.Weighted
	readers    atomic.Int64 // that wait for a permit of any
}

func newGates() *gates {
	return &gates{all: newGate(allFetches), hosts: newShared(func() *gate { return newGate(hostFetches) }, nil)}
}

func newGate(n int64) *gate {
	return &gate{any: semaphore.NewWeighted(n), background: semaphore.NewWeighted(n - n/4)}
}

// enter waits for a place at host and then for one over all: a fetch that waits for
// a hanging host must not hold a place that another host could use. background ends
// when a caller waits for the fetch, which then stops being background work. waited
// reports whether there was a queue. The caller calls leave if err is nil.
func (g *gates) enter(ctx, background context.Context, host string) (leave func(), waited bool, err error) {
	h, release := g.hosts.use(host)
	leaveHost, waitedHost, err := h.enter(ctx, background)
	if err != nil {
		release()
		return nil, true, err
	}
	leaveAll, waitedAll, err := g.all.enter(ctx, background)
	if err != nil {
		leaveHost()
		release()
		return nil, true, err
	}
	return func() {
		leaveAll()
		leaveHost()
		release()
	}, waitedHost || waitedAll, nil
}

func (g *gate) enter(ctx, background context.Context) (leave func(), waited bool, err error) {
	leaveBackground, waited, err := g.enterBackground(ctx, background)
	if err != nil {
		return nil, true, err
	}
	queued, err := g.enterAny(ctx, background)
	if err != nil {
		leaveBackground()
		return nil, true, err
	}
	return func() { g.any.Release(1); leaveBackground() }, waited || queued, nil
}

// enterBackground takes a permit for background work while the fetch is that.
func (g *gate) enterBackground(ctx, background context.Context) (leave func(), waited bool, err error) {
	if background.Err() != nil {
		return func() {}, false, nil
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(background, cancel)()
	queued, err := acquire(waiting, g.background)
	if err == nil {
		return func() { g.background.Release(1) }, queued, nil
	}
	return func() {}, true, ctx.Err() // nil if a caller came to wait
}

// enterAny takes a permit of any. Background work that had to queue for it passes it
// on while readers queue: the semaphore knows the order of arrival only.
func (g *gate) enterAny(ctx, background context.Context) (waited bool, err error) {
	if background.Err() != nil {
		g.readers.Add(1)
		defer g.readers.Add(-1)
		return acquire(ctx, g.any)
	}
	for {
		queued, err := acquire(ctx, g.any)
		waited = waited || queued
		if err != nil || !queued || background.Err() != nil || g.readers.Load() == 0 {
			return waited, err
		}
		g.any.Release(1)
	}
}

// acquire takes one permit, and reports whether it had to queue.
func acquire(ctx context.Context, s *semaphore.Weighted) (queued bool, err error) {
	if s.TryAcquire(1) {
		return false, nil
	}
	return true, s.Acquire(ctx, 1)
}
