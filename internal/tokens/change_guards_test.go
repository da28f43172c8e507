package tokens

import (
	"context"
	"errors"
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
		verified, err := e.Verify(t.Context(), weather, w.terms(weather, "A"))
		if err != nil {
			t.Fatal(err)
		}
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
				verified, err := e.Verify(t.Context(), weather, w.terms(weather, "B"))
				if err != nil {
					t.Fatal(err)
				}
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
		verified, err := e.Verify(t.Context(), weather, w.terms(weather, "A"))
		if err != nil {
			t.Fatal(err)
		}
		w.with(func(w *world) { delete(w.shapes, weather) })
		w.mustChange(e, weather, w.remove(weather))
		reader := make(chan error, 1)
		go func() {
			_, err := e.Read(t.Context(), weather)
			reader <- err
		}()
		defer func() {
			<-reader
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
