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
	return Change{Terms: w.Terms, Write: func(context.Context) error {
		w.with(func(w *world) { delete(w.shapes, name); delete(w.saved, name) })
		return nil
	}}
}

func TestDeleteOfARoleLeavesItsSiblingsToTheirServer(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.roles(e, 3)
		mustChange(t, e, names[0], w.remove(names[0]))
		for _, name := range names[1:] {
			w.with(func(w *world) { w.shapes[name] = "B" })
		}
		mustChange(t, e, weather, w.reshape(weather, "B"))
		for _, name := range names[1:] {
			wantShape(t, e, name, "B")
		}
	})
}

func TestWriteOfARoleLeavesItsSiblingsAlone(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.roles(e, 3)
		before := w.storageCalls()["terms"]
		mustChange(t, e, names[0], w.change(names[0], "B"))
		mustChange(t, e, Name{"weather", "new"}, w.change(Name{"weather", "new"}, "A"))
		e.InvalidateToken(Name{"weather", "unread"})
		w.wantCalls("terms", before)
	})
}

func TestFlightOfADeletedNameLeavesItsSuccessorAlone(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		w.latency = time.Millisecond
		e := w.slowEngine()
		old := reading(t, e, weather)
		synctest.Wait() // storage is being read
		change := w.remove(weather)
		change.Terms = func(context.Context, Name) (*Terms, error) { return nil, ErrNotConfigured }
		mustChange(t, e, weather, change)
		mustChange(t, e, weather, w.verified(e, weather, "B"))
		looks := w.storageCalls()["terms"]
		if err := <-old; !errors.Is(err, ErrNotConfigured) {
			t.Errorf("the reader from before the delete got %v, want ErrNotConfigured", err)
		}
		wantShape(t, e, weather, "B")
		w.wantFetches(1)
		w.wantCalls("terms", looks)
	})
}

func TestUnknownNameOnAPassiveNodeIsLeftToTheActiveNode(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.passive, w.broken["load"] = true, errStorage
		wantError(t, e, weather, errStorage)
		wantError(t, e, Name{Server: "unknown"}, ErrReadOnly)
	})
}

func TestWritesThatGiveUpTheirTurnLeaveNoLock(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		wait := changing(t, e, weather, w.slowWrite(10*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		write := func(context.Context) error { t.Error("the work was done"); return nil }
		for _, err := range []error{e.Locked(ctx, "weather", write), e.Change(ctx, weather, Change{Write: write})} {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the error of the deadline", err)
			}
		}
		wait()
		if n := e.locks.len(); n != 0 {
			t.Errorf("%d locks are left", n)
		}
	})
}
