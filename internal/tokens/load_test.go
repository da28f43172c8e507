package tokens

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRestartKeepsTokensAndTheirTimers(t *testing.T) {
	story(t, func(t *testing.T, w *world, old *Engine) {
		w.shapes[reader] = "R"
		own, role := mustRead(t, old, weather), mustRead(t, old, reader)
		time.Sleep(10 * time.Minute)
		old.Close()

		e := w.engine()
		e.LoadAll()
		synctest.Wait()
		before := w.storageCalls()
		wantToken(t, e, weather, own.ID())
		wantToken(t, e, reader, role.ID())
		w.wantNoCallsSince(before)
		w.wantFetches(2)
		time.Sleep(time.Until(own.Expires) - time.Minute)
		w.wantFetches(4)
	})
}

func TestStoredTokenOfAnotherShapeOrPastItsEndIsNotUsed(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		w.with(func(w *world) { w.shapes[weather] = "B" })
		second := mustRead(t, w.engine(), weather)
		wantAnswer(t, second, "B")
		time.Sleep(time.Until(second.Expires))
		wantOther(t, w.engine(), weather, second.ID())
	})
}

func TestTokenWithoutConfigIsDropped(t *testing.T) {
	stories(t, map[string]func(*world, *Engine){
		"at the start":       func(w *world, _ *Engine) { w.engine().LoadAll() },
		"at an invalidation": func(_ *world, e *Engine) { e.Invalidate(weather) },
	}, func(t *testing.T, w *world, e *Engine, look func(*world, *Engine)) {
		mustRead(t, e, weather)
		w.with(func(w *world) { delete(w.shapes, weather) })
		look(w, e)
		synctest.Wait()
		w.wantStored(weather, "")
		w.wantFetches(1)
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

// Another node's change of a server's own token does not affect the tokens of its roles.
func TestInvalidatedTokenIsTheNamesOwn(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.shapes[reader] = "R"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		before := w.storageCalls()["load"]
		e.InvalidateToken(weather)
		time.Sleep(time.Second)
		w.wantCalls("load", before+1)
		e.Invalidate(weather)
		time.Sleep(time.Second)
		w.wantCalls("load", before+3)
		w.wantFetches(2)
	})
}

// An orphan is checked twice, because its config may be written between the first check and the delete.
func TestTokenWhoseConfigComesBackIsNotDropped(t *testing.T) {
	story(t, func(t *testing.T, w *world, old *Engine) {
		first := mustRead(t, old, weather)
		w.with(func(w *world) { delete(w.shapes, weather) })
		e := w.engine()
		wait := changing(t, e, weather, taking(time.Second, w.reshape(weather, "A")))
		e.LoadAll() // finds no config, and waits for the write lock
		wait()
		synctest.Wait()
		wantToken(t, e, weather, first.ID())
		mustChange(t, e, weather, w.reshape(weather, "B")) // releases the lock
	})
}

func TestLoadingCountsAsARead(t *testing.T) {
	story(t, func(t *testing.T, w *world, first *Engine) {
		mustRead(t, first, weather)
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
	story(t, func(t *testing.T, w *world, first *Engine) {
		mustRead(t, first, weather)
		first.Close()
		time.Sleep(2 * time.Hour)
		e := w.engine()
		e.LoadAll()
		time.Sleep(time.Hour)
		w.wantFetches(1)
	})
}
