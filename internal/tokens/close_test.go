package tokens

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestClosedEngineStartsNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.roles(e, 10)
		ran := false
		if !e.Go(func(context.Context) { ran = true }) {
			t.Error("an open engine refuses work")
		}
		if synctest.Wait(); !ran {
			t.Error("the work was not done")
		}
		begun := time.Now()
		e.Close()
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("closing an engine without work took %s", waited)
		}
		if e.Go(func(context.Context) { t.Error("work began after the engine was closed") }) {
			t.Error("a closed engine accepts work")
		}
		for _, name := range names {
			if e.peek(name).hasTimer() {
				t.Errorf("%s still has a timer", name)
			}
		}
		time.Sleep(24 * time.Hour)
		w.wantFetches(len(names))
		wantError(t, e, names[0], ErrClosed)
		wantError(t, e, names[0], ErrClosed)
	})
}

// Close cancels a refresh, which counts as a storage failure. Other storage failures are retried.
func TestCloseDuringARefreshLeavesNoTimer(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.hanging[""] = true })
		time.Sleep(time.Until(first.RefreshAt) + time.Second)
		s := e.peek(weather)
		if s.flight.Load() == nil {
			t.Fatal("no refresh is under way")
		}
		e.Close()
		synctest.Wait()
		if s.flight.Load() != nil || s.hasTimer() {
			t.Error("the closed engine still has a flight or a timer")
		}
	})
}

func TestCloseEndsTheLoadingOfTokens(t *testing.T) {
	story(t, func(t *testing.T, w *world, first *Engine) {
		w.latency = time.Millisecond
		names := w.roles(first, 100)
		first.Close()
		e := w.slowEngine()
		e.LoadAll()
		time.Sleep(1250 * time.Millisecond)
		begun := time.Now()
		e.Close()
		if waited := time.Since(begun); waited != closeTimeout {
			t.Errorf("Close waited %s for the work under way, want %s", waited, closeTimeout)
		}
		before := w.storageCalls()
		if n := before["terms"] - len(names); n > 2*loaders {
			t.Errorf("%d terms were read, want at most %d names at a time", n, loaders)
		}
		time.Sleep(time.Minute)
		after := w.storageCalls()
		if n := after["terms"] + after["load"] - before["terms"] - before["load"]; n > loaders {
			t.Errorf("%d storage calls after the engine was closed, want at most one for each of the %d names under way", n, loaders)
		}
	})
}

func TestAttemptEndsItsContext(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		if w.attempt.Err() == nil {
			t.Error("the engine keeps the context of an attempt that has ended")
		}
	})
}

// Before a flight stores a token, and after a change has made it void, it waits for the write lock.
func TestCloseEndsTheWaitForAWrite(t *testing.T) {
	stories(t, map[string]func(*Change){
		"to be stored": func(c *Change) {
			*c = taking(3*time.Second, *c)
		},
		"to begin again": func(c *Change) {
			terms := c.Terms
			c.Terms = func(ctx context.Context, n Name) (*Terms, error) { time.Sleep(3 * time.Second); return terms(ctx, n) }
		},
	}, func(t *testing.T, w *world, e *Engine, slow func(*Change)) {
		read, written := reading(t, e, weather), make(chan error, 1)
		synctest.Wait()
		change := w.change(weather, "B")
		slow(&change)
		go func() { written <- e.Change(t.Context(), weather, change) }()
		time.Sleep(time.Second)
		begun := time.Now()
		e.Close()
		if err := <-read; !errors.Is(err, ErrClosed) || time.Since(begun) > closeTimeout {
			t.Errorf("the reader got %v after %s, want ErrClosed at once", err, time.Since(begun))
		}
		t.Logf("the write ended with %v", <-written)
	})
}

func TestCloseWaitsForTheLastLoads(t *testing.T) {
	story(t, func(t *testing.T, w *world, first *Engine) {
		mustRead(t, first, weather)
		e := w.slowEngine()
		e.LoadAll()
		time.Sleep(time.Second - closeTimeout/2)
		begun := time.Now()
		e.Close()
		if waited := time.Since(begun); waited != closeTimeout/2 {
			t.Errorf("Close waited %s, want the %s of the load", waited, closeTimeout/2)
		}
	})
}

func TestCloseEndsAHangingFetchAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = time.Hour
		read, verified := reading(t, e, weather), make(chan error, 1)
		go func() {
			_, err := e.Verify(t.Context(), weather, w.terms(weather, "A"))
			verified <- err
		}()
		synctest.Wait()
		before := time.Now()
		e.Close()
		for _, err := range []error{<-read, <-verified} {
			if took := time.Since(before); !errors.Is(err, ErrClosed) || took != 0 {
				t.Errorf("a caller got %v after %s, want ErrClosed at once", err, took)
			}
		}
		wantError(t, e, weather, ErrClosed)
		w.wantFetches(2)
	})
}
