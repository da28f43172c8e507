package tokens

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// atRest checks that the engine has neither a timer nor a flight nor, which the bubble's
// end would find out otherwise, a goroutine.
func atRest(t *testing.T, e *Engine, when string) {
	t.Helper()
	synctest.Wait()
	e.slots.Range(func(name, v any) bool {
		s := v.(*slot)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.timer != nil || s.flight.Load() != nil {
			t.Errorf("%s %v has a timer (%t) or a flight (%t)", when, name, s.timer != nil, s.flight.Load() != nil)
		}
		return true
	})
	ended := make(chan struct{})
	go func() {
		e.work.Wait()
		close(ended)
	}()
	synctest.Wait()
	select {
	case <-ended:
	default:
		t.Errorf("%s a goroutine of the engine runs", when)
	}
}

func TestPassiveNodeRunsNoTimersAndNoGoroutines(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		reader := Name{"weather", "reader"}
		w.shapes[reader], w.shapes[Name{Server: "gone"}] = "R", "G"
		active := w.engine()
		held := mustRead(t, active, weather)
		mustRead(t, active, reader)
		mustRead(t, active, Name{Server: "gone"})
		active.Close()
		w.with(func(w *world) {
			delete(w.shapes, Name{Server: "gone"})
			w.shapes[Name{Server: "empty"}] = "E"
			w.passive = true
		})

		e := w.engine()
		e.LoadAll()
		atRest(t, e, "after loading")
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		atRest(t, e, "after reads")
		time.Sleep(cooldown)
		if _, err := e.Read(t.Context(), Name{Server: "empty"}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a read that needs a fetch gave %v, want ErrReadOnly", err)
		}
		for _, rejected := range []string{"", held.ID(), "0123456789abcdef"} { // the active node may hold another one
			if _, _, err := e.Refresh(t.Context(), weather, rejected); !errors.Is(err, ErrReadOnly) {
				t.Errorf("a refresh of %q gave %v, want ErrReadOnly", rejected, err)
			}
		}
		atRest(t, e, "after refreshes")
		for _, name := range []Name{weather, reader, {Server: "empty"}, {Server: "nobody"}} {
			_, _ = e.Status(t.Context(), name)
			e.Invalidate(name)
		}
		atRest(t, e, "after invalidation")
		time.Sleep(time.Until(held.RefreshAt) + time.Minute)
		if _, err := e.Read(t.Context(), weather); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a read of a token that is due gave %v, want ErrReadOnly", err)
		}
		atRest(t, e, "after a read of a token that is due")

		before := fmt.Sprint(w.storageCalls())
		time.Sleep(24 * time.Hour)
		atRest(t, e, "after a day")
		if after := fmt.Sprint(w.storageCalls()); after != before {
			t.Errorf("in a day storage calls went from %s to %s", before, after)
		}
		if _, err := e.Read(t.Context(), weather); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a read of an expired token gave %v, want ErrReadOnly", err)
		}
		if calls := w.storageCalls(); calls["save"] != 3 || calls["delete"] != 0 {
			t.Errorf("storage calls %v, want no write but the active node's three", calls)
		}
		if w.stored(Name{Server: "gone"}).AccessToken == "" {
			t.Error("a passive node deleted a stored token")
		}
		w.wantFetches(3)
	})
}

// The timers of an engine that becomes passive fire once more, and do nothing.
func TestTimersEndWhenANodeBecomesPassive(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.passive = true })
		time.Sleep(time.Until(held.RefreshAt) + time.Second)
		atRest(t, e, "after the time of the refresh")
		if _, err := e.Read(t.Context(), weather); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a read of a token that is due gave %v, want ErrReadOnly", err)
		}
		w.with(func(w *world) { w.passive = false })
		mustRead(t, e, weather) // overdue: it takes the refreshing up again
		time.Sleep(time.Second)
		if got := mustRead(t, e, weather); got.ID() == held.ID() {
			t.Error("the token was not refreshed once the node was active again")
		}
		w.wantFetches(2)
		time.Sleep(time.Hour)
		w.wantFetches(3)
	})
}

// A read in reportEvery is forwarded, so that the active node learns of the reader. The others get the token
// that is held: they do not depend on there being an active node, and cost no storage.
func TestPassiveNodeForwardsFewReadsOfADueToken(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		active := w.engine()
		held := mustRead(t, active, weather)
		active.Close()
		w.with(func(w *world) { w.passive = true })
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(time.Until(held.RefreshAt) + time.Minute)
		before := fmt.Sprint(w.storageCalls())
		const rounds, reads = 4, 100
		for range rounds {
			forwarded := 0
			for range reads {
				switch answer, err := e.Read(t.Context(), weather); {
				case errors.Is(err, ErrReadOnly):
					forwarded++
				case err != nil:
					t.Fatal(err)
				case answer.ID() != held.ID():
					t.Fatalf("the token is %s, want %s", answer.ID(), held.ID())
				}
				synctest.Wait()
				time.Sleep(reportEvery / reads)
			}
			if forwarded != 1 {
				t.Errorf("%d of %d reads in %s were forwarded, want 1", forwarded, reads, reportEvery)
			}
		}
		if after := fmt.Sprint(w.storageCalls()); after != before {
			t.Errorf("storage calls went from %s to %s", before, after)
		}
		time.Sleep(time.Until(held.Expires))
		for range reads {
			if _, err := e.Read(t.Context(), weather); !errors.Is(err, ErrReadOnly) {
				t.Fatalf("a read of an expired token gave %v, want ErrReadOnly", err)
			}
		}
	})
}
