package acceptance

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// A watcher does one thing over and over, and notes when it went well.
type watcher struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex // guards what follows
	value    string     // what it brought last
	answered time.Time  // when it went well last
	gaps     []gap      // the times without an answer, of those longer than a few rounds
	failures int        // rounds that brought nothing, since they were taken last
	bad      []error    // what must never be, since it was taken last
}

// A gap is a time in which nothing was answered.
type gap struct{ from, to time.Time }

const (
	watchInterval = 25 * time.Millisecond
	watchTimeout  = 5 * time.Second
)

// errBad marks what no reader may ever be given, where other errors are what a reader puts up with.
var errBad = errors.New("bad answer")

// startWatcher calls do until the test ends. What do returns is compared with nothing, but kept.
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

// last is what the watcher was answered last, and when.
func (w *watcher) last() (value string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value, w.answered
}

// take gives what went wrong since it was taken last.
func (w *watcher) take() (bad []error, failures int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bad, failures = w.bad, w.failures
	w.bad, w.failures = nil, 0
	return bad, failures
}

// longest is the longest gap that ended since a time; 0 if all rounds were answered.
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
