package tokens

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// story runs a test in a bubble of fake time. When it returns, the engine's goroutines and timers must have ended.
// Otherwise the bubble reports a deadlock.
func story(t *testing.T, f func(t *testing.T, w *world, e *Engine)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f(t, w, w.engine())
	})
}

// stories runs a story for each case.
func stories[C any](t *testing.T, cases map[string]C, f func(t *testing.T, w *world, e *Engine, c C)) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world, e *Engine) { f(t, w, e, c) })
		})
	}
}

func TestColdReadersShareOneFetch(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		parallel(1000, func(int) { wantRead(t, e, weather) })
		w.wantFetches(1)
		if calls := w.storageCalls(); calls["terms"] != 1 || calls["load"] != 1 || calls["save"] != 1 {
			t.Errorf("storage calls %v, want one of each", calls)
		}
		if n := e.retries.len(); n != 0 {
			t.Errorf("%d tasks are left to retry", n)
		}
	})
}

func TestWarmReadCallsNoServer(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		first := mustRead(t, e, weather)
		before := w.storageCalls()
		parallel(100, func(int) { wantToken(t, e, weather, first.ID()) })
		w.wantNoCallsSince(before)
		w.wantFetches(1)
	})
}

func TestUnknownNameIsNotConfiguredAndKeepsNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		for i := range 50 {
			wantError(t, e, Name{Server: fmt.Sprint("nobody", i)}, ErrNotConfigured)
		}
		w.wantFetches(0)
		e.slots.Range(func(name, _ any) bool {
			t.Errorf("a slot is kept for %v", name)
			return true
		})
		if len(e.servers) != 0 {
			t.Errorf("%d servers are kept", len(e.servers))
		}
	})
}

func TestRefreshAheadNeverMakesReadersWait(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.latency = 5*time.Minute, 0
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.latency = 5 * time.Second })
		time.Sleep(time.Until(first.RefreshAt) + 2*time.Second) // during the refresh
		before := time.Now()
		if got := mustRead(t, e, weather); got.ID() != first.ID() || time.Since(before) != 0 {
			t.Errorf("during the refresh a reader waited %s for %s", time.Since(before), got.ID())
		}
		time.Sleep(4 * time.Second)
		second := mustRead(t, e, weather)
		if second.ID() == first.ID() {
			t.Error("the token was not refreshed")
		}
		w.wantFetches(2)
		w.wantStored(weather, second.AccessToken)
	})
}

// A warm read takes no lock that another name or a write may hold.
func TestWarmReadTakesNoLockSharedWithOtherNames(t *testing.T) {
	other := Name{Server: "other"}
	w := newWorld(t)
	w.shapes[other] = "A"
	w.latency = 0
	e := w.engine()
	mustRead(t, e, weather)
	mustRead(t, e, other)
	unlock, err := e.lock(t.Context(), weather.Server)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	own, others := e.peek(weather), e.peek(other)
	locks := []*sync.Mutex{&own.mu, &others.mu, &e.mu, &e.gates.hosts.mu, &e.lines.mu, &e.clients.mu, &e.locks.mu, &e.retries.mu}
	for _, mu := range locks {
		mu.Lock()
	}
	defer func() {
		for _, mu := range locks {
			mu.Unlock()
		}
	}()
	read := reading(t, e, weather)
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a warm read waits for a lock")
	}
}

// If the next attempt stays in the past, the alerts conclude that callers have stopped asking.
func TestNextAttemptMovesOnlyWhileCallersAsk(t *testing.T) {
	stories(t, map[string]error{
		"unavailable": clientFailures["503"], "refused": clientFailures["invalid_client"],
	}, func(t *testing.T, w *world, e *Engine, refuse error) {
		w.refuse = refuse
		next := func() time.Time {
			status, err := e.Status(t.Context(), weather)
			if err != nil || status.Failure == nil {
				t.Fatalf("the status is %+v, %v", status, err)
			}
			return status.Failure.NextAttempt
		}
		_ = mustFail(t, e, weather)
		for range 3 * 60 {
			time.Sleep(time.Minute)
			_ = mustFail(t, e, weather)
			if past := time.Since(next()); past > time.Minute {
				t.Fatalf("with a reader each minute, the next attempt is %s in the past", past)
			}
		}
		time.Sleep(time.Hour) // the attempt for the last reader happens within the hour
		left := next()
		time.Sleep(24 * time.Hour)
		if !next().Equal(left) {
			t.Errorf("without a reader, the next attempt has moved from %s to %s", left, next())
		}
	})
}

func TestIdleTokenIsLeftToExpire(t *testing.T) {
	const day = 24 * time.Hour
	type idleness struct {
		lifetime, idle, passed time.Duration
		least, most            int // number of fetches
		state                  State
	}
	stories(t, map[string]idleness{
		"15 minutes apart, for an hour after the read": {20 * time.Minute, time.Hour, 5 * time.Hour, 4, 6, StateIdle},
		"refreshed at 18 h, for the lifetime counts":   {day, time.Minute, 19 * time.Hour, 2, 2, StateOK},
		"never idle": {time.Hour, 0, 30 * day, 900, 1000, StateOK},
	}, func(t *testing.T, w *world, e *Engine, tc idleness) {
		w.lifetime, w.idle = tc.lifetime, tc.idle
		mustRead(t, e, weather)
		time.Sleep(tc.passed)
		n := w.fetches()
		if n < tc.least || n > tc.most {
			t.Errorf("%d fetches in %s, want %d to %d", n, tc.passed, tc.least, tc.most)
		}
		wantState(t, e, weather, tc.state)
		mustRead(t, e, weather)
		if tc.state == StateIdle {
			w.wantFetches(n + 1)
		}
	})
}

func TestRepeatedTokenCostsTwoEarlyRetriesAndOneAtItsEnd(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.sameID = time.Hour, true
		first := mustRead(t, e, weather)
		time.Sleep(time.Until(first.Expires) - time.Second)
		w.wantFetches(4) // the first, the scheduled one, and two early retries
		held := mustRead(t, e, weather)
		if !held.Issued.Equal(first.Issued) || held.Expires.After(first.Expires) {
			t.Errorf("a repeated token changed its times: %v to %v", held.Issued, held.Expires)
		}
		w.with(func(w *world) { w.sameID = false })
		time.Sleep(2 * time.Second)
		w.wantFetches(5)
		wantOther(t, e, weather, first.ID())
	})
}

func TestRefreshGoesOnWhenStorageIsBack(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 10 * time.Minute
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		time.Sleep(time.Until(first.RefreshAt) + 10*time.Second)
		wantToken(t, e, weather, first.ID())
		wantState(t, e, weather, StateOK)
		w.wantFetches(1)
		w.with(func(w *world) { delete(w.broken, "terms") })
		time.Sleep(20 * time.Second)
		wantOther(t, e, weather, first.ID())
	})
}
