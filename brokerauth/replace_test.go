package brokerauth

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"
)

func TestThousandReportsOfOneTokenCostOneRefresh(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.latency = time.Second })
		parallel(1000, func() {
			w.replace(s, access(1))
		})
		w.wantToken(s, 2)
		w.wantCalls(2, 1)
		// Late refusals of a token replaced long ago cost nothing.
		w.replace(s, access(1))
		w.wantCalls(2, 1)
	})
}

// Another broker has already replaced the token.
func TestTokenReplacedElsewhereIsRead(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.number = 2 })
		w.replace(s, access(1))
		w.wantToken(s, 2)
		var held int
		w.with(func(w *world) { held = w.number })
		if held != 2 {
			t.Error("the new token was replaced as well")
		}
	})
}

// A young token is not replaced. It stays in service without a request to Vault each time, and is replaced when it is
// old enough.
func TestYoungTokenIsKept(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.issued, w.cooldown = time.Now(), 10*time.Second
		s := w.source()
		w.hold(s)
		for time.Since(w.issued) < w.cooldown {
			if err := s.Replace(t.Context(), access(1)); !errors.Is(err, ErrNotReplaced) {
				t.Fatalf("got %v, want ErrNotReplaced", err)
			}
			w.wantToken(s, 1)
			pass(100 * time.Millisecond)
		}
		if n := w.called(http.MethodPut); n < 3 || n > 5 {
			t.Errorf("a hundred reports in ten seconds made %d calls, want about four", n)
		}
		pass(windowMost)
		w.replace(s, access(1))
		w.wantToken(s, 2)
	})
}

func TestRefusedRefreshLeavesTheHeldToken(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(*world)
		op      string
		status  int
	}{
		"no permission":    {func(w *world) { w.status[http.MethodPut] = http.StatusForbidden }, "refresh", http.StatusForbidden},
		"no such path":     {func(w *world) { w.status[http.MethodPut] = http.StatusNotFound }, "refresh", http.StatusNotFound},
		"unreachable":      {func(w *world) { w.lost = errLost }, "refresh", 0},
		"another path":     {func(w *world) { w.status[http.MethodPut], w.body = http.StatusOK, `{"data":{}}` }, "refresh", 0},
		"no active node":   {func(w *world) { w.status[http.MethodPut] = http.StatusTemporaryRedirect }, "refresh", 0},
		"no content":       {func(w *world) { w.status[http.MethodPut] = http.StatusNoContent }, "refresh", 0},
		"lost in between":  {func(w *world) { w.status[http.MethodGet] = http.StatusServiceUnavailable }, "read", http.StatusServiceUnavailable},
		"hangs in between": {func(w *world) { w.latency = time.Hour }, "read", 0},
	} {
		t.Run(name, func(t *testing.T) {
			holding(t, func(t *testing.T, w *world, s *Source) {
				w.with(c.trouble)
				failure, ok := errors.AsType[*Error](s.Replace(t.Context(), access(1)))
				if !ok {
					t.Fatal("no *Error")
				}
				if failure.Op != c.op || failure.StatusCode != c.status {
					t.Errorf("%v: status %d of %s, want %d of %s", failure, failure.StatusCode, failure.Op, c.status, c.op)
				}
				w.wantToken(s, 1)
			})
		})
	}
}

// An answer sent before the refresh may hold the refused token. The source reads again.
func TestReadBegunBeforeTheRefreshIsNotEnough(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		pass(200 * time.Second)
		w.with(func(w *world) { w.latency = 5 * time.Second })
		w.wantToken(s, 1) // and starts a read in the background
		pass(time.Second)
		w.replace(s, access(1))
		w.wantToken(s, 2)
		w.wantCalls(3, 1)
	})
}

// A slow read that began before the refresh neither delays the replaced token nor overwrites it.
func TestReadBegunBeforeTheRefreshIsOvertaken(t *testing.T) {
	for name, latency := range map[string]time.Duration{"slow": 20 * time.Second, "hanging": time.Hour} {
		t.Run(name, func(t *testing.T) {
			holding(t, func(t *testing.T, w *world, s *Source) {
				pass(200 * time.Second)
				w.with(func(w *world) { w.latency = latency })
				w.wantToken(s, 1) // and starts a read in the background
				pass(time.Second)
				w.with(func(w *world) { w.latency = 0 })
				before := time.Now()
				if err := s.Replace(t.Context(), access(1)); err != nil || time.Since(before) != 0 {
					t.Errorf("after %s: %v, want a new token at once", time.Since(before), err)
				}
				w.wantToken(s, 2)
				pass(callTimeout)
				w.wantToken(s, 2)
				if err := s.Err(); err != nil {
					t.Errorf("Err returns the error of the overtaken read: %v", err)
				}
				w.wantCalls(3, 1)
			})
		})
	}
}

