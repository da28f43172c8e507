package tokens

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// atRest checks that the engine has no timers, flights or goroutines.
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
	story(t, func(t *testing.T, w *world, active *Engine) {
		gone, empty := Name{Server: "gone"}, Name{Server: "empty"}
		w.shapes[reader], w.shapes[gone] = "R", "G"
		held := mustRead(t, active, weather)
		mustRead(t, active, reader)
		mustRead(t, active, gone)
		active.Close()
		w.with(func(w *world) {
			delete(w.shapes, gone)
			w.shapes[empty], w.passive = "E", true
		})

		e := w.engine()
		e.LoadAll()
		atRest(t, e, "after loading")
		wantToken(t, e, weather, held.ID())
		mustRead(t, e, reader)
		atRest(t, e, "after reads")
		if _, err := e.Verify(t.Context(), weather, &Terms{}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a verification returned %v, want ErrReadOnly", err)
		}
		time.Sleep(cooldown)
		wantError(t, e, empty, ErrReadOnly)
		for _, rejected := range []string{"", held.ID(), "0123456789abcdef"} { // the active node may hold another token
			if _, _, err := e.Refresh(t.Context(), weather, rejected); !errors.Is(err, ErrReadOnly) {
				t.Errorf("a refresh of %q returned %v, want ErrReadOnly", rejected, err)
			}
		}
		atRest(t, e, "after refreshes")
		for _, name := range []Name{weather, reader, empty, {Server: "nobody"}} {
			_, _ = e.Status(t.Context(), name)
			e.Invalidate(name)
		}
		atRest(t, e, "after invalidation")
		time.Sleep(time.Until(held.RefreshAt) + time.Minute)
		wantError(t, e, weather, ErrReadOnly)
		atRest(t, e, "after a read of a token that is due")

		before := w.storageCalls()
		time.Sleep(24 * time.Hour)
		atRest(t, e, "after a day")
		w.wantNoCallsSince(before)
		wantError(t, e, weather, ErrReadOnly)
		w.wantCalls("save", 3) // from the active node
		w.wantCalls("delete", 0)
		w.wantFetches(3)
	})
}

// When an engine becomes passive, each timer fires once more and does nothing.
func TestTimersEndWhenANodeBecomesPassive(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.passive = true })
		time.Sleep(time.Until(held.RefreshAt) + time.Second)
		atRest(t, e, "after the time of the refresh")
		wantError(t, e, weather, ErrReadOnly)
		w.with(func(w *world) { w.passive = false })
		mustRead(t, e, weather) // the token is overdue, so this read starts its refreshes
		time.Sleep(time.Second)
		wantOther(t, e, weather, held.ID())
		w.wantFetches(2)
		time.Sleep(time.Hour)
		w.wantFetches(3)
	})
}

// One read per reportEvery is forwarded, so that the active node learns of the reader. Other reads return the held
// token without storage calls, even if the cluster has no active node.
func TestPassiveNodeForwardsFewReadsOfADueToken(t *testing.T) {
	story(t, func(t *testing.T, w *world, active *Engine) {
		held := mustRead(t, active, weather)
		active.Close()
		w.with(func(w *world) { w.passive = true })
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(time.Until(held.RefreshAt) + time.Minute)
		before := w.storageCalls()
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
		w.wantNoCallsSince(before)
		time.Sleep(time.Until(held.Expires))
		for range reads {
			wantError(t, e, weather, ErrReadOnly)
		}
	})
}
