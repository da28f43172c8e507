package tokens

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Bounds on concurrent fetches. A hanging host holds at most hostFetches, so only allFetches/hostFetches hanging
// hosts together delay another host. Background work has other bounds: see lines.
const (
	hostFetches = 8
	allFetches  = 256
)

// gates bounds fetches per host and over all.
type gates struct {
	all   *gate
	hosts *shared[*gate]
}

// gate bounds concurrent fetches. Fetches with waiting callers go first.
type gate struct {
	permits *semaphore.Weighted
	readers atomic.Int64 // fetches with waiting callers that wait for a permit
}

func newGates() *gates {
	return &gates{all: newGate(allFetches), hosts: newShared(func() *gate { return newGate(hostFetches) }, nil)}
}

func newGate(n int64) *gate { return &gate{permits: semaphore.NewWeighted(n)} }

// enter waits for a place at host and then for one over all, in this order: while a fetch waits for a hanging host,
// it must not hold a place that another host needs. awaited reports whether a caller waits for the fetch. waited
// reports whether there was a queue. The caller calls leave if err is nil.
func (g *gates) enter(ctx context.Context, host string, awaited *atomic.Bool) (leave func(), waited bool, err error) {
	h, release := g.hosts.use(host)
	waitedHost, err := h.enter(ctx, awaited)
	if err != nil {
		release()
		return nil, true, err
	}
	waitedAll, err := g.all.enter(ctx, awaited)
	if err != nil {
		h.permits.Release(1)
		release()
		return nil, true, err
	}
	return func() {
		g.all.permits.Release(1)
		h.permits.Release(1)
		release()
	}, waitedHost || waitedAll, nil
}

// enter takes a permit. The semaphore is first come, first served. So background work that queued for a permit gives
// it back while readers queue, and queues again.
func (g *gate) enter(ctx context.Context, awaited *atomic.Bool) (waited bool, err error) {
	if awaited.Load() {
		g.readers.Add(1)
		defer g.readers.Add(-1)
		return acquire(ctx, g.permits)
	}
	for {
		queued, err := acquire(ctx, g.permits)
		waited = waited || queued
		if err != nil || !queued || awaited.Load() || g.readers.Load() == 0 {
			return waited, err
		}
		g.permits.Release(1)
	}
}

// acquire takes one permit, and reports whether it had to queue.
func acquire(ctx context.Context, s *semaphore.Weighted) (queued bool, err error) {
	if s.TryAcquire(1) {
		return false, nil
	}
	return true, s.Acquire(ctx, 1)
}
