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

// TestWholeOutage: from a token that is held to the next one, whatever many readers do. While the
// token is valid all get it, then all are told of the next attempt; each attempt begins exactly when
// the window of the one before ends, and the first after the outage is the last.
func TestWholeOutage(t *testing.T) {
	for _, tc := range []struct {
		name    string
		cause   error
		readers int // each reads once a second
		length  time.Duration
		// The windows double from first to most, less up to a quarter; or are from first to most.
		first, most time.Duration
		doubling    bool
	}{
		{
			"unavailable", &grant.UnavailableError{Status: 503},
			1000, 5 * time.Minute, unavailableFirst, unavailableMost, true,
		},
		{
			"asked to wait", &grant.UnavailableError{Status: 429, RetryAfter: 90 * time.Second},
			1000, 5 * time.Minute, 90 * time.Second, 99 * time.Second, false,
		},
		{
			"refused", &grant.RefusedError{Status: 401, Code: "invalid_client"},
			10, 2 * time.Hour, refusedFirst, refusedMost, true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.lifetime = time.Minute
				e := w.engine()
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
				var nexts []time.Time // the next attempt that the status told, after each
				for begun := time.Now(); time.Since(begun) < tc.length; time.Sleep(50 * time.Millisecond) {
					nexts = nextAttempts(t, e, nexts)
				}
				synctest.Wait() // an attempt that ends at this instant has failed
				w.with(func(w *world) { w.refuse = nil })
				nexts = nextAttempts(t, e, nexts) // an attempt may be under way, and will succeed
				last := nexts[len(nexts)-1]
				time.Sleep(time.Until(last) + 2*w.latency)
				if got := mustRead(t, e, weather); got.ID() == held.ID() {
					t.Error("the old token was handed out")
				}
				stop()
				done.Wait()

				w.mu.Lock()
				defer w.mu.Unlock()
				attempts := w.begun[1:] // without the one that brought the held token
				if len(attempts) != len(nexts)+1 {
					t.Fatalf("%d attempts, want one after each of %d windows", len(attempts), len(nexts))
				}
				if !attempts[0].Equal(held.RefreshAt) {
					t.Errorf("the first attempt began at %s, want %s", attempts[0], held.RefreshAt)
				}
				for i, next := range nexts {
					if !attempts[i+1].Equal(next) {
						t.Errorf("attempt %d began at %s, want %s", i+2, attempts[i+1], next)
					}
					least, most := tc.first, tc.most
					if tc.doubling {
						most = min(tc.first<<i, tc.most)
						least = most * 3 / 4
					}
					if window := next.Sub(attempts[i]) - w.latency; window < least || window > most {
						t.Errorf("window %d lasted %s, want %s to %s", i+1, window, least, most)
					}
				}
			})
		})
	}
}

// readThroughOutage reads once a second until ctx ends, and checks what it gets.
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

// nextAttempts adds the next attempt that the status tells, where that is a new one.
func nextAttempts(t *testing.T, e *Engine, nexts []time.Time) []time.Time {
	t.Helper()
	status, err := e.Status(t.Context(), weather)
	if err != nil {
		t.Fatal(err)
	}
	if f := status.Failure; f != nil && (len(nexts) == 0 || !nexts[len(nexts)-1].Equal(f.NextAttempt)) {
		nexts = append(nexts, f.NextAttempt)
	}
	return nexts
}

// TestReadersWhoGiveUpOnAHangingServerDisturbNobody: not even when the one who caused the request
// gives up does that end, nor is the server asked again for those who come after.
func TestReadersWhoGiveUpOnAHangingServerDisturbNobody(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.hosts[weather], w.hanging["dead"] = "dead", true
		e := w.engine()
		begun := time.Now()
		impatient, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var mu sync.Mutex
		told := map[time.Time]int{}
		parallel(100, func(i int) {
			if i%10 == 0 {
				if _, err := e.Read(impatient, weather); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the caller's own deadline", err)
				}
				return
			}
			time.Sleep(time.Second) // so that one of the others is the first
			failed := mustFail(t, e, weather)
			if waited := time.Since(begun); waited != 10*time.Second {
				t.Errorf("a reader was answered after %s, want the request's own timeout", waited)
			}
			mu.Lock()
			defer mu.Unlock()
			told[failed.NextAttempt]++
		})
		if len(told) != 1 {
			t.Errorf("readers of one request were told of %d next attempts", len(told))
		}
		if failed := mustFail(t, e, weather); told[failed.NextAttempt] == 0 {
			t.Error("the failure was not remembered")
		}
		w.wantFetches(1)
	})
}
