package tokens

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestTokenThatWentIdleWhileFailingIsRefreshedWhenItIsRead(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.idle, w.latency = 24*time.Hour, time.Minute, 0
		mustRead(t, e, weather)
		time.Sleep(24*time.Hour + 30*time.Minute) // refreshed at 18 h and idle from 24 h
		w.wantFetches(2)
		w.with(func(w *world) { w.refuse = &grant.UnavailableError{Status: 503} })
		if _, _, err := e.Refresh(t.Context(), weather, ""); err == nil {
			t.Fatal("a refresh in an outage succeeded")
		}
		time.Sleep(5 * time.Minute)
		w.with(func(w *world) { w.refuse = nil })
		n := w.fetches()
		mustRead(t, e, weather)
		time.Sleep(time.Second)
		w.wantFetches(n + 1)
		if e.Failing(weather) {
			t.Error("the failure is still remembered")
		}
	})
}

func TestFirstRefusalAfterAnOutageStartsAtItsOwnFirstWindow(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refuse, w.latency = &grant.UnavailableError{Reason: "connection refused"}, 0
		for range 300 {
			_ = mustFail(t, e, weather)
			time.Sleep(time.Second)
		}
		w.with(func(w *world) { w.refuse = &grant.RefusedError{Status: 401, Code: "invalid_client"} })
		var failed *FailedError
		waitUntil(t, func() bool {
			failed = mustFail(t, e, weather)
			_, refused := errors.AsType[*grant.RefusedError](error(failed))
			return refused
		})
		if wait := time.Until(failed.NextAttempt); wait > refusedFirst {
			t.Errorf("the first refusal backs off %s, want at most %s", wait, refusedFirst)
		}
		if f := wantState(t, e, weather, StateDown).Failure; f.Refusals != 1 || f.Count < 3 {
			t.Errorf("%d refusals among %d consecutive failures, want 1 among the outage's and itself", f.Refusals, f.Count)
		}
	})
}

func TestLoadingIsTriedAgainUntilStorageAnswers(t *testing.T) {
	stories(t, map[string]string{
		"names": "names", "terms": "terms", "token": "load",
	}, func(t *testing.T, w *world, first *Engine, method string) {
		mustRead(t, first, weather)
		w.with(func(w *world) { w.broken[method] = errStorage })
		e := w.engine()
		e.LoadAll()
		time.Sleep(10 * time.Second)
		if s := e.peek(weather); s != nil && s.held.Load() != nil {
			t.Fatal("the token was loaded from broken storage")
		}
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(time.Minute)
		if s := e.peek(weather); s == nil || s.held.Load() == nil {
			t.Error("the token was not loaded once storage answered")
		}
	})
}

// Entries that can never be loaded do not prevent others from being loaded, however many they are.
func TestDamagedEntriesKeepNoOthersFromBeingLoaded(t *testing.T) {
	story(t, func(t *testing.T, w *world, first *Engine) {
		names := w.servers(4*loaders, "")
		for _, name := range names {
			mustRead(t, first, name)
		}
		first.Close()
		for _, damaged := range names[:10] {
			w.broken["terms "+damaged.Server] = errStorage
		}
		e := w.engine()
		e.LoadAll()
		time.Sleep(time.Second)
		held := func() (n int) {
			for _, name := range names {
				if s := e.peek(name); s != nil {
					s.mu.Lock()
					if s.held.Load() != nil && s.timer != nil {
						n++
					}
					s.mu.Unlock()
				}
			}
			return n
		}
		if got, want := held(), len(names)-10; got != want {
			t.Errorf("%d of %d tokens are loaded, with 10 damaged entries", got, want)
		}
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		if n := w.storageCalls()["terms"] - looks; n > 10*30 {
			t.Errorf("storage was asked %d times in ten minutes for 10 damaged entries", n)
		}
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(time.Minute)
		if got := held(); got != len(names) {
			t.Errorf("%d of %d tokens are loaded after all are repaired", got, len(names))
		}
	})
}

