package tokens

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Names of a client may wait for a minute while their tokens are valid. A successful write, or a broker's successful
// refresh, ends the wait of all.
func TestClientThatWorksAgainRefreshesItsNamesAtOnce(t *testing.T) {
	stories(t, map[string]func(*testing.T, *world, *Engine, Name){
		"a verified write": func(t *testing.T, w *world, e *Engine, _ Name) {
			mustChange(t, e, weather, w.rotation(e))
		},
		"a verified write of another server": func(t *testing.T, w *world, e *Engine, _ Name) {
			other := Name{Server: "other"}
			w.with(func(w *world) { w.hosts[other], w.clients[other] = "as.example.com", "client" })
			mustVerify(t, e, other, w.terms(other, "A"))
		},
		"a broker's refresh": func(t *testing.T, _ *world, e *Engine, name Name) {
			if _, _, err := e.Refresh(t.Context(), name, ""); err != nil {
				t.Fatal(err)
			}
		},
	}, func(t *testing.T, w *world, e *Engine, success func(*testing.T, *world, *Engine, Name)) {
		w.lifetime = 10 * time.Hour
		names := w.roles(e, 5)
		w.with(func(w *world) { w.refuse = clientFailures["503"] })
		change := w.reshape(weather, "A")
		change.Refresh = true
		mustChange(t, e, weather, change)
		time.Sleep(2 * time.Hour)
		waitUntil(t, func() bool {
			status, _ := e.Status(t.Context(), names[0])
			return time.Until(status.Failure.NextAttempt) > 30*time.Second
		})
		time.Sleep(waitingMost) // then a caller without a token may cause a request
		w.with(func(w *world) { w.refuse = nil })
		success(t, w, e, names[0])
		time.Sleep(time.Second)
		for _, name := range names {
			if e.Failing(name) {
				t.Errorf("%s still waits", name)
			}
		}
	})
}

// A verified write shows that the client works again. Its names are refreshed only once the write is stored; an
// earlier attempt would be an extra request.
func TestVerifiedWriteStartsNothingBeforeItIsStored(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.failingRoles(e, 5, clientFailures["503"])
		for _, name := range names {
			_ = mustFail(t, e, name)
		}
		w.with(func(w *world) { w.refuse = nil })
		before := w.fetches()
		change := w.rotation(e)
		time.Sleep(time.Second)
		w.wantFetches(before + 1)
		mustChange(t, e, weather, change)
		for _, name := range names {
			mustRead(t, e, name)
		}
		w.wantFetches(before + 1 + len(names))
	})
}

// A refusal of new credentials during verification does not concern the stored credentials.
func TestRefusedWriteHurtsNoName(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refuse = clientFailures["invalid_client"]
		if _, err := e.Verify(t.Context(), weather, w.terms(weather, "A")); err == nil {
			t.Fatal("the write was not refused")
		}
		w.with(func(w *world) { w.refuse = nil })
		mustRead(t, e, weather)
	})
}

func TestWriteThatQueuedLearnsTheServersTime(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.occupyHost(e, 2*time.Second)
		w.with(func(w *world) { w.refuse = clientFailures["429"] })
		_, err := e.Verify(t.Context(), weather, w.terms(weather, "A"))
		if failed, ok := errors.AsType[*FailedError](err); !ok || time.Until(failed.NextAttempt) < 9*time.Minute {
			t.Errorf("got %v, want the time of the next attempt", err)
		}
		w.wantFetches(2 * hostFetches)
	})
}

// Names without a read since the client's latest failure do not probe.
func TestBackgroundProbesOfAClientStopWithoutReaders(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.failingRoles(e, 20, clientFailures["503"])
		for range 2 {
			for _, name := range names {
				_ = mustFail(t, e, name)
				time.Sleep(time.Millisecond)
			}
		}
		before := w.fetches()
		time.Sleep(time.Hour)
		if n := w.fetches() - before; n > 1 {
			t.Errorf("%d requests in an hour without a reader", n)
		}
	})
}

// The names of a server share a refused secret, and each request would be another failed login. Another server of the
// same client has a valid secret, and is not delayed.
func TestRefusedSecretIsTriedOncePerWindow(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.roles(e, 100)
		good := Name{Server: "good"}
		w.with(func(w *world) {
			w.shapes[good], w.hosts[good], w.clients[good] = "G", "as.example.com", "client"
			w.refusals = map[string]error{"A": clientFailures["invalid_client"]}
		})
		time.Sleep(3 * time.Hour) // all tokens have ended
		_ = mustFail(t, e, weather)
		time.Sleep(waitingMost)
		mustRead(t, e, good)
		w.with(func(w *world) { w.refusals["G"] = clientFailures["invalid_client"] })
		before := w.fetches()
		const hours = 3 // the token of good ends after one hour
		for range hours * 3600 {
			for _, name := range append(names, weather, good) {
				_, _ = e.Read(t.Context(), name)
			}
			time.Sleep(time.Second)
		}
		// During the first minute of refusals, windows are at most 10 s. Later ones grow to 15 min.
		if n := w.fetches() - before; n > 50 {
			t.Errorf("two refused secrets of 102 names caused %d requests in %d hours", n, hours)
		}
	})
}

// In a long window, readers without a token may cause a request after 10 s, but not before the latest time that the
// server gave to any request under way.
func TestTimeNamedToOneRequestHoldsForAllUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{}
		for range 20 {
			p := &permit{client: c, begun: time.Now()}
			p.failed("weather", "as", clientFailures["503"], time.Now())
		}
		late := &permit{client: c, begun: time.Now().Add(-time.Second)}
		f := late.failed("weather", "as", &grant.UnavailableError{Status: 429, RetryAfter: time.Minute}, time.Now())
		if wait := time.Until(f.end(false)); wait < time.Minute {
			t.Errorf("the client's next attempt is in %s, before the server's time", wait)
		}
		if f.count != 20 || f.streak != 20 {
			t.Errorf("%d failures, %d of this kind; want 20 and 20", f.count, f.streak)
		}
	})
}

