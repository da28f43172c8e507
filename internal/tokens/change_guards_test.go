package tokens

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// A write resets the client's failure. It must clear a failure of the name too.
func TestWriteEndsTheBackoff(t *testing.T) {
	stories(t, map[string]error{
		"the name's own": &grant.RefusedError{Status: 400, Code: "invalid_scope"}, "its client's": clientFailures["invalid_client"],
	}, func(t *testing.T, w *world, e *Engine, refuse error) {
		w.refuse = refuse
		_ = mustFail(t, e, weather)
		w.with(func(w *world) { w.refuse = nil })
		_ = mustFail(t, e, weather)
		mustChange(t, e, weather, w.reshape(weather, "A"))
		mustRead(t, e, weather)
		w.wantFetches(2)
	})
}

// The failure is the client's, and outlives the deleted config. The new config may have other credentials.
func TestCreateAfterADeleteEndsTheClientsBackoff(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refuse = clientFailures["invalid_client"]
		_ = mustFail(t, e, weather)
		mustChange(t, e, weather, w.remove(weather))
		wantError(t, e, weather, ErrNotConfigured)
		w.with(func(w *world) { w.refuse = nil })
		mustChange(t, e, weather, w.reshape(weather, "A"))
		mustRead(t, e, weather)
	})
}

func TestWriteThatChangesNoTokenLeavesStorageAlone(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.roles(e, 3)
		first := mustRead(t, e, names[0])
		mustChange(t, e, weather, w.verified(e, weather, "A"))
		time.Sleep(time.Minute)
		wantToken(t, e, names[0], first.ID())
		w.wantFetches(len(names) + 1)
		w.wantCalls("delete", 0)
	})
}

// A slot may exist before its token is loaded. A write must not treat it as loaded.
func TestWriteBeforeTheTokenIsLoadedLeavesItToBeLoaded(t *testing.T) {
	stories(t, map[string]bool{
		"terms can be read": true, "terms cannot be read": false,
	}, func(t *testing.T, w *world, old *Engine, readable bool) {
		first := mustRead(t, old, weather)
		e := w.engine()
		w.broken["load"] = errStorage
		wantError(t, e, weather, errStorage)
		if !readable {
			w.broken["terms"] = errStorage
		}
		mustChange(t, e, weather, w.reshape(weather, "A"))
		clear(w.broken)
		wantToken(t, e, weather, first.ID())
	})
}

func TestWriteWhoseTermsCannotBeReadKeepsNoTokenInService(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		w.broken["terms"] = errStorage
		mustChange(t, e, weather, w.reshape(weather, "B"))
		wantError(t, e, weather, errStorage)
		clear(w.broken)
		wantShape(t, e, weather, "B")
	})
}

// Failing storage costs its timeout, so it is called once, not once per role of a config.
func TestWriteAsksStorageThatFailsOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.roles(e, 30)
		before := w.storageCalls()["terms"]
		change := w.verified(e, weather, "B")
		w.broken["terms"] = errStorage
		mustChange(t, e, weather, change)
		w.wantCalls("terms", before+1)
		wantShape(t, e, weather, "B")
	})
}

// An invalidation takes no write lock, so it may arrive while a write reads its terms.
func TestInvalidationDuringAWriteIsLeftToStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		change := w.reshape(weather, "B")
		change.Terms = func(context.Context, Name) (*Terms, error) {
			w.with(func(w *world) { w.shapes[weather] = "A" }) // another node's later write
			e.Invalidate(weather)
			return w.terms(weather, "B"), nil
		}
		mustChange(t, e, weather, change)
		if w.stored(weather).Shape != "A" {
			t.Error("the write deleted the token that storage held")
		}
		wantShape(t, e, weather, "A")
		w.wantFetches(1)
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

// If storage answers at once, the first reader after a failed write sees the write's effect.
func TestFailedWriteThatTookEffectIsSeenAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.shapes[reader] = "A"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		names := w.roles(e, 10)
		failChange(t, e, Change{Write: func(context.Context) error {
			w.with(func(w *world) {
				w.shapes[weather], w.shapes[reader] = "B", "B"
				for _, gone := range names {
					delete(w.shapes, gone)
				}
			})
			return errStorage
		}})
		wantShape(t, e, weather, "B")
		wantShape(t, e, reader, "B")
		time.Sleep(LateCommit + time.Second)
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		w.wantCalls("terms", looks)
	})
}

// A flight that read the terms before a failed write must read them again.
func TestFailedWriteVoidsTheLooksUnderWay(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		w.latency = time.Millisecond
		e := w.slowEngine()
		got := wantReadLater(t, e, weather)
		synctest.Wait() // the terms have been read
		failChange(t, e, w.effective(map[Name]string{weather: "B"}))
		wantAnswer(t, <-got, "B")
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

func TestWriteThatFindsARoleGoneLeavesTheOthers(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.roles(e, 20)
		w.with(func(w *world) { delete(w.shapes, names[0]) })
		mustChange(t, e, weather, w.reshape(weather, "A"))
		for _, name := range names[1:] {
			mustRead(t, e, name)
		}
		w.wantFetches(len(names))
		w.wantCalls("load", len(names))
	})
}

// If the terms of new credentials cannot be read at first, the stored token is still replaced.
func TestNewCredentialsOutlastTermsThatCannotBeRead(t *testing.T) {
	stories(t, map[string]bool{
		"new credentials": true, "a write of something else": false,
	}, func(t *testing.T, w *world, e *Engine, refresh bool) {
		first := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		change := w.reshape(weather, "A")
		change.Refresh = refresh
		w.broken["terms"] = errStorage
		mustChange(t, e, weather, change)
		w.with(func(w *world) { clear(w.broken) })
		wantToken(t, e, weather, first.ID())
		time.Sleep(time.Second)
		if got := mustRead(t, e, weather); (got.ID() != first.ID()) != refresh {
			t.Errorf("refreshed %t, want %t", got.ID() != first.ID(), refresh)
		}
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

// The roles of a config get tokens on verified terms one after another. The next write does not interrupt this.
func TestNextWriteKeepsRefreshesInLine(t *testing.T) {
	stories(t, map[string]bool{
		"new credentials": true, "something else": false,
	}, func(t *testing.T, w *world, e *Engine, refresh bool) {
		names := w.roles(e, 4*hostBackground)
		change := w.verified(e, weather, "B")
		w.with(func(w *world) {
			for _, name := range names {
				w.shapes[name] = "B"
			}
		})
		mustChange(t, e, weather, change)
		next := w.change(weather, "B")
		next.Refresh = refresh
		mustChange(t, e, weather, next)
		time.Sleep(time.Minute)
		for _, name := range names {
			wantState(t, e, name, StateOK)
		}
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

// A slot may be dropped between its look-up and its lock. The verified token must go to a slot in use.
func TestSlotOfAVerifiedTokenIsInUse(t *testing.T) {
	e := newWorld(t).engine()
	dropped := dropDuring(e, func() { e.ensureSlot(weather) })
	if now := e.peek(weather); now == nil || now == dropped {
		t.Error("there is no slot for the token")
	}
}
