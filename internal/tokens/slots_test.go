package tokens

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// remove deletes a name from storage.
func (w *world) remove(name Name) Change {
	return Change{Write: func(context.Context) error {
		w.with(func(w *world) {
			delete(w.shapes, name)
			delete(w.saved, name)
		})
		return nil
	}}
}

func (w *world) mustChange(e *Engine, name Name, c Change) {
	w.t.Helper()
	if err := e.Change(w.t.Context(), name, c); err != nil {
		w.t.Fatalf("writing %s: %v", name, err)
	}
}

func TestDeleteOfARoleLeavesItsSiblingsToTheirServer(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		names := w.roles(e, 3)
		w.mustChange(e, names[0], w.remove(names[0]))
		for _, name := range names[1:] {
			w.with(func(w *world) { w.shapes[name] = "B" })
		}
		w.mustChange(e, weather, w.reshape(weather, "B"))
		for _, name := range names[1:] {
			if got := mustRead(t, e, name); got.Shape != "B" {
				t.Errorf("after a write of the config %s has a token of shape %s", name, got.Shape)
			}
		}
	})
}

func TestWriteOfARoleLeavesItsSiblingsAlone(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		names := w.roles(e, 3)
		before := w.storageCalls()["terms"]
		w.mustChange(e, names[0], w.reshape(names[0], "B"))
		w.mustChange(e, Name{"weather", "new"}, w.reshape(Name{"weather", "new"}, "A"))
		e.InvalidateToken(Name{"weather", "unread"})
		if n := w.storageCalls()["terms"] - before; n != 1 {
			t.Errorf("the terms of %d names were read, want the written role's", n)
		}
	})
}

func TestFlightOfADeletedNameLeavesItsSuccessorAlone(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = time.Millisecond
		e := w.slowEngine()
		old := reading(t, e, weather)
		synctest.Wait() // storage is being looked into
		change := w.remove(weather)
		change.Terms = func(context.Context, Name) (*Terms, error) { return nil, ErrNotConfigured }
		w.mustChange(e, weather, change)
		change = w.reshape(weather, "B")
		change.Terms = w.written(weather, w.terms(weather, "B"))
		change.Token, _ = e.Verify(t.Context(), weather, w.terms(weather, "B"))
		w.mustChange(e, weather, change)
		looks := w.storageCalls()["terms"]
		if err := <-old; !errors.Is(err, ErrNotConfigured) {
			t.Errorf("the reader from before the delete got %v, want ErrNotConfigured", err)
		}
		if got := mustRead(t, e, weather); got.Shape != "B" {
			t.Errorf("got a token of shape %s", got.Shape)
		}
		w.wantFetches(1)
		if n := w.storageCalls()["terms"] - looks; n != 0 {
			t.Errorf("storage was looked into %d times more", n)
		}
	})
}

func TestUnknownNameOnAPassiveNodeIsLeftToTheActiveNode(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.passive = true
		w.broken["load"] = errStorage
		if _, err := w.engine().Read(t.Context(), weather); !errors.Is(err, errStorage) {
			t.Errorf("got %v, want storage's error", err)
		}
		if _, err := w.engine().Read(t.Context(), Name{Server: "unknown"}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("got %v, want ErrReadOnly", err)
		}
	})
}

func TestWritesThatGiveUpTheirTurnLeaveNoLock(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		slow := Change{Write: func(context.Context) error { time.Sleep(10 * time.Second); return nil }}
		ended := make(chan error, 1)
		go func() { ended <- e.Change(t.Context(), weather, slow) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		written := false
		if err := e.Locked(ctx, "weather", func(context.Context) error { written = true; return nil }); !errors.Is(err, context.DeadlineExceeded) || written {
			t.Errorf("the work under the lock got %v, done %t", err, written)
		}
		err := e.Change(ctx, weather, Change{Write: func(context.Context) error { written = true; return nil }})
		if !errors.Is(err, context.DeadlineExceeded) || written {
			t.Errorf("the second write got %v, written %t; want that the deadline ended it", err, written)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := e.locks.len(); n != 0 {
			t.Errorf("%d locks are left", n)
		}
	})
}

// An orphan is looked at twice: its config may be written between the look and the delete.
func TestTokenWhoseConfigComesBackIsNotDropped(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		first := mustRead(t, w.engine(), weather)
		w.with(func(w *world) { delete(w.shapes, weather) })
		e := w.engine()
		create := w.reshape(weather, "A")
		written := create.Write
		create.Write = func(ctx context.Context) error { time.Sleep(time.Second); return written(ctx) }
		ended := make(chan error, 1)
		go func() { ended <- e.Change(t.Context(), weather, create) }()
		synctest.Wait()
		e.LoadAll() // finds no config, and waits for the write
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := mustRead(t, e, weather); got.ID() != first.ID() {
			t.Error("the stored token was dropped")
		}
		w.mustChange(e, weather, w.reshape(weather, "B")) // the lock is free
	})
}
