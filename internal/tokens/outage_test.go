package tokens

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// The outage lasts from one token to the next, with many readers. While the token is valid, all readers get it. Then
// all get an error with the time of the next attempt. Each attempt begins exactly when the previous window ends, and
// the first attempt after the outage succeeds.
func TestWholeOutage(t *testing.T) {
	type outage struct {
		cause   error
		readers int // each reads once a second
		length  time.Duration
		// The i-th window while the token is valid, and the window while readers wait. Each is shortened by up to a
		// quarter.
		held    func(i int) time.Duration
		waiting time.Duration
		exact   time.Duration // the shortest window, unless it is three quarters
	}
	refused := func(i int) time.Duration {
		if i < refusedBlip {
			return min(refusedFirst<<i, waitingMost)
		}
		return 2 * waitingMost << (i - refusedBlip)
	}
	stories(t, map[string]outage{
		"unavailable": {
			&grant.UnavailableError{Status: 503},
			1000, 5 * time.Minute, func(i int) time.Duration { return min(unavailableFirst<<i, unavailableMost) }, waitingMost, 0,
		},
		"asked to wait": {
			&grant.UnavailableError{Status: 429, RetryAfter: 90 * time.Second},
			1000, 5 * time.Minute, func(int) time.Duration { return 99 * time.Second }, 99 * time.Second, 90 * time.Second,
		},
		"refused":              {clientFailures["invalid_client"], 10, 5 * time.Minute, refused, refusedMost, 0},
		"refused for the name": {&grant.RefusedError{Status: 400, Code: "invalid_scope"}, 10, 5 * time.Minute, refused, refusedMost, 0},
	}, func(t *testing.T, w *world, e *Engine, tc outage) {
		w.lifetime = time.Minute
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.refuse = tc.cause })

		ctx, stop := context.WithCancel(t.Context())
		var done sync.WaitGroup
		for i := range tc.readers {
			done.Go(func() {
				time.Sleep(time.Duration(i) * time.Second / time.Duration(tc.readers))
				readThroughOutage(ctx, t, e, held.Token)
			})
		}
		var nexts []FailureStatus // with the next attempt last shown by the status
		for begun := time.Now(); time.Since(begun) < tc.length; time.Sleep(50 * time.Millisecond) {
			nexts = nextAttempts(t, e, nexts)
		}
		synctest.Wait() // an attempt that ends at this instant has failed
		w.with(func(w *world) { w.refuse = nil })
		nexts = nextAttempts(t, e, nexts) // an attempt under way will succeed
		last := nexts[len(nexts)-1].NextAttempt
		time.Sleep(time.Until(last) + 2*w.latency)
		wantOther(t, e, weather, held.ID())
		if f := wantState(t, e, weather, StateOK).Failure; f != nil {
			t.Errorf("after the outage the status shows %+v", f)
		}
		stop()
		done.Wait()

		w.mu.Lock()
		defer w.mu.Unlock()
		attempts := w.begun[1:] // except the request for the held token
		if len(attempts) != len(nexts)+1 {
			t.Fatalf("%d attempts, want one after each of %d windows", len(attempts), len(nexts))
		}
		if !attempts[0].Equal(held.RefreshAt) {
			t.Errorf("the first attempt began at %s, want %s", attempts[0], held.RefreshAt)
		}
		for i, failure := range nexts {
			next, most := failure.NextAttempt, tc.held(i)
			least := max(most*3/4, tc.exact)
			if attempts[i+1].After(held.Expires) {
				most = min(most, max(tc.waiting, tc.exact))
				least = min(least, max(tc.waiting*3/4, tc.exact))
			}
			if attempts[i].Before(held.Expires) && next.Before(held.Expires) && attempts[i+1].After(held.Expires) {
				// After the token's end, the next reader causes the attempt earlier.
				next, most = attempts[i+1], tc.held(i)
				if late := next.Sub(held.Expires); late > time.Second/time.Duration(tc.readers) {
					t.Errorf("the attempt after the token's end came %s after it", late)
				}
			}
			if !attempts[i+1].Equal(next) {
				t.Errorf("attempt %d began at %s, want %s", i+2, attempts[i+1], next)
			}
			if window := attempts[i+1].Sub(attempts[i]) - w.latency; window < least || window > most {
				t.Errorf("window %d lasted %s, want %s to %s", i+1, window, least, most)
			}
		}
	})
}

