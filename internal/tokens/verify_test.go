package tokens

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestVerifiedTokenIsSavedAndPublishedWithTheWrite(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		change := w.verified(e, weather, "B")
		mustChange(t, e, weather, change)
		if got := mustRead(t, e, weather); got.AccessToken != change.Token.AccessToken {
			t.Error("the verified token is not the one served")
		}
		w.wantStored(weather, change.Token.AccessToken)
		w.wantFetches(2)
		time.Sleep(46 * time.Minute)
		w.wantFetches(3)
	})
}

func TestVerifiedShapeChangeRenewsTheRolesThatItDrops(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.shapes[reader] = "A"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		change := w.verified(e, weather, "B")
		w.with(func(w *world) { w.shapes[reader] = "B" })
		mustChange(t, e, weather, change)
		time.Sleep(time.Second)
		before := time.Now()
		if got := mustRead(t, e, reader); got.Shape != "B" || time.Since(before) != 0 {
			t.Errorf("the role's reader waited %s for a token of shape %s", time.Since(before), got.Shape)
		}
		w.wantFetches(4)
	})
}

func TestVerifiedShapeChangeFetchesOnceForEachRoleThatIsRead(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		read, unread, same := Name{"weather", "read"}, Name{"weather", "unread"}, Name{"weather", "same"}
		for _, name := range []Name{read, unread, same} {
			w.shapes[name] = "A"
			mustRead(t, e, name)
		}
		for range 30 { // more than a day, which is the idle timeout
			time.Sleep(time.Hour)
			mustRead(t, e, read)
			mustRead(t, e, same)
		}
		wantState(t, e, unread, StateIdle)
		w.with(func(w *world) { w.latency = 2 * time.Second })
		go func() { _, _, _ = e.Refresh(t.Context(), read, "") }()
		change := w.verified(e, weather, "B")
		time.Sleep(time.Minute)
		go func() { _, _, _ = e.Refresh(t.Context(), read, "") }()
		synctest.Wait() // a flight of the role has begun
		w.with(func(w *world) { w.shapes[read], w.shapes[unread] = "B", "B" })
		before, looks := w.fetches(), w.storageCalls()["terms"]
		mustChange(t, e, weather, change)
		time.Sleep(10 * time.Second)
		w.wantFetches(before + 1)
		// The terms of three roles, and again in one role's flight.
		w.wantCalls("terms", looks+4)
	})
}

func TestVerifiedTokenThatCannotBeUsedIsNotHandedOut(t *testing.T) {
	stories(t, map[string]func(*world, *Engine) error{
		"terms cannot be read": func(w *world, _ *Engine) error { return errStorage },
		"invalidated": func(w *world, e *Engine) error {
			w.with(func(w *world) { w.shapes[weather] = "C" })
			e.Invalidate(weather)
			return nil
		},
	}, func(t *testing.T, w *world, e *Engine, trouble func(*world, *Engine) error) {
		mustRead(t, e, weather)
		change := w.verified(e, weather, "B")
		change.Terms = func(context.Context, Name) (*Terms, error) {
			err := trouble(w, e)
			return w.terms(weather, "B"), err
		}
		mustChange(t, e, weather, change)
		wantShape(t, e, weather, w.shapes[weather])
		w.wantFetches(3)
	})
}

func TestVerifiedTokenOfAnIdleNameIsRefreshedAhead(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		time.Sleep(48 * time.Hour)
		wantState(t, e, weather, StateIdle)
		change := w.verified(e, weather, "A")
		change.Terms = w.Terms // the terms are read from storage
		before := w.fetches()
		mustChange(t, e, weather, change)
		wantState(t, e, weather, StateOK)
		time.Sleep(time.Hour)
		w.wantFetches(before + 1)
	})
}

// A reader that began before the config existed must not drop the slot of the verified token.
func TestCreateKeepsItsTokenDespiteAnEarlierReader(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		w.latency = time.Millisecond
		e := w.slowEngine()
		w.roles(e, 20)
		verified := mustVerify(t, e, weather, w.terms(weather, "A"))
		w.with(func(w *world) { delete(w.shapes, weather) })
		mustChange(t, e, weather, w.remove(weather))
		reader := reading(t, e, weather)
		defer func() { t.Logf("the first reader got %v", <-reader) }()
		synctest.Wait() // the reader has found no config
		change := w.reshape(weather, "A")
		change.Token, change.Terms = verified, func(ctx context.Context, n Name) (*Terms, error) {
			if n == weather {
				return w.terms(weather, "A"), nil
			}
			return slowStore{w}.Terms(ctx, n)
		}
		fetched := w.fetches()
		mustChange(t, e, weather, change)
		loads := w.storageCalls()["load"]
		mustRead(t, e, weather)
		w.wantFetches(fetched)
		w.wantCalls("load", loads)
	})
}

