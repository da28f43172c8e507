package tokens

import (
	"context"
	"testing"
)

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