// If one token cannot be saved, others are still saved before they are returned.
func TestSaveThatFailsAtOnceDelaysNoOther(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		other := Name{Server: "other"}
		w.shapes[other], w.lifetime, w.broken["save weather"] = "A", time.Minute, errStorage
		for range 600 {
			mustRead(t, e, weather)
			if held := mustRead(t, e, other); w.stored(other).AccessToken != held.AccessToken {
				t.Fatal("a token was handed out that is not stored")
			}
			time.Sleep(time.Second)
		}
	})
}

func TestRepeatedTokenWithALowerCapIsRefreshedAhead(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.sameID = time.Hour, true
		mustRead(t, e, weather)
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.maxTTL = 10 * time.Minute })
		if _, _, err := e.Refresh(t.Context(), weather, ""); err != nil {
			t.Fatal(err)
		}
		if held := mustRead(t, e, weather); !held.RefreshAt.Before(held.Expires) {
			t.Error("the token was not refreshed before its end")
		}
	})
}

func TestStatusCausesNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world, refreshing *Engine) {
		first := mustRead(t, refreshing, weather)
		time.Sleep(50 * time.Minute)
		n := w.fetches()
		e := w.engine()
		for range 100 {
			if status := wantState(t, e, weather, StateOK); status.Token.ID() == first.ID() {
				t.Fatalf("status %+v; want the stored token's", status)
			}
			time.Sleep(time.Second / 10)
		}
		w.wantFetches(n)
		if e.peek(weather) != nil {
			t.Error("a read of the status loaded the name")
		}
	})
}

func TestInvalidationDuringASaveKeepsTheTokenFromBeingPublished(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		w.latency = 0
		e := w.slowEngine()
		first := mustRead(t, e, weather)
		time.Sleep(time.Until(first.RefreshAt) + 750*time.Millisecond)
		if w.stored(weather).AccessToken == first.AccessToken {
			t.Fatal("the new token is not being saved")
		}
		w.with(func(w *world) { w.shapes[weather], w.broken["terms"] = "B", errStorage })
		e.Invalidate(weather)
		time.Sleep(time.Second)
		if answer, err := e.Read(t.Context(), weather); err == nil && answer.Shape == "A" {
			t.Error("a token of the old terms is served after the invalidation")
		}
	})
}

func TestVerifiedWriteReleasesThoseWhoWaitForAHangingServer(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = 9 * time.Second
		got := wantReadLater(t, e, weather)
		synctest.Wait()
		w.with(func(w *world) { w.latency = 0 })
		change := w.verified(e, weather, "B")
		before := time.Now()
		mustChange(t, e, weather, change)
		if answer := <-got; answer.AccessToken != change.Token.AccessToken || time.Since(before) != 0 {
			t.Errorf("the reader waited %s for another token", time.Since(before))
		}
		w.wantFetches(2)
	})
}

func TestFailedWriteIsLookedIntoAndHeldTokensServe(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		names := w.roles(e, 20)
		n := w.fetches()
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		before := time.Now()
		failChange(t, e, w.effective(map[Name]string{weather: "B"}))
		if took := time.Since(before); took != 0 {
			t.Errorf("the write took %s", took)
		}
		mustRead(t, e, weather)
		mustRead(t, e, names[7])
		time.Sleep(10 * time.Minute)
		mustRead(t, e, weather)
		w.wantFetches(n)
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(time.Minute) // before the token's refresh is due
		wantShape(t, e, weather, "B")
	})
}

func TestFailedWriteThatComesThroughLaterIsNoticed(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		writer := Name{"weather", "writer"}
		w.shapes[reader], w.shapes[writer] = "A", "A"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		failChange(t, e, w.lateWrite(map[Name]string{weather: "B", reader: "B", writer: "B"}))
		time.Sleep(5 * time.Second)
		for _, name := range []Name{weather, reader, writer} { // the first read of writer
			wantShape(t, e, name, "A")
		}
		time.Sleep(LateCommit)
		for _, name := range []Name{weather, reader, writer} {
			wantShape(t, e, name, "B")
		}
		w.wantFetches(6)
		calls := w.storageCalls()["terms"]
		time.Sleep(30 * time.Minute)
		w.wantCalls("terms", calls)
	})
}