// A slot may be dropped between its look-up and its lock. The verified token must go to a slot in use.
func TestSlotOfAVerifiedTokenIsInUse(t *testing.T) {
	e := newWorld(t).engine()
	dropped := dropDuring(e, func() { e.ensureSlot(weather) })
	if now := e.peek(weather); now == nil || now == dropped {
		t.Error("there is no slot for the token")
	}
}

// A verified write shows that the client works again. Its names are refreshed only once the write is stored; an
// earlier attempt would be an extra request.
func TestVerifiedWriteStartsNothingBeforeItIsStored(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.failingRoles(e, 5, clientFailures["503"])
		for _, name := range names {
			_ = mustFail(t, e, name)
		}
		w.with(func(w *world) { w.refuse = nil })
		before := w.fetches()
		change := w.rotation(e)
		time.Sleep(time.Second)
		w.wantFetches(before + 1)
		mustChange(t, e, weather, change)
		for _, name := range names {
			mustRead(t, e, name)
		}
		w.wantFetches(before + 1 + len(names))
	})
}

// A refusal of new credentials during verification does not concern the stored credentials.
func TestRefusedWriteHurtsNoName(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refuse = clientFailures["invalid_client"]
		if _, err := e.Verify(t.Context(), weather, w.terms(weather, "A")); err == nil {
			t.Fatal("the write was not refused")
		}
		w.with(func(w *world) { w.refuse = nil })
		mustRead(t, e, weather)
	})
}

func TestWriteThatQueuedLearnsTheServersTime(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.occupyHost(e, 2*time.Second)
		w.with(func(w *world) { w.refuse = clientFailures["429"] })
		_, err := e.Verify(t.Context(), weather, w.terms(weather, "A"))
		if failed, ok := errors.AsType[*FailedError](err); !ok || time.Until(failed.NextAttempt) < 9*time.Minute {
			t.Errorf("got %v, want the time of the next attempt", err)
		}
		w.wantFetches(2 * hostFetches)
	})
}

func TestWriteGivesUpItsPlaceInTheQueue(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.occupyHost(e, 4*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Verify(ctx, weather, w.terms(weather, "A")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the error of the deadline", err)
		}
		time.Sleep(time.Minute)
		if n := e.gates.hosts.len(); n != 0 {
			t.Errorf("%d hosts are left", n)
		}
	})
}

// A write sends no request before the time that the server gave. After a refusal it does send one, because the write
// may remove the cause.
func TestWriteBeforeTheServersTimeSendsNoRequest(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		verify := func() error {
			_, err := e.Verify(t.Context(), weather, w.terms(weather, "A"))
			return err
		}
		w.refuse = clientFailures["429"]
		begun := time.Now()
		for range 3 {
			failed, ok := errors.AsType[*FailedError](verify())
			if !ok || failed.NextAttempt.Before(begun.Add(10*time.Minute)) {
				t.Errorf("got %v, want the time of the next attempt", failed)
			}
		}
		w.wantFetches(1)
		for range 2 { // without the name in memory, and then with it
			mustChange(t, e, weather, w.reshape(weather, "A"))
			_ = mustFail(t, e, weather)
		}
		w.wantFetches(1)

		time.Sleep(12 * time.Minute)
		w.with(func(w *world) { w.refuse = clientFailures["invalid_client"] })
		for range 3 {
			if err := verify(); err == nil {
				t.Error("the client was not refused")
			}
		}
		w.wantFetches(4)
		w.with(func(w *world) { w.refuse = nil })
		if err := verify(); err != nil {
			t.Error(err)
		}
		mustRead(t, e, weather)
	})
}

func TestVerifiedWriteReleasesThoseWhoWaitForAProbe(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := probing(t, w, e)
		read := reading(t, e, names[1])
		synctest.Wait()
		change := w.reshape(names[1], "A")
		change.Token = &grant.Token{AccessToken: "verified", RequestedAt: time.Now(), ExpiresIn: time.Hour}
		begun := time.Now()
		mustChange(t, e, names[1], change)
		if err := <-read; err != nil || time.Since(begun) != 0 {
			t.Errorf("the reader got %v after %s, want the verified token at once", err, time.Since(begun))
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
