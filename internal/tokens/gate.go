package tokens

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Bounds on concurrent fetches. Each hanging host holds hostFetches, so allFetches/hostFetches hanging hosts are
// needed to delay another host. Background work has other bounds: see lines.
const (
	hostFetches = 8
	allFetches  = 256
)

// gates bounds fetches per host and over all.
type gates struct {
	all   *gate
	hosts *shared[*gate]
}

// gate admits a number of fetches. Those with waiting callers go first.
type gate struct {
	permits *semaphore.Weighted
	readers atomic.Int64 // that wait for a permit
}

func newGates() *gates {
	return &gates{all: newGate(allFetches), hosts: newShared(func() *gate { return newGate(hostFetches) }, nil)}
}

func newGate(n int64) *gate { return &gate{permits: semaphore.NewWeighted(n)} }

// enter waits for a place at host and then for one over all: a fetch which waits for a hanging host must not hold a
// place for another host. awaited reports whether a caller waits for the fetch. waited reports whether there was a
// queue. The caller calls leave if err is nil.
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

// enter takes a permit. The semaphore is first come, first served: so background work which queued for a permit passes
// it on while readers queue.
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
