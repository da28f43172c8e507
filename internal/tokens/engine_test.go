package tokens

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// story runs a test in a bubble of fake time. The engine's goroutines and timers
// must have ended when it returns, or the bubble reports a deadlock.
func story(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

func TestColdReadersShareOneFetch(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		parallel(1000, func(int) { mustRead(t, e, weather) })
		w.wantFetches(1)
		if calls := w.storageCalls(); calls["terms"] != 1 || calls["load"] != 1 || calls["save"] != 1 {
			t.Errorf("storage calls %v, want one of each", calls)
		}
	})
}

func TestWarmReadCallsNobody(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		first := mustRead(t, e, weather)
		before := fmt.Sprint(w.storageCalls())
		parallel(100, func(int) {
			if got := mustRead(t, e, weather); got.ID() != first.ID() {
				t.Errorf("another token")
			}
		})
		if after := fmt.Sprint(w.storageCalls()); after != before {
			t.Errorf("storage calls went from %s to %s", before, after)
		}
		w.wantFetches(1)
	})
}

func TestUnknownNameIsNotConfiguredAndKeepsNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		for i := range 50 {
			if _, err := e.Read(t.Context(), Name{Server: fmt.Sprint("nobody", i)}); !errors.Is(err, ErrNotConfigured) {
				t.Fatalf("got %v, want ErrNotConfigured", err)
			}
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

func TestReaderWhoGivesUpDoesNotDisturbOthers(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = 4 * time.Second
		e := w.engine()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		parallel(2, func(i int) {
			if i == 0 {
				if _, err := e.Read(impatient, weather); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the caller's own deadline", err)
				}
				return
			}
			mustRead(t, e, weather)
		})
		w.wantFetches(1)
	})
}

func TestRefreshAheadNeverMakesReadersWait(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.latency = 5*time.Minute, 0
		e := w.engine()
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.latency = 5 * time.Second })
		time.Sleep(time.Until(first.RefreshAt) + 2*time.Second) // in the middle of the refresh
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
		if w.stored(weather).AccessToken != second.AccessToken {
			t.Error("the new token was not saved")
		}
	})
}

func TestRefreshGoesOnForAsLongAsSomebodyReads(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = 20 * time.Second
		e := w.engine()
		start := time.Now()
		for time.Since(start) < 200*time.Second {
			mustRead(t, e, weather)
			time.Sleep(time.Second / 2)
		}
		if n := w.fetches(); n < 20 || n > 24 {
			t.Errorf("%d fetches in 200 s, want one per 9 to 10 s", n)
		}
	})
}

// Nothing that another name or a write may hold stands in the way of a warm read.
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
	locks := []*sync.Mutex{&own.mu, &others.mu, &e.mu, &e.gates.hosts.mu, &e.clients.mu, &e.locks.mu, &e.retries.mu}
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

func TestReadDuringOutageServesOldTokenUntilExpiry(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = 5 * time.Minute
		e := w.engine()
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.refuse = &grant.UnavailableError{Status: 503} })
		for time.Now().Before(first.Expires.Add(-time.Second)) {
			if got := mustRead(t, e, weather); got.ID() != first.ID() {
				t.Fatal("another token out of nowhere")
			}
			time.Sleep(time.Second)
		}
		status, err := e.Status(t.Context(), weather)
		if err != nil || status.State != StateFailing || status.Failure == nil {
			t.Errorf("status %+v, %v, want failing", status, err)
		}
		time.Sleep(2 * time.Second)
		failed := mustFail(t, e, weather)
		if !failed.NextAttempt.After(time.Now()) {
			t.Errorf("the error names no next attempt: %v", failed)
		}
		if status, _ := e.Status(t.Context(), weather); status.State != StateDown {
			t.Errorf("state %s, want down", status.State)
		}
		w.with(func(w *world) { w.refuse = nil })
		time.Sleep(time.Until(failed.NextAttempt) + time.Second)
		if got := mustRead(t, e, weather); got.ID() == first.ID() {
			t.Error("the expired token was served")
		}
		if status, _ := e.Status(t.Context(), weather); status.State != StateOK || status.Failure != nil {
			t.Errorf("status %+v, want ok", status)
		}
	})
}

