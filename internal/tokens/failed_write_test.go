package tokens

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailedWriteIsLookedIntoAndHeldTokensServe(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		names := w.roles(e, 20)
		n := w.fetches()
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		before := time.Now()
		failChange(t, e, w.effective(map[Name]string{weather: "B"}))
		if took := time.Since(before); took != 0 {
			t.Errorf("the write took %s", took)
		}
		mustRead(t, e, weather)
		mustRead(t, e, names[7])
		time.Sleep(10 * time.Minute)
		mustRead(t, e, weather)
		w.wantFetches(n)
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(time.Minute) // before the token's refresh is due
		wantShape(t, e, weather, "B")
	})
}

func TestFailedWriteThatComesThroughLaterIsNoticed(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		writer := Name{"weather", "writer"}
		w.shapes[reader], w.shapes[writer] = "A", "A"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		failChange(t, e, w.lateWrite(map[Name]string{weather: "B", reader: "B", writer: "B"}))
		time.Sleep(5 * time.Second)
		for _, name := range []Name{weather, reader, writer} { // the first read of writer
			wantShape(t, e, name, "A")
		}
		time.Sleep(LateCommit)
		for _, name := range []Name{weather, reader, writer} {
			wantShape(t, e, name, "B")
		}
		w.wantFetches(6)
		calls := w.storageCalls()["terms"]
		time.Sleep(30 * time.Minute)
		w.wantCalls("terms", calls)
	})
}

func TestFailedWriteLeavesTheBackoff(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refuse = clientFailures["invalid_client"]
		before := mustFail(t, e, weather)
		failChange(t, e, w.effective(nil))
		if after := mustFail(t, e, weather); !after.NextAttempt.Equal(before.NextAttempt) {
			t.Errorf("the next attempt is at %s, want %s as before the write", after.NextAttempt, before.NextAttempt)
		}
		w.wantFetches(1)
	})
}

// Otherwise the next reader would get the token on the old terms.
func TestFailedWriteIsLookedIntoWithoutReaders(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.idle = time.Minute
		mustRead(t, e, weather)
		time.Sleep(46 * time.Minute) // the token is refreshed once
		w.wantFetches(2)
		due := e.peek(weather).held.Load().RefreshAt
		time.Sleep(time.Until(due) - 5*time.Second)
		failChange(t, e, w.lateWrite(map[Name]string{weather: "B"}))
		time.Sleep(LateCommit + time.Second)
		w.wantFetches(2)
		wantShape(t, e, weather, "B")
	})
}

// If storage answers before the write is final, the terms are read then, and again at the end.
func TestFailedWriteIsLookedIntoWhenStorageIsBack(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		w.broken["terms"] = errStorage
		_ = e.Change(t.Context(), weather, Change{Write: func(context.Context) error {
			w.with(func(w *world) { w.shapes[weather] = "B" })
			return errStorage
		}})
		time.Sleep(3 * time.Second)
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(LateCommit / 2)
		wantShape(t, e, weather, "B")
	})
}

// If storage answers at once, the first reader after a failed write sees the write's effect.
func TestFailedWriteThatTookEffectIsSeenAtOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.shapes[reader] = "A"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		names := w.roles(e, 10)
		failChange(t, e, Change{Write: func(context.Context) error {
			w.with(func(w *world) {
				w.shapes[weather], w.shapes[reader] = "B", "B"
				for _, gone := range names {
					delete(w.shapes, gone)
				}
			})
			return errStorage
		}})
		wantShape(t, e, weather, "B")
		wantShape(t, e, reader, "B")
		time.Sleep(LateCommit + time.Second)
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		w.wantCalls("terms", looks)
	})
}

// A flight that read the terms before a failed write must read them again.
func TestFailedWriteVoidsTheLooksUnderWay(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		w.latency = time.Millisecond
		e := w.slowEngine()
		got := wantReadLater(t, e, weather)
		synctest.Wait() // the terms have been read
		failChange(t, e, w.effective(map[Name]string{weather: "B"}))
		wantAnswer(t, <-got, "B")
	})
}

// A failed write makes the terms uncertain, not the token. When the terms can no longer change, they are read once.
func TestLookAfterAFailedWriteReadsNoMoreThanItMust(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		first := mustRead(t, e, weather)
		loads := w.storageCalls()["load"]
		w.broken["terms"] = errStorage
		failChange(t, e, w.lateWrite(nil))
		wantToken(t, e, weather, first.ID())
		time.Sleep(LateCommit + time.Second)
		w.with(func(w *world) { clear(w.broken) })
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		w.wantCalls("terms", looks+1)
		w.wantCalls("load", loads)
		w.wantFetches(1)
	})
}