// If a token is still held right after an outage, this counts as a first failure. The window of many failures, which
// may be long if Vault repeats a token, does not delay the next attempt.
func TestTokenStillHeldAfterAnOutageIsTheFirstOfItsKind(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.ttl = 24*time.Hour, 64800
		s := w.source()
		w.hold(s)
		w.with(func(w *world) { w.status[http.MethodPut] = http.StatusBadGateway })
		for range 300 {
			_ = s.Replace(t.Context(), access(1))
			pass(time.Second)
		}
		w.with(func(w *world) {
			delete(w.status, http.MethodPut)
			w.issued, w.cooldown = time.Now().Add(windowMost), 10*time.Second
		})
		pass(windowMost)
		if err := s.Replace(t.Context(), access(1)); !errors.Is(err, ErrNotReplaced) {
			t.Fatalf("within the cooldown: %v, want ErrNotReplaced", err)
		}
		pass(10 * time.Second)
		if err := s.Replace(t.Context(), access(1)); err != nil {
			t.Errorf("after the cooldown: %v", err)
		}
	})
}

// A caller of a read that a refresh overtakes gets the replaced token as soon as it arrives.
func TestCallerOfTheReadThatIsOvertakenGetsAToken(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = time.Hour
		s := w.source()
		time.AfterFunc(time.Second, func() {
			w.with(func(w *world) { w.latency = 0 })
			w.replace(s, access(1))
		})
		before := time.Now()
		if token, err := s.Token(); err != nil || token.AccessToken != access(2) {
			t.Errorf("got %v, want the second token", err)
		}
		if waited := time.Since(before); waited != time.Second {
			t.Errorf("the caller waited %s, want the second of the replacement", waited)
		}
	})
}

// The refresh and the next read have 30 seconds together.
func TestReplacementIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		writing, latency time.Duration
		op               string
	}{
		"refresh hangs": {time.Hour, 0, "refresh"},
		"both slow":     {20 * time.Second, 20 * time.Second, "read"},
	} {
		t.Run(name, func(t *testing.T) {
			holding(t, func(t *testing.T, w *world, s *Source) {
				w.with(func(w *world) { w.writing, w.latency = c.writing, c.latency })
				before := time.Now()
				err := s.Replace(t.Context(), access(1))
				failure, ok := errors.AsType[*Error](err)
				if !ok || failure.Op != c.op || time.Since(before) != callTimeout {
					t.Errorf("after %s: %v, want the %s to end after %s", time.Since(before), err, c.op, callTimeout)
				}
			})
		})
	}
}

// For some milliseconds after a refresh, a standby answers with the refused token.
func TestReplacedTokenIsReadUntilANodeThatLagsHasIt(t *testing.T) {
	for _, lag := range []time.Duration{time.Millisecond, 104 * time.Millisecond, 900 * time.Millisecond} {
		t.Run(lag.String(), func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.lag = lag
				s := w.source()
				w.hold(s)
				before := time.Now()
				w.replace(s, access(1))
				if took := time.Since(before); took < lag || took > 3*lag+time.Second/40 {
					t.Errorf("it took %s, want not much more than the lag", took)
				}
				w.wantToken(s, 2)
				if n := w.called(http.MethodGet); n < 3 || n > 12 {
					t.Errorf("%d reads, want the first, one that came too early, and a few", n)
				}
			})
		})
	}
}

// If the read returns another broker's still newer token instead of the one that refresh/ named, it is accepted at
// once.
func TestTokenThatIsYetNewerWillDo(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.writing = time.Second
		s := w.source()
		w.hold(s)
		time.AfterFunc(time.Second/2, func() { w.with(func(w *world) { w.number = 3 }) })
		before := time.Now()
		w.replace(s, access(1))
		if took := time.Since(before); took != time.Second {
			t.Errorf("it took %s, want the second of the refresh", took)
		}
		w.wantToken(s, 3)
		w.wantCalls(2, 1)
	})
}

// A standby may lag so far that it answers with the predecessor of the refused token.
func TestTokenBeforeTheRefusedOneWillNotDo(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lag, w.older = 100*time.Millisecond, true
		s := w.source()
		w.hold(s)
		w.replace(s, access(1))
		w.wantToken(s, 2)
	})
}