func TestFailedWriteLeavesTheBackoff(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refuse = clientFailures["invalid_client"]
		before := mustFail(t, e, weather)
		failChange(t, e, w.effective(nil))
		if after := mustFail(t, e, weather); !after.NextAttempt.Equal(before.NextAttempt) {
			t.Errorf("the next attempt is at %s, want %s as before the write", after.NextAttempt, before.NextAttempt)
		}
		w.wantFetches(1)
	})
}

func TestReadersOfAnOverdueTokenDoNotHammerStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		time.Sleep(time.Until(held.RefreshAt))
		looks := w.storageCalls()["terms"]
		for range 600 {
			mustRead(t, e, weather)
			time.Sleep(time.Second / 10)
		}
		if n := w.storageCalls()["terms"] - looks; n < 3 || n > 10 {
			t.Errorf("storage was asked %d times in a minute, want 3 to 10 by the backoff", n)
		}
	})
}

func TestInvalidationsShareOneLoad(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		for range 200 {
			e.Invalidate(weather)
			synctest.Wait()
		}
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		if n := w.storageCalls()["terms"] - looks; n < 5 || n > 25 {
			t.Errorf("storage was asked %d times in ten minutes, want 5 to 25 by a backoff of up to a minute", n)
		}
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(time.Minute)
		if s := e.peek(weather); s == nil || s.held.Load() == nil || s.held.Load().ID() != held.ID() {
			t.Error("the token was not loaded once storage answered")
		}
	})
}

// Otherwise the next reader would get the token on the old terms.
func TestFailedWriteIsLookedIntoWithoutReaders(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.idle = time.Minute
		mustRead(t, e, weather)
		time.Sleep(46 * time.Minute) // the token is refreshed once
		w.wantFetches(2)
		due := e.peek(weather).held.Load().RefreshAt
		time.Sleep(time.Until(due) - 5*time.Second)
		failChange(t, e, w.lateWrite(map[Name]string{weather: "B"}))
		time.Sleep(LateCommit + time.Second)
		w.wantFetches(2)
		wantShape(t, e, weather, "B")
	})
}

// hangingSaves is storage in which each save takes the whole timeout and fails.
type hangingSaves struct{ *world }

func (s hangingSaves) Save(ctx context.Context, name Name, t *Token) error {
	if err := s.world.Save(ctx, name, t); err == nil {
		return nil
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
	}
	return context.DeadlineExceeded
}

// Hanging saves do not take tokens out of service, whether for many servers or for many roles of one server, which
// share a write lock. When storage answers again, every token is saved.
func TestSavesThatHangTakeNoTokenOutOfService(t *testing.T) {
	stories(t, map[string]func(int) Name{
		"many servers":           func(i int) Name { return Name{Server: fmt.Sprint("server-", i)} },
		"many roles of a server": func(i int) Name { return Name{Server: "weather", Role: fmt.Sprint("role-", i)} },
	}, func(t *testing.T, w *world, _ *Engine, name func(int) Name) {
		w.lifetime = 2 * time.Minute
		e := w.engineOn(hangingSaves{w})
		names := make([]Name, 200)
		for i := range names {
			names[i] = name(i)
			w.with(func(w *world) { w.shapes[names[i]] = "A" })
			mustRead(t, e, names[i])
		}
		w.with(func(w *world) { w.broken["save"] = errStorage })
		for range 600 {
			time.Sleep(time.Second)
			before := time.Now()
			for _, name := range names {
				mustRead(t, e, name)
			}
			if waited := time.Since(before); waited != 0 {
				t.Fatalf("readers waited %s", waited)
			}
		}
		// One save per name before the failures, one per name until the first failure, and then one every 11 s.
		if saves, most := w.storageCalls()["save"], 2*len(names)+600/11; saves > most {
			t.Errorf("%d saves; want at most %d", saves, most)
		}

		w.with(func(w *world) { delete(w.broken, "save") })
		time.Sleep(2 * time.Minute)
		for _, name := range names {
			w.wantStored(name, mustRead(t, e, name).AccessToken)
		}
	})
}
