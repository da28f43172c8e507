package acceptance

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// A watcher repeats a request, and records its successes.
type watcher struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	value    string     // last result
	answered time.Time  // time of the last success
	gaps     []gap      // longer than a few rounds
	failures int        // failed rounds since take
	bad      []error    // invalid answers since take
}

// A gap is a time without an answer.
type gap struct{ from, to time.Time }

const (
	watchInterval = 25 * time.Millisecond
	watchTimeout  = 5 * time.Second
)

// errBad marks an invalid answer; readers tolerate other errors.
var errBad = errors.New("bad answer")

// startWatcher calls do until the test ends, and keeps its last result.
func startWatcher(t *testing.T, do func(context.Context) (string, error)) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{stop: cancel, answered: time.Now()}
	w.done.Go(func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for ctx.Err() == nil {
			w.once(ctx, do)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	t.Cleanup(w.finish)
	return w
}

func (w *watcher) once(ctx context.Context, do func(context.Context) (string, error)) {
	timed, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	value, err := do(timed)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		if now.Sub(w.answered) > 4*watchInterval {
			w.gaps = append(w.gaps, gap{w.answered, now})
		}
		w.value, w.answered = value, now
	case errors.Is(err, errBad):
		w.bad = append(w.bad, err)
	default:
		w.failures++
	}
}

func (w *watcher) finish() {
	w.stop()
	w.done.Wait()
}

// last returns the last result and its time.
func (w *watcher) last() (value string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value, w.answered
}

// take returns the invalid answers and failures since the last call.
func (w *watcher) take() (bad []error, failures int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bad, failures = w.bad, w.failures
	w.bad, w.failures = nil, 0
	return bad, failures
}

// longest returns the longest gap that ended after a time.
func (w *watcher) longest(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var most time.Duration
	for _, g := range w.gaps {
		if g.to.After(since) {
			most = max(most, g.to.Sub(g.from))
		}
	}
	return most
}
