package tokens

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func (s *slot) hasTimer() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.timer != nil
}

// A timer keeps its slot in memory until it fires, which may be months away.
func TestNoTimerIsLeftWithoutAToken(t *testing.T) {
	stories(t, map[string]func(*world, *Engine){
		"deleted": func(w *world, e *Engine) { mustChange(w.t, e, weather, w.remove(weather)) },
		"dropped": func(w *world, e *Engine) { mustChange(w.t, e, weather, w.reshape(weather, "B")) },
		"invalidated": func(w *world, e *Engine) {
			w.with(func(w *world) { w.broken["terms"] = errStorage })
			e.Invalidate(weather)
		},
	}, func(t *testing.T, w *world, e *Engine, end func(*world, *Engine)) {
		mustRead(t, e, weather)
		s := e.peek(weather)
		if !s.hasTimer() {
			t.Fatal("a held token has no timer")
		}
		end(w, e)
		synctest.Wait()
		if s.hasTimer() {
			t.Error("the timer is left")
		}
	})
}

// A name's lock is for changes. Readers do not take it, even during a refresh or after a failure.
func TestReadsOfATokenInTroubleTakeNoLock(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 10 * time.Hour
		first := mustRead(t, e, weather)
		s := e.peek(weather)
		read := func() Answer {
			s.mu.Lock()
			defer s.mu.Unlock()
			return mustRead(t, e, weather)
		}
		w.with(func(w *world) { w.refuse, w.latency = clientFailures["503"], 5*time.Second })
		time.Sleep(time.Until(first.RefreshAt) + time.Second)
		if s.flight.Load() == nil {
			t.Fatal("no refresh is under way")
		}
		read()
		time.Sleep(20 * time.Minute)
		waitUntil(t, func() bool { // within the window of held tokens, and after the window of waiting callers
			f := s.failed.Load()
			return left(f.end(true), time.Now()) > 20*time.Second && left(f.end(false), time.Now()) < 0
		})
		if ttl := read().TTL; ttl < 20 {
			t.Errorf("readers are told to read again in %d s, before the next attempt", ttl)
		}
	})
}

func TestReadsAreRecordedOnceASecond(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		time.Sleep(time.Minute)
		s := e.slot(weather)
		s.touch(time.Now())
		first := s.lastRead.Load()
		time.Sleep(time.Second / 2)
		if s.touch(time.Now()); s.lastRead.Load() != first {
			t.Error("two reads within half a second were recorded")
		}
		time.Sleep(time.Second)
		if s.touch(time.Now()); s.lastRead.Load() == first {
			t.Error("a read a second later was not recorded")
		}
	})
}

func TestSlotThatIsGoneSendsItsCallersToTheNext(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		s := e.slot(weather)
		s.mu.Lock()
		s.drop()
		s.mu.Unlock()
		if token, f, err := s.join(); token != nil || f != nil || err != nil {
			t.Errorf("a reader got %v, %v, %v", token, f, err)
		}
		if token, f, err := s.replace(""); token != nil || f != nil || err != nil {
			t.Errorf("a refresh got %v, %v, %v", token, f, err)
		}
		if e.peek(weather) != nil {
			t.Error("the slot is still found")
		}
	})
}

// A slot may be dropped between its look-up and its lock.
func TestCallersOfASlotThatGoesAreServedByTheNext(t *testing.T) {
	for name, call := range map[string]func(*Engine) error{
		"read":    func(e *Engine) error { _, err := e.Read(t.Context(), weather); return err },
		"refresh": func(e *Engine) error { _, _, err := e.Refresh(t.Context(), weather, ""); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.latency = 0
			e := w.engine()
			dropDuring(e, func() {
				if err := call(e); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// dropDuring drops weather's slot while call waits for the slot's lock.
func dropDuring(e *Engine, call func()) (dropped *slot) {
	s := e.slot(weather)
	s.mu.Lock()
	done := make(chan struct{})
	go func() { defer close(done); call() }()
	for range 1000 {
		runtime.Gosched()
	}
	s.drop()
	s.mu.Unlock()
	<-done
	return s
}

// delayedTerms returns, after a delay, the terms at the time of the call.
type delayedTerms struct {
	*world
	delay atomic.Int64 // nanoseconds
}

func (d *delayedTerms) Terms(ctx context.Context, name Name) (*Terms, error) {
	defer time.Sleep(time.Duration(d.delay.Load()))
	return d.world.Terms(ctx, name)
}

// A failed write may take effect while terms are read, or while a token is fetched on the earlier terms. The last
// look after the write finds the new terms. The flight must not restore the old ones.
func TestFlightThatALookOvertakesBeginsAgain(t *testing.T) {
	stories(t, map[string][2]time.Duration{
		"reading terms": {8 * time.Second, time.Millisecond}, "fetching": {0, 8 * time.Second},
	}, func(t *testing.T, w *world, _ *Engine, delays [2]time.Duration) {
		w.latency = delays[1]
		store := &delayedTerms{world: w}
		e := w.engineOn(store)
		_ = e.slot(weather)
		failChange(t, e, w.lateWrite(map[Name]string{weather: "B"})) // after 10 s
		time.Sleep(9 * time.Second)
		store.delay.Store(int64(delays[0]))
		wantError(t, e, weather, context.DeadlineExceeded)
		store.delay.Store(0)
		time.Sleep(LateCommit)
		wantShape(t, e, weather, "B")
	})
}

func TestStorageThatRecoversIsTriedSoonAtItsNextFailure(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		for range 2 {
			held := mustRead(t, e, weather)
			w.with(func(w *world) { w.broken["terms"] = errStorage })
			time.Sleep(time.Until(held.RefreshAt))
			looks := w.storageCalls()["terms"]
			time.Sleep(5 * time.Minute)
			if n := w.storageCalls()["terms"] - looks; n < 8 {
				t.Errorf("%d reads of the terms in five minutes, want one per window, with windows from a second up", n)
			}
			w.with(func(w *world) { clear(w.broken) })
			time.Sleep(2 * time.Minute)
		}
	})
}

func TestOneReadOfAnIdleTokenRefreshesIt(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 100 * time.Hour
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.idle = time.Hour })
		mustChange(t, e, weather, w.reshape(weather, "A"))
		w.with(func(w *world) { w.lifetime = 101 * time.Hour })
		time.Sleep(time.Until(first.RefreshAt) - time.Minute)
		s := e.peek(weather)
		s.mu.Lock()
		s.lastRead.Store(-int64(200 * time.Hour)) // unread for longer than the token's lifetime
		s.mu.Unlock()
		time.Sleep(time.Hour)
		w.wantFetches(1)
		wantState(t, e, weather, StateIdle)
		w.with(func(w *world) { w.passive = true })
		wantState(t, e, weather, StateOK)
		w.with(func(w *world) { w.passive = false })
		wantToken(t, e, weather, first.ID())
		time.Sleep(time.Second)
		w.wantFetches(2)
		wantOther(t, e, weather, first.ID())
	})
}