func TestOneAttemptPerWindowWhateverTheReadersDo(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.refuse, w.latency = &grant.UnavailableError{Reason: "connection refused"}, 0
		e := w.engine()
		start := time.Now()
		for time.Since(start) < 2*time.Minute {
			for range 10 { // 1,000 a second
				_ = mustFail(t, e, weather)
			}
			time.Sleep(10 * time.Millisecond)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for i := 1; i < len(w.begun); i++ {
			window := min(time.Second<<(i-1), waitingMost*4/3)
			if gap := w.begun[i].Sub(w.begun[i-1]); gap < window*3/4-1 {
				t.Errorf("attempt %d came %s after the one before, want at least three quarters of %s", i, gap, window)
			}
		}
		if len(w.begun) < 13 || len(w.begun) > 17 {
			t.Errorf("%d attempts in two minutes", len(w.begun))
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.refuse = &grant.UnavailableError{Status: 429, RetryAfter: 90 * time.Second}
		e := w.engine()
		failed := mustFail(t, e, weather)
		if wait := time.Until(failed.NextAttempt); wait < 90*time.Second || wait > 99*time.Second {
			t.Errorf("next attempt in %s, want 90 s and a little", wait)
		}
		time.Sleep(89 * time.Second)
		_ = mustFail(t, e, weather)
		w.wantFetches(1)
		w.with(func(w *world) { w.refuse.(*grant.UnavailableError).RetryAfter = 100 * time.Hour })
		time.Sleep(15 * time.Second)
		failed = mustFail(t, e, weather)
		if wait := time.Until(failed.NextAttempt); wait > retryAfterMost*11/10 {
			t.Errorf("next attempt in %s: an absurd Retry-After must be capped", wait)
		}
	})
}

func TestRefusalBacksOffLongerAndAWriteClearsIt(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.refuse = &grant.RefusedError{Status: 401, Code: "invalid_client"}
		e := w.engine()
		failed := mustFail(t, e, weather)
		if wait := time.Until(failed.NextAttempt); wait < refusedFirst*3/4 {
			t.Errorf("next attempt in %s, want some thirty seconds", wait)
		}
		if refused, ok := errors.AsType[*grant.RefusedError](error(failed)); !ok || refused.Code != "invalid_client" {
			t.Errorf("%v does not hold the refusal", failed)
		}
		w.with(func(w *world) { w.refuse = nil })
		_ = mustFail(t, e, weather)
		mustChange(t, e, weather, w.reshape(weather, "A"))
		mustRead(t, e, weather)
		w.wantFetches(2)
	})
}

func TestBackgroundRetriesStopWithoutReaders(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = time.Minute
		e := w.engine()
		mustRead(t, e, weather)
		w.with(func(w *world) { w.refuse = &grant.UnavailableError{Status: 503} })
		time.Sleep(time.Minute)
		n := w.fetches()
		time.Sleep(time.Hour)
		if got := w.fetches(); got > n+1 {
			t.Errorf("%d attempts in an hour without a token or a reader", got-n)
		}
	})
}

// The alerts take a next attempt that stays in the past for one that nobody has asked for.
func TestNextAttemptMovesOnlyWhileSomebodyAsks(t *testing.T) {
	for name, refuse := range map[string]error{
		"unavailable": &grant.UnavailableError{Status: 503},
		"refused":     &grant.RefusedError{Status: 401, Code: "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.refuse = refuse
				e := w.engine()
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
				time.Sleep(time.Hour) // the attempt that the last reader waits for is within it
				left := next()
				time.Sleep(24 * time.Hour)
				if !next().Equal(left) {
					t.Errorf("without a reader, the next attempt has moved from %s to %s", left, next())
				}
			})
		})
	}
}

func TestIdleTokenIsLeftToExpire(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.idle = 20*time.Minute, time.Hour
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(5 * time.Hour)
		n := w.fetches()
		if n < 4 || n > 6 { // 15 minutes apart, for an hour after the read
			t.Errorf("%d fetches for an idle hour", n)
		}
		if status, _ := e.Status(t.Context(), weather); status.State != StateIdle {
			t.Errorf("state %s, want idle", status.State)
		}
		mustRead(t, e, weather)
		w.wantFetches(n + 1)
	})
}

