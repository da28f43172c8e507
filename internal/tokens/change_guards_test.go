package tokens

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

var errStorage = errors.New("storage is gone")

// A failure that is the name's own, such as invalid_scope, has no client whose reset would end it.
func TestWriteEndsTheBackoffOfTheNamesOwnFailure(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.refuse = &grant.RefusedError{Status: 400, Code: "invalid_scope"}
		e := w.engine()
		_ = mustFail(t, e, weather)
		w.with(func(w *world) { w.refuse = nil })
		w.mustChange(e, weather, w.reshape(weather, "A"))
		mustRead(t, e, weather)
	})
}

func TestWriteThatChangesNoTokenLeavesStorageAlone(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		names := w.roles(e, 3)
		first := mustRead(t, e, names[0])
		verified := mustVerify(t, e, weather, w.terms(weather, "A"))
		change := w.reshape(weather, "A")
		change.Terms, change.Token = w.written(weather, w.terms(weather, "A")), verified
		w.mustChange(e, weather, change)
		time.Sleep(time.Minute)
		if got := mustRead(t, e, names[0]); got.ID() != first.ID() {
			t.Error("a role's token was replaced")
		}
		w.wantFetches(len(names) + 1)
		if n := w.storageCalls()["delete"]; n != 0 {
			t.Errorf("%d tokens were deleted", n)
		}
	})
}

// A slot may exist before its token has been loaded: a write must not take it for loaded.
func TestWriteBeforeTheTokenIsLoadedLeavesItToBeLoaded(t *testing.T) {
	for name, readable := range map[string]bool{"terms can be read": true, "terms cannot be read": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				first := mustRead(t, w.engine(), weather)
				e := w.engine()
				w.broken["load"] = errStorage
				if _, err := e.Read(t.Context(), weather); !errors.Is(err, errStorage) {
					t.Fatalf("got %v", err)
				}
				if !readable {
					w.broken["terms"] = errStorage
				}
				w.mustChange(e, weather, w.reshape(weather, "A"))
				clear(w.broken)
				if got := mustRead(t, e, weather); got.ID() != first.ID() {
					t.Error("the stored token was not loaded")
				}
			})
		})
	}
}

func TestWriteWhoseTermsCannotBeReadKeepsNoTokenInService(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		mustRead(t, e, weather)
		change := w.reshape(weather, "B")
		w.broken["terms"] = errStorage
		w.mustChange(e, weather, change)
		if _, err := e.Read(t.Context(), weather); !errors.Is(err, errStorage) {
			t.Errorf("got %v, want storage's error", err)
		}
		clear(w.broken)
		if got := mustRead(t, e, weather); got.Shape != "B" {
			t.Errorf("got a token of shape %s", got.Shape)
		}
	})
}

// Storage that fails costs its timeout, so it is asked once, not for each of a config's roles.
func TestWriteAsksStorageThatFailsOnce(t *testing.T) {
	for name, known := range map[string]bool{"own terms are known": true, "no terms are known": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				e := w.engine()
				w.roles(e, 30)
				verified := mustVerify(t, e, weather, w.terms(weather, "B"))
				change := w.reshape(weather, "B")
				if known {
					change.Terms, change.Token = w.written(weather, w.terms(weather, "B")), verified
				}
				before := w.storageCalls()["terms"]
				w.broken["terms"] = errStorage
				w.mustChange(e, weather, change)
				if n := w.storageCalls()["terms"] - before; n != 1 {
					t.Errorf("storage was asked %d times", n)
				}
				if known {
					if got := mustRead(t, e, weather); got.Shape != "B" {
						t.Errorf("the config's own token is of shape %s", got.Shape)
					}
				}
			})
		})
	}
}

// An invalidation takes no write lock: it may come while a write's terms are being read.
func TestInvalidationDuringAWriteIsLeftToStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		mustRead(t, e, weather)
		change := w.reshape(weather, "B")
		change.Terms = func(context.Context, Name) (*Terms, error) {
			w.with(func(w *world) { w.shapes[weather] = "A" }) // what another node has written since
			e.Invalidate(weather)
			return w.terms(weather, "B"), nil
		}
		w.mustChange(e, weather, change)
		if w.stored(weather).Shape != "A" {
			t.Error("the write deleted the token that storage held")
		}
		if got := mustRead(t, e, weather); got.Shape != "A" {
			t.Errorf("got a token of shape %s", got.Shape)
		}
		w.wantFetches(1)
	})
}

