package tokens

import (
	"context"
	"fmt"
	"testing"
	"time"
)

func TestFailedSaveIsServedFromMemoryAndSavedLater(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.broken["save"] = errStorage
		held := mustRead(t, e, weather)
		if status, _ := e.Status(t.Context(), weather); !status.Unsaved {
			t.Error("status does not show that the token is not saved")
		}
		time.Sleep(10 * time.Second)
		w.with(func(w *world) { delete(w.broken, "save") })
		time.Sleep(10 * time.Second)
		w.wantStored(weather, held.AccessToken)
		if status, _ := e.Status(t.Context(), weather); status.Unsaved {
			t.Error("status still shows an unsaved token")
		}
		w.wantFetches(1)
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

// If storing a token fails, the save is retried, unless the token is gone by then. Close ends the retries.
func TestRetriedSaveFindsItsTokenGone(t *testing.T) {
	stories(t, map[string]func(*world, *Engine){
		"deleted": func(w *world, e *Engine) { mustChange(w.t, e, weather, w.remove(weather)) },
		"dropped": func(w *world, e *Engine) {
			mustChange(w.t, e, weather, w.reshape(weather, "B"))
			if status := wantState(w.t, e, weather, StateEmpty); status.Unsaved || status.Token != nil {
				w.t.Errorf("status %+v, want no token in memory and none to be saved", status)
			}
		},
		"closed": func(w *world, e *Engine) {
			slow := Change{Write: func(context.Context) error { time.Sleep(3 * time.Second); return ErrConflict }}
			go func() { _ = e.Change(w.t.Context(), weather, slow) }()
			time.Sleep(2 * time.Second)
			e.Close()
			time.Sleep(2 * time.Second)
		},
	}, func(t *testing.T, w *world, e *Engine, end func(*world, *Engine)) {
		w.broken["save"] = errStorage
		mustRead(t, e, weather)
		w.with(func(w *world) { clear(w.broken) })
		end(w, e)
		time.Sleep(time.Minute)
		w.wantCalls("save", 1)
	})
}
