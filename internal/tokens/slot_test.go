package tokens

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func (s *slot) hasTimer() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.timer != nil
}

// A timer keeps its slot in memory until it fires, which may be months away.
func TestNoTimerIsLeftWithoutAToken(t *testing.T) {
	for name, end := range map[string]func(*world, *Engine){
		"deleted": func(w *world, e *Engine) { w.mustChange(e, weather, w.remove(weather)) },
		"dropped": func(w *world, e *Engine) { w.mustChange(e, weather, w.reshape(weather, "B")) },
		"invalidated": func(w *world, e *Engine) {
			w.with(func(w *world) { w.broken["terms"] = errStorage })
			e.Invalidate(weather)
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				e := w.engine()
				mustRead(t, e, weather)
				s := e.peek(weather)
				if !s.hasTimer() {
					t.Fatal("a token that is held has no timer")
				}
				end(w, e)
				synctest.Wait()
				if s.hasTimer() {
					t.Error("the timer is left")
				}
			})
		})
	}
}

// The lock of a name is for changes: its readers share it with nothing, even when a refresh is under
// way or has failed.
func TestReadsOfATokenInTroubleTakeNoLock(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = 10 * time.Hour
		e := w.engine()
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
		inWindow := func() bool { // of held tokens, and past that of callers who wait
			f := s.failed.Load()
			return left(f.end(true), time.Now()) > 20*time.Second && left(f.end(false), time.Now()) < 0
		}
		for range 600 {
			if inWindow() {
				break
			}
			time.Sleep(time.Second / 4)
		}
		if !inWindow() {
			t.Fatal("no window outlasts that of callers who wait")
		}
		if ttl := read().TTL; ttl < 20 {
			t.Errorf("readers are told to come again in %d s, before the next attempt", ttl)
		}
	})
}

func TestReadsAreRecordedOnceASecond(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
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
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
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

func TestReadersWithinTheWindowOfANamesOwnFailureAskNobody(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.refuse = &grant.RefusedError{Status: 400, Code: "invalid_scope"}
		e := w.engine()
		failed := mustFail(t, e, weather)
		if refused, ok := errors.AsType[*grant.RefusedError](failed.Cause); !ok || refused.Code != "invalid_scope" {
			t.Errorf("the cause is %v", failed.Cause)
		}
		for time.Until(failed.NextAttempt) > time.Second {
			_ = mustFail(t, e, weather)
			time.Sleep(time.Second / 2)
		}
		w.wantFetches(1)
	})
}

// A load in the background is overtaken by a write as one for a reader is.
func TestBackgroundLoadThatAWriteOvertakesIsThrownAway(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		mustRead(t, w.engine(), weather)
		e := w.slowEngine()
		e.LoadAll()
		time.Sleep(750 * time.Millisecond) // the old terms have been read, and the old token
		change := w.reshape(weather, "B")
		change.Terms = w.written(weather, w.terms(weather, "B"))
		w.mustChange(e, weather, change)
		time.Sleep(300 * time.Millisecond)
		if s := e.peek(weather); s.held.Load() != nil {
			t.Error("the old token is held after the write")
		}
		time.Sleep(time.Minute)
		if got := mustRead(t, e, weather); got.Shape != "B" {
			t.Errorf("got a token of shape %s", got.Shape)
		}
	})
}

// Terms are what a failed write leaves in question, not the token; and once they can no longer
// change, one look is enough.
func TestLookAfterAFailedWriteReadsNoMoreThanItMust(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		mustRead(t, e, weather)
		before := w.storageCalls()
		w.broken["terms"] = errStorage
		if err := e.Change(t.Context(), weather, w.lateWrite(nil, errStorage)); !errors.Is(err, errStorage) {
			t.Fatal(err)
		}
		time.Sleep(LateCommit + time.Second)
		w.with(func(w *world) { clear(w.broken) })
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		after := w.storageCalls()
		if n := after["terms"] - looks; n != 1 {
			t.Errorf("the terms were read %d times", n)
		}
		if n := after["load"] - before["load"]; n != 0 {
			t.Errorf("the token was loaded %d times", n)
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
			s := e.slot(weather)
			s.mu.Lock()
			ended := make(chan error, 1)
			go func() { ended <- call(e) }()
			for range 1000 {
				runtime.Gosched()
			}
			s.drop()
			s.mu.Unlock()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// delayedTerms answers as slowly as it is told, with what storage held when it was asked.
type delayedTerms struct {
	*world
	delay atomic.Int64 // nanoseconds
}

func (d *delayedTerms) Terms(ctx context.Context, name Name) (*Terms, error) {
	defer time.Sleep(time.Duration(d.delay.Load()))
	return d.world.Terms(ctx, name)
}

// A write that has failed takes effect while terms are being read, or while a token is being fetched on
// the terms before. The last look at what it left finds out, and the flight must not undo that.
func TestFlightThatALookOvertakesBeginsAgain(t *testing.T) {
	for name, delays := range map[string][2]time.Duration{
		"reading terms": {8 * time.Second, time.Millisecond}, "fetching": {0, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.latency = delays[1]
				store := &delayedTerms{world: w}
				e := New(Options{Store: store, Passive: w.isPassive, Log: hclog.NewNullLogger()})
				t.Cleanup(e.Close)
				_ = e.slot(weather)
				write := w.lateWrite(map[Name]string{weather: "B"}, errStorage) // after 10 s
				if err := e.Change(t.Context(), weather, write); !errors.Is(err, errStorage) {
					t.Fatal(err)
				}
				time.Sleep(9 * time.Second)
				store.delay.Store(int64(delays[0]))
				if _, err := e.Read(t.Context(), weather); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("got %v", err)
				}
				store.delay.Store(0)
				time.Sleep(LateCommit)
				if got := mustRead(t, e, weather); got.Shape != "B" {
					t.Errorf("got a token of shape %s", got.Shape)
				}
			})
		})
	}
}