// A reader who came before the config existed must not take the verified token away with its slot.
func TestCreateKeepsItsTokenWhateverAnEarlierReaderSaw(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = time.Millisecond
		e := w.slowEngine()
		w.roles(e, 20)
		verified := mustVerify(t, e, weather, w.terms(weather, "A"))
		w.with(func(w *world) { delete(w.shapes, weather) })
		w.mustChange(e, weather, w.remove(weather))
		reader := reading(t, e, weather)
		defer func() {
			t.Logf("the first reader got %v", <-reader)
			time.Sleep(time.Minute) // storage's late answers
		}()
		synctest.Wait() // it has seen no config
		change := w.reshape(weather, "A")
		change.Token, change.Terms = verified, func(ctx context.Context, n Name) (*Terms, error) {
			if n == weather {
				return w.terms(weather, "A"), nil
			}
			return slowStore{w}.Terms(ctx, n)
		}
		fetched := w.fetches()
		w.mustChange(e, weather, change)
		loads := w.storageCalls()["load"]
		mustRead(t, e, weather)
		w.wantFetches(fetched)
		if n := w.storageCalls()["load"] - loads; n != 0 {
			t.Errorf("the token was loaded %d times, want it in memory", n)
		}
	})
}

// What a failed write has done is seen by the first reader after it, if storage answers at once.
func TestFailedWriteThatTookEffectIsSeenAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		reader := Name{"weather", "reader"}
		w.shapes[reader] = "A"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		names := w.roles(e, 10)
		err := e.Change(t.Context(), weather, Change{Write: func(context.Context) error {
			w.with(func(w *world) {
				w.shapes[weather], w.shapes[reader] = "B", "B"
				for _, gone := range names {
					delete(w.shapes, gone)
				}
			})
			return errStorage
		}})
		if !errors.Is(err, errStorage) {
			t.Fatalf("got %v, want the write's error", err)
		}
		for _, name := range []Name{weather, reader} {
			if got := mustRead(t, e, name); got.Shape != "B" {
				t.Errorf("%s has a token of shape %s", name, got.Shape)
			}
		}
		time.Sleep(LateCommit + time.Second)
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		if n := w.storageCalls()["terms"] - looks; n != 0 {
			t.Errorf("the terms were read %d times after that", n)
		}
	})
}

// A flight that read the terms before a write that failed must not take them for current.
func TestFailedWriteVoidsTheLooksUnderWay(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = time.Millisecond
		e := w.slowEngine()
		got := mustReadLater(t, e, weather)
		synctest.Wait() // the terms have been read
		_ = e.Change(t.Context(), weather, Change{Write: func(context.Context) error {
			w.with(func(w *world) { w.shapes[weather] = "B" })
			return errStorage
		}})
		if answer := <-got; answer.Shape != "B" {
			t.Errorf("got a token of shape %s", answer.Shape)
		}
		time.Sleep(time.Minute)
	})
}

func TestVerifiedTokenThatCannotBeUsedIsNotHandedOut(t *testing.T) {
	for name, trouble := range map[string]func(*world, *Engine) error{
		"terms cannot be read": func(w *world, _ *Engine) error { return errStorage },
		"invalidated": func(w *world, e *Engine) error {
			w.with(func(w *world) { w.shapes[weather] = "C" })
			e.Invalidate(weather)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				e := w.engine()
				mustRead(t, e, weather)
				verified := mustVerify(t, e, weather, w.terms(weather, "B"))
				change := w.reshape(weather, "B")
				change.Token = verified
				change.Terms = func(context.Context, Name) (*Terms, error) {
					err := trouble(w, e)
					return w.terms(weather, "B"), err
				}
				w.mustChange(e, weather, change)
				if got := mustRead(t, e, weather); got.Shape != w.shapes[weather] {
					t.Errorf("got a token of shape %s", got.Shape)
				}
				w.wantFetches(3)
			})
		})
	}
}