// A standby that still returns the predecessor of the refused token has not replaced it, however often that is
// reported. When the standby has caught up, the refused token is replaced.
func TestTokenBeforeTheRefusedOneIsNoReplacement(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lag, w.older = 5*time.Second, true
		s := w.source()
		w.hold(s)
		for range 2 {
			if err := s.Replace(t.Context(), access(1)); !errors.Is(err, ErrNotReplaced) {
				t.Errorf("got %v, want ErrNotReplaced", err)
			}
		}
		pass(w.lag)
		w.replace(s, access(1))
		w.wantToken(s, 2)
	})
}

// The clock of the node that obtained the successor may be behind the clock of the previous node.
func TestNamedSuccessorWillDoThoughItSeemsOlder(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.skew = -time.Minute })
		w.replace(s, access(1))
		w.wantToken(s, 2)
	})
}

// A node that keeps returning the old token is asked for a second. Then the caller gets an error.
func TestTokenPathThatLagsBehindIsNotReplaced(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.stuck = true
		s := w.source()
		w.hold(s)
		before := time.Now()
		if err := s.Replace(t.Context(), access(1)); !errors.Is(err, ErrNotReplaced) {
			t.Errorf("got %v, want ErrNotReplaced", err)
		}
		if took := time.Since(before); took < time.Second/2 || took > time.Second {
			t.Errorf("it took %s, want at most a second", took)
		}
		if reads, refreshes := w.called(http.MethodGet), w.called(http.MethodPut); reads < 4 || reads > 12 || refreshes != 1 {
			t.Errorf("%d reads and %d refreshes, want a few reads and one refresh", reads, refreshes)
		}
	})
}

// If Vault keeps a token, the source does not read for a new one.
func TestTokenThatIsKeptIsNotReadAgain(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.issued, w.cooldown = time.Now(), time.Hour
		s := w.source()
		w.hold(s)
		if err := s.Replace(t.Context(), access(1)); !errors.Is(err, ErrNotReplaced) {
			t.Errorf("got %v, want ErrNotReplaced", err)
		}
		w.wantCalls(1, 1)
	})
}

// If a refresh waits for a slow authorization server, Vault answers 504 and the fetch goes on. The source repeats the
// refresh, which joins the fetch, unless a read already returns the new token.
func TestRefreshThatTakesLongIsWaitedFor(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.fetching[http.MethodPut] = 3 })
		before := time.Now()
		parallel(10, func() {
			w.replace(s, access(1))
		})
		if took := time.Since(before); took != 3*pluginWait {
			t.Errorf("it took %s, want %s", took, 3*pluginWait)
		}
		w.wantToken(s, 2)
		if n := w.called(http.MethodPut); n != 4 {
			t.Errorf("%d refreshes, want four", n)
		}
	})
}

func TestRefreshThatTakesLongEndsWithTheTokensAppearance(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.fetching[http.MethodPut] = 1000 })
		time.AfterFunc(7*time.Second, func() { w.with(func(w *world) { w.number = 2 }) })
		before := time.Now()
		w.replace(s, access(1))
		if took := time.Since(before); took != 2*pluginWait {
			t.Errorf("it took %s, want %s", took, 2*pluginWait)
		}
		w.wantToken(s, 2)
	})
}

// A recent failed read does not prevent the read of a replaced token.
func TestReplacedTokenIsReadWithinTheWindow(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		pass(200 * time.Second)
		w.with(func(w *world) { w.lost = errLost })
		w.wantToken(s, 1)
		pass(time.Millisecond)
		if s.Err() == nil {
			t.Fatal("the read has not failed")
		}
		w.with(func(w *world) { w.lost = nil })
		w.replace(s, access(1))
		w.wantToken(s, 2)
	})
}

func TestReporterWhoGivesUpDisturbsNoOther(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.latency = 5 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Replace(ctx, access(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		w.replace(s, access(1))
		w.wantCalls(2, 1)
	})
}

// A refused token is reported to Vault even if the source holds none.
func TestTokenIsReplacedThatIsNotHeld(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		s := w.source()
		w.replace(s, access(1))
		w.wantToken(s, 2)
		w.wantCalls(1, 1)
	})
}

func TestRefreshPathCanBeSet(t *testing.T) {
	w := newWorld(t)
	s := w.newSource(Config{Vault: w.client(), TokenPath: tokenPath, RefreshPath: "elsewhere/refresh/weather"})
	if err := s.Replace(t.Context(), access(1)); err == nil {
		t.Error("no error for a path that does not exist")
	}
	if got := w.lastRequest().URL.Path; got != "/v1/elsewhere/refresh/weather" {
		t.Errorf("%s was written", got)
	}
}