func TestStorageThatRecoversIsTriedSoonAtItsNextFailure(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		for range 2 {
			held := mustRead(t, e, weather)
			w.with(func(w *world) { w.broken["terms"] = errStorage })
			time.Sleep(time.Until(held.RefreshAt))
			looks := w.storageCalls()["terms"]
			time.Sleep(5 * time.Minute)
			if n := w.storageCalls()["terms"] - looks; n < 8 {
				t.Errorf("%d looks in five minutes, want those of windows from a second up", n)
			}
			w.with(func(w *world) { clear(w.broken) })
			time.Sleep(2 * time.Minute)
		}
	})
}

func TestLoadingCountsAsARead(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		mustRead(t, w.engine(), weather)
		e := w.engine()
		time.Sleep(time.Minute)
		e.LoadAll()
		synctest.Wait()
		if status, err := e.Status(t.Context(), weather); err != nil || !status.LastRead.Equal(time.Now()) {
			t.Errorf("last read %s, %v, want now", status.LastRead, err)
		}
	})
}

func TestExpiredTokenInStorageCausesNoRequest(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		first := w.engine()
		mustRead(t, first, weather)
		first.Close()
		time.Sleep(2 * time.Hour)
		e := w.engine()
		e.LoadAll()
		time.Sleep(time.Hour)
		w.wantFetches(1)
	})
}

func TestStoredTokenLeavesNothingToRetry(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		mustRead(t, e, weather)
		if n := e.retries.len(); n != 0 {
			t.Errorf("%d tasks are left", n)
		}
	})
}

// A token that could not be stored is stored later, unless it is gone by then; and Close ends the wait.
func TestRetriedSaveFindsItsTokenGone(t *testing.T) {
	for name, end := range map[string]func(*world, *Engine){
		"deleted": func(w *world, e *Engine) { w.mustChange(e, weather, w.remove(weather)) },
		"closed": func(w *world, e *Engine) {
			slow := Change{Write: func(context.Context) error { time.Sleep(3 * time.Second); return ErrConflict }}
			go func() { _ = e.Change(w.t.Context(), weather, slow) }()
			time.Sleep(2 * time.Second)
			e.Close()
			time.Sleep(2 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.broken["save"] = errStorage
				e := w.engine()
				mustRead(t, e, weather)
				w.with(func(w *world) { clear(w.broken) })
				end(w, e)
				time.Sleep(time.Minute)
				if n := w.storageCalls()["save"]; n != 1 {
					t.Errorf("%d saves, want the first one only", n)
				}
			})
		})
	}
}

func TestOneReadOfAnIdleTokenRefreshesIt(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = 100 * time.Hour
		e := w.engine()
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.idle = time.Hour })
		w.mustChange(e, weather, w.reshape(weather, "A"))
		w.with(func(w *world) { w.lifetime = 101 * time.Hour })
		time.Sleep(time.Until(first.RefreshAt) - time.Minute)
		s := e.peek(weather)
		s.mu.Lock()
		s.lastRead.Store(-int64(200 * time.Hour)) // unread for longer than the token lives
		s.mu.Unlock()
		time.Sleep(time.Hour)
		w.wantFetches(1)
		if status, _ := e.Status(t.Context(), weather); status.State != StateIdle {
			t.Fatalf("state %s, want idle", status.State)
		}
		w.with(func(w *world) { w.passive = true })
		if status, _ := e.Status(t.Context(), weather); status.State != StateOK {
			t.Errorf("state %s on a node that refreshes nothing, want ok", status.State)
		}
		w.with(func(w *world) { w.passive = false })
		mustRead(t, e, weather)
		time.Sleep(time.Second)
		w.wantFetches(2)
	})
}

func TestTokenWhoseRefreshWaitsForStorageIsNotIdle(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		time.Sleep(time.Until(held.RefreshAt) + time.Minute)
		if status, _ := e.Status(t.Context(), weather); status.State != StateOK {
			t.Errorf("state %s, want ok", status.State)
		}
	})
}

func TestEachReportsEveryNameThatIsLoaded(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		names := w.roles(e, 5)
		_ = e.slot(Name{Server: "being loaded"})
		seen := map[Name]bool{}
		e.Each(func(name Name, status Status) { seen[name] = status.State == StateOK })
		if len(seen) != len(names) {
			t.Errorf("%d names were reported, want %d: %v", len(seen), len(names), seen)
		}
	})
}