// readThroughOutage reads once a second until ctx ends, and checks each answer.
func readThroughOutage(ctx context.Context, t *testing.T, e *Engine, held *Token) {
	t.Helper()
	for ; ctx.Err() == nil; time.Sleep(time.Second) {
		begun := time.Now()
		answer, err := e.Read(t.Context(), weather)
		now := time.Now()
		failed, ok := errors.AsType[*FailedError](err)
		switch {
		case begun.Before(held.Expires):
			if err != nil || answer.ID() != held.ID() || !now.Equal(begun) {
				t.Errorf("a reader waited %s for %v, want the held token at once", now.Sub(begun), err)
			}
		case err == nil && !answer.ValidAt(now):
			t.Errorf("an expired token was handed out at %s", now)
		case err != nil && (!ok || !failed.NextAttempt.After(now)):
			t.Errorf("a reader got %v at %s, want a FailedError with the next attempt", err, now)
		}
	}
}

// nextAttempts records the next attempt that the status shows after each failure. Once the token has expired, it may
// move to an earlier time.
func nextAttempts(t *testing.T, e *Engine, nexts []FailureStatus) []FailureStatus {
	t.Helper()
	status, err := e.Status(t.Context(), weather)
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(status.LastRead) > 3*time.Second {
		t.Errorf("last read %s ago", time.Since(status.LastRead))
	}
	f := status.Failure
	if want := map[bool]State{true: StateFailing, false: StateDown}[status.Token != nil]; f != nil && status.State != want {
		t.Errorf("state %s, want %s", status.State, want)
	}
	switch {
	case f == nil:
	case len(nexts) > 0 && nexts[len(nexts)-1].At.Equal(f.At):
		nexts[len(nexts)-1] = *f
	default:
		nexts = append(nexts, *f)
	}
	return nexts
}

// A reader's wait depends neither on the number of readers nor on the request's timeout. The request goes on, and
// later readers get its outcome.
func TestReadersOfAHangingServerWaitFiveSeconds(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.hosts[weather], w.hanging["dead"] = "dead", true
		begun := time.Now()
		leaves, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		parallel(100, func(i int) {
			ctx := t.Context()
			if i%10 == 0 {
				ctx = leaves
			} else {
				time.Sleep(time.Second) // the reader that leaves is the first
			}
			came := time.Now()
			var err error
			if i%2 == 0 {
				_, err = e.Read(ctx, weather)
			} else {
				_, _, err = e.Refresh(ctx, weather, "")
			}
			waited, isWait := errors.AsType[*WaitError](err)
			if !isWait || !errors.Is(err, context.DeadlineExceeded) || waited.Name != weather {
				t.Errorf("got %v, want a WaitError", err)
			}
			if waited := time.Since(came); ctx != leaves && waited != waitMost {
				t.Errorf("a reader waited %s, want %s", waited, waitMost)
			}
		})
		time.Sleep(time.Until(begun.Add(10 * time.Second)))
		w.wantFetches(1)
		synctest.Wait()
		if status, err := e.Status(t.Context(), weather); err != nil || status.Failure == nil || status.Failure.Count != 1 {
			t.Errorf("after the request's own timeout: %+v, %v", status, err)
		}
	})
}

// The request under way fails by its own timeout. If callers wait, the next request follows at once.
func TestServerThatHungServesSoonAfterItsReturn(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.hosts[weather], w.hanging["dead"] = "dead", true
		begun := time.Now()
		var served time.Time
		time.AfterFunc(100*time.Second, func() { w.with(func(w *world) { w.hanging["dead"] = false }) })
		for range 400 {
			if _, err := e.Read(t.Context(), weather); err == nil {
				served = time.Now()
				break
			}
			time.Sleep(time.Second)
		}
		if after := served.Sub(begun.Add(100 * time.Second)); served.IsZero() || after > 12*time.Second {
			t.Errorf("the first token came %s after the server's return", after)
		}
		if n := w.fetches(); n > 13 {
			t.Errorf("%d requests in 110 s that each took 10 s", n)
		}
	})
}

// The server answers after its first readers were told to read again. It gets one request.
func TestSlowAnswerServesTheReaderWhoComesAgain(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = 7 * time.Second
		wantError(t, e, weather, context.DeadlineExceeded)
		mustRead(t, e, weather)
		w.wantFetches(1)
	})
}