// A verified write brings a new token, which is not idle: it is refreshed as others are.
func TestVerifiedWriteEndsIdleness(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		reader := Name{"weather", "reader"}
		w.shapes[reader] = "A"
		w.lifetime, w.idle = 24*time.Hour, time.Hour
		e := w.engine()
		rewrite := func(name Name) {
			t.Helper()
			verified := mustVerify(t, e, weather, w.terms(name, "A"))
			if err := e.Change(t.Context(), name, Change{
				Token: verified, Refresh: true, Terms: w.written(name, w.terms(name, "A")),
				Write: func(context.Context) error { return nil },
			}); err != nil {
				t.Fatal(err)
			}
		}
		mustRead(t, e, reader)
		time.Sleep(48 * time.Hour)
		if status, _ := e.Status(t.Context(), reader); status.State != StateIdle {
			t.Fatalf("state %s, want idle", status.State)
		}
		rewrite(reader)
		if status, _ := e.Status(t.Context(), reader); status.State != StateOK {
			t.Errorf("state %s after a verified write, want ok", status.State)
		}
		before := mustRead(t, e, reader)
		time.Sleep(time.Minute)
		rewrite(weather) // other credentials: what the role holds is replaced with them
		time.Sleep(time.Second)
		if got := mustRead(t, e, reader); got.ID() == before.ID() {
			t.Error("the role's token was not replaced after a rotation")
		}
	})
}

func TestIdleCountsTheLifetimeWhereThatIsLonger(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.idle = 24*time.Hour, time.Minute
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(19 * time.Hour) // past the refresh at 18 h
		w.wantFetches(2)
	})
}

func TestIdleTimeoutZeroNeverStops(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.idle = time.Hour, 0
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(30 * 24 * time.Hour)
		if n := w.fetches(); n < 900 {
			t.Errorf("%d fetches in a month of hours", n)
		}
	})
}

func TestReadOfAnIdleTokenPastItsRefreshStartsOne(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.idle = 20*time.Minute, time.Hour
		e := w.engine()
		mustRead(t, e, weather)
		var status Status
		for status.State != StateIdle {
			time.Sleep(time.Second)
			status, _ = e.Status(t.Context(), weather)
		}
		if status.Token == nil {
			t.Fatal("the idle token is not valid any more")
		}
		n := w.fetches()
		if got := mustRead(t, e, weather); got.ID() != status.Token.ID() {
			t.Fatal("the valid token was not served")
		}
		time.Sleep(time.Second)
		w.wantFetches(n + 1)
		if got := mustRead(t, e, weather); got.ID() == status.Token.ID() {
			t.Error("the read did not start a refresh")
		}
	})
}

func TestRepeatedTokenCostsTwoEarlyRetriesAndOneAtItsEnd(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.sameID = time.Hour, true
		e := w.engine()
		first := mustRead(t, e, weather)
		time.Sleep(time.Until(first.Expires) - time.Second)
		w.wantFetches(4) // the first, the one due, two early retries
		held := mustRead(t, e, weather)
		if !held.Issued.Equal(first.Issued) || held.Expires.After(first.Expires) {
			t.Errorf("a repeated token changed its times: %v to %v", held.Issued, held.Expires)
		}
		w.with(func(w *world) { w.sameID = false })
		time.Sleep(2 * time.Second)
		w.wantFetches(5)
		if got := mustRead(t, e, weather); got.ID() == first.ID() {
			t.Error("the token was not replaced at its end")
		}
	})
}

func TestFailedSaveIsServedFromMemoryAndSavedLater(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.broken["save"] = errors.New("storage is full")
		e := w.engine()
		held := mustRead(t, e, weather)
		if status, _ := e.Status(t.Context(), weather); !status.Unsaved {
			t.Error("status does not tell that the token is not saved")
		}
		time.Sleep(10 * time.Second)
		w.with(func(w *world) { delete(w.broken, "save") })
		time.Sleep(10 * time.Second)
		if w.stored(weather).AccessToken != held.AccessToken {
			t.Error("the token was not saved later")
		}
		if status, _ := e.Status(t.Context(), weather); status.Unsaved {
			t.Error("status still tells of an unsaved token")
		}
		w.wantFetches(1)
	})
}

func TestNoStorageNoCallToTheAuthorizationServer(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = time.Minute
		e := w.engine()
		mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errors.New("transport is closing") })
		before := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		w.wantFetches(1)
		if n := w.storageCalls()["terms"] - before; n > 20 {
			t.Errorf("storage was asked %d times in ten minutes without a reader", n)
		}
		if _, err := e.Read(t.Context(), weather); err == nil {
			t.Error("a read without a token or storage succeeded")
		}
		w.wantFetches(1)
	})
}

func TestRefreshGoesOnWhenStorageIsBack(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = 10 * time.Minute
		e := w.engine()
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errors.New("storage is sealed") })
		time.Sleep(time.Until(first.RefreshAt) + 10*time.Second)
		if got := mustRead(t, e, weather); got.ID() != first.ID() {
			t.Error("the valid token was not served")
		}
		w.wantFetches(1)
		w.with(func(w *world) { delete(w.broken, "terms") })
		time.Sleep(20 * time.Second)
		if got := mustRead(t, e, weather); got.ID() == first.ID() {
			t.Error("the token was not refreshed once storage was back")
		}
	})
}