func TestVerifiedTokenOfAnotherShapeStaysInStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		mustRead(t, e, weather)
		verified := mustVerify(t, e, weather, w.terms(weather, "B"))
		change := w.reshape(weather, "B")
		change.Token = verified
		w.mustChange(e, weather, change)
		if got := w.stored(weather); got.Shape != "B" {
			t.Errorf("storage holds a token of shape %q", got.Shape)
		}
	})
}

func TestWriteThatFindsARoleGoneLeavesTheOthers(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		names := w.roles(e, 20)
		w.with(func(w *world) { delete(w.shapes, names[0]) })
		w.mustChange(e, weather, w.reshape(weather, "A"))
		for _, name := range names[1:] {
			mustRead(t, e, name)
		}
		w.wantFetches(len(names))
		if n := w.storageCalls()["load"]; n != len(names) {
			t.Errorf("tokens were loaded %d times, want once for each name", n)
		}
	})
}

// New credentials whose terms could not be read at first replace the stored token all the same.
func TestNewCredentialsOutlastTermsThatCannotBeRead(t *testing.T) {
	for name, refresh := range map[string]bool{"new credentials": true, "a write of something else": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				e := w.engine()
				first := mustRead(t, e, weather)
				time.Sleep(time.Minute)
				change := w.reshape(weather, "A")
				change.Refresh = refresh
				w.broken["terms"] = errStorage
				w.mustChange(e, weather, change)
				w.with(func(w *world) { clear(w.broken) })
				if got := mustRead(t, e, weather); got.ID() != first.ID() {
					t.Error("the stored token was not loaded")
				}
				time.Sleep(time.Second)
				if got := mustRead(t, e, weather); (got.ID() != first.ID()) != refresh {
					t.Errorf("refreshed %t, want %t", got.ID() != first.ID(), refresh)
				}
			})
		})
	}
}

func TestVerifiedShapeChangeFetchesOnceForEachRoleThatIsRead(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		read, unread, same := Name{"weather", "read"}, Name{"weather", "unread"}, Name{"weather", "same"}
		for _, name := range []Name{read, unread, same} {
			w.shapes[name] = "A"
			mustRead(t, e, name)
		}
		for range 30 { // a day and more; the idle timeout is a day
			time.Sleep(time.Hour)
			mustRead(t, e, read)
			mustRead(t, e, same)
		}
		if status, _ := e.Status(t.Context(), unread); status.State != StateIdle {
			t.Fatalf("state %s, want idle", status.State)
		}
		w.with(func(w *world) { w.latency = 2 * time.Second })
		go func() { _, _, _ = e.Refresh(t.Context(), read, "") }()
		verified := mustVerify(t, e, weather, w.terms(weather, "B"))
		time.Sleep(time.Minute)
		go func() { _, _, _ = e.Refresh(t.Context(), read, "") }()
		synctest.Wait() // a flight of the role is under way
		w.with(func(w *world) { w.shapes[read], w.shapes[unread] = "B", "B" })
		before, looks := w.fetches(), w.storageCalls()["terms"]
		change := w.reshape(weather, "B")
		change.Token = verified
		w.mustChange(e, weather, change)
		time.Sleep(10 * time.Second)
		w.wantFetches(before + 1)
		// The terms of the four names, and those that the role's flight reads again.
		if n := w.storageCalls()["terms"] - looks; n != 5 {
			t.Errorf("the terms were read %d times, want 5", n)
		}
	})
}

func TestVerifiedTokenOfAnIdleNameIsRefreshedAhead(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(48 * time.Hour)
		verified := mustVerify(t, e, weather, w.terms(weather, "A"))
		before := w.fetches()
		change := w.reshape(weather, "A")
		change.Token = verified
		w.mustChange(e, weather, change)
		time.Sleep(time.Hour)
		w.wantFetches(before + 1)
	})
}

// The slot that the token is put into may be dropped between its look-up and its lock.
func TestSlotOfAVerifiedTokenIsInUse(t *testing.T) {
	w := newWorld(t)
	e := w.engine()
	s := e.slot(weather)
	s.mu.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.ensureSlot(weather)
	}()
	for range 1000 {
		runtime.Gosched()
	}
	s.drop()
	s.mu.Unlock()
	<-done
	if now := e.peek(weather); now == nil || now == s {
		t.Error("there is no slot for the token")
	}
}