func TestClientsThatWorkAreForgotten(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		down, later := Name{Server: "down"}, Name{Server: "later"}
		w.shapes[down], w.clients[down] = "D", "down"
		w.refusals = map[string]error{"D": clientFailures["503"]}
		mustRead(t, e, weather)
		_ = mustFail(t, e, down)
		mustVerify(t, e, weather, w.terms(weather, "A"))
		mustChange(t, e, weather, w.reshape(weather, "A"))
		if n := e.clients.len(); n != 1 {
			t.Errorf("%d clients are kept, want the failing one", n)
		}
		time.Sleep(rememberFailure)
		w.with(func(w *world) { w.shapes[later], w.refusals["L"] = "L", clientFailures["503"] })
		_ = mustFail(t, e, later)
		if n := e.clients.len(); n != 1 {
			t.Error("a client without names for a long time is still in memory")
		}
	})
}

// A token with a lifetime of a second may expire in transit; a longer one expires only if the server is slow.
func TestTokenThatArrivesExpiredIsAFailure(t *testing.T) {
	type request struct {
		lifetime time.Duration
		requests int
	}
	stories(t, map[string]request{
		"a second": {time.Second, 2}, "two seconds": {2 * time.Second, 1}, "a minute": {time.Minute, 1},
	}, func(t *testing.T, w *world, e *Engine, c request) {
		w.lifetime, w.latency = c.lifetime, 2*time.Second
		w.maxTTL = min(c.lifetime, 2*time.Second)
		failed := mustFail(t, e, weather)
		if _, ok := errors.AsType[*grant.UnavailableError](failed.Cause); !ok {
			t.Errorf("the cause is %v", failed.Cause)
		}
		w.wantFetches(c.requests)
	})
}

func TestTokenThatExpiresWhileAWriteIsUnderWayIsNotHandedOut(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 2 * time.Second
		wait := changing(t, e, reader, w.slowWrite(3*time.Second))
		mustRead(t, e, weather)
		w.wantFetches(2)
		wait()
		time.Sleep(time.Minute)
		wait = changing(t, e, reader, w.slowWrite(3*time.Second))
		if token, _, err := e.Refresh(t.Context(), weather, ""); err != nil || !token.ValidAt(time.Now()) {
			t.Errorf("a refresh got a token that expires at %s, %v", token.ExpiresText(), err)
		}
		wait()
	})
}

func TestWriteGivesUpItsPlaceInTheQueue(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.occupyHost(e, 4*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Verify(ctx, weather, w.terms(weather, "A")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the error of the deadline", err)
		}
		time.Sleep(time.Minute)
		if n := e.gates.hosts.len(); n != 0 {
			t.Errorf("%d hosts are left", n)
		}
	})
}

// probing makes a client fail and lets one of its names probe a server that hangs.
func probing(t *testing.T, w *world, e *Engine) []Name {
	t.Helper()
	names := w.failingRoles(e, 2, clientFailures["503"])
	_ = mustFail(t, e, names[0])
	time.Sleep(waitingMost)
	w.with(func(w *world) { w.hanging["as.example.com"] = true })
	_ = reading(t, e, names[0])
	synctest.Wait()
	if c := e.peek(names[0]).failed.Load().client; c.probe == nil {
		t.Fatal("no name probes")
	}
	return names
}

func TestVerifiedWriteReleasesThoseWhoWaitForAProbe(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := probing(t, w, e)
		read := reading(t, e, names[1])
		synctest.Wait()
		change := w.reshape(names[1], "A")
		change.Token = &grant.Token{AccessToken: "verified", RequestedAt: time.Now(), ExpiresIn: time.Hour}
		begun := time.Now()
		mustChange(t, e, names[1], change)
		if err := <-read; err != nil || time.Since(begun) != 0 {
			t.Errorf("the reader got %v after %s, want the verified token at once", err, time.Since(begun))
		}
	})
}

// An attempt that a change of terms cancels is no evidence about the client.
func TestProbeThatIsBrokenOffEndsNoFailure(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := probing(t, w, e)
		c := e.peek(names[0]).failed.Load().client
		before := c.failed.Load()
		e.InvalidateToken(names[0])
		synctest.Wait()
		if c.failed.Load() != before {
			t.Errorf("the client's failure is %+v, want the previous one", c.failed.Load())
		}
	})
}

// The authorization server may return the held token for new terms.
func TestRepeatedTokenOnNewTermsHasTheirShape(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		first := mustRead(t, e, weather)
		change := w.reshape(weather, "B")
		change.Token = &grant.Token{AccessToken: first.AccessToken, RequestedAt: time.Now(), ExpiresIn: time.Hour}
		mustChange(t, e, weather, change)
		if got := mustRead(t, e, weather); got.Shape != "B" || got.ID() != first.ID() {
			t.Errorf("got the token %s of shape %s", got.AccessToken, got.Shape)
		}
		w.wantFetches(1)
	})
}

func TestVerifiedShortLivedTokenLeavesNoOlderOneInStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world, first *Engine) {
		mustRead(t, first, weather)
		e := w.engine()
		change := w.reshape(weather, "A")
		change.Token = &grant.Token{AccessToken: "verified", RequestedAt: time.Now(), ExpiresIn: 5 * time.Second}
		mustChange(t, e, weather, change)
		w.wantStored(weather, "")
	})
}