func TestRestartKeepsTokensAndTheirTimers(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.shapes[Name{"weather", "reader"}] = "R"
		old := w.engine()
		own, role := mustRead(t, old, weather), mustRead(t, old, Name{"weather", "reader"})
		time.Sleep(10 * time.Minute)
		old.Close()

		e := w.engine()
		e.LoadAll()
		synctest.Wait()
		before := fmt.Sprint(w.storageCalls())
		if mustRead(t, e, weather).ID() != own.ID() || mustRead(t, e, Name{"weather", "reader"}).ID() != role.ID() {
			t.Error("the tokens were not kept")
		}
		if after := fmt.Sprint(w.storageCalls()); after != before {
			t.Error("reads after loading went to storage")
		}
		w.wantFetches(2)
		time.Sleep(time.Until(own.Expires) - time.Minute)
		w.wantFetches(4)
	})
}

func TestReadLoadsItsOwnNameAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		first := mustRead(t, w.engine(), weather)
		if got := mustRead(t, w.engine(), weather); got.ID() != first.ID() {
			t.Error("the stored token was not used")
		}
		w.wantFetches(1)
	})
}

func TestStoredTokenOfAnotherShapeOrPastItsEndIsNotUsed(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		first := mustRead(t, w.engine(), weather)
		w.with(func(w *world) { w.shapes[weather] = "B" })
		second := mustRead(t, w.engine(), weather)
		if second.ID() == first.ID() || second.Shape != "B" {
			t.Error("a token of the old shape was used")
		}
		time.Sleep(time.Until(second.Expires))
		if got := mustRead(t, w.engine(), weather); got.ID() == second.ID() {
			t.Error("an expired token was used")
		}
	})
}

func TestLoadingDropsTokensWithoutConfig(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		mustRead(t, w.engine(), weather)
		w.with(func(w *world) { delete(w.shapes, weather) })
		e := w.engine()
		e.LoadAll()
		synctest.Wait()
		if w.stored(weather).AccessToken != "" {
			t.Error("the token of a config that is gone was kept")
		}
		w.wantFetches(1)
	})
}

func TestPassiveNodeServesWhatItHoldsAndFetchesNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		first := mustRead(t, w.engine(), weather)
		w.with(func(w *world) { w.passive, w.shapes[Name{Server: "other"}] = true, "O" })
		e := w.engine()
		if got := mustRead(t, e, weather); got.ID() != first.ID() {
			t.Error("the stored token was not served")
		}
		if _, err := e.Read(t.Context(), Name{Server: "other"}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a needed fetch gave %v, want ErrReadOnly", err)
		}
		if _, err := e.Verify(t.Context(), weather, &Terms{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("Verify gave %v, want ErrReadOnly", err)
		}
		time.Sleep(40 * time.Minute)
		mustRead(t, e, weather)
		time.Sleep(6 * time.Minute)
		if _, err := e.Read(t.Context(), weather); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a read of a token that is due gave %v, want ErrReadOnly: the active node counts its readers", err)
		}
		w.wantFetches(1)
	})
}

func TestCloseEndsAHangingFetchAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = time.Hour
		e := w.engine()
		result := reading(t, e, weather)
		synctest.Wait()
		before := time.Now()
		e.Close()
		if took := time.Since(before); took > 100*time.Millisecond {
			t.Errorf("Close took %s", took)
		}
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Errorf("the reader got %v, want ErrClosed", err)
		}
		if _, err := e.Read(t.Context(), weather); !errors.Is(err, ErrClosed) {
			t.Errorf("a read after Close got %v, want ErrClosed", err)
		}
		w.wantFetches(1)
	})
}

func TestCloseDoesNotWaitForStuckStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		stuck := make(chan struct{})
		defer close(stuck)
		e.spawn(func() { <-stuck })
		before := time.Now()
		e.Close()
		if took := time.Since(before); took > 100*time.Millisecond {
			t.Errorf("Close took %s", took)
		}
	})
}

func TestStatusNeverFetches(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		status, err := e.Status(t.Context(), weather)
		if err != nil || status.State != StateEmpty {
			t.Errorf("got %+v, %v, want empty", status, err)
		}
		if _, err := e.Status(t.Context(), Name{Server: "nobody"}); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("got %v, want ErrNotConfigured", err)
		}
		w.wantFetches(0)
	})
}
