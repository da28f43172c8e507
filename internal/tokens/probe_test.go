package tokens

import (
	"testing"
	"testing/synctest"
	"time"
)

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

func TestSuccessOfTheProbeOpensTheClient(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.failingRoles(e, 50, clientFailures["503"])
		_ = mustFail(t, e, names[0])
		time.Sleep(time.Millisecond)
		for _, name := range names[1:] {
			_ = mustFail(t, e, name)
		}
		_ = mustFail(t, e, names[0])
		w.with(func(w *world) { w.refuse = nil })
		back := time.Now()
		time.Sleep(waitingMost + time.Second)
		before := w.fetches()
		for _, name := range names {
			mustRead(t, e, name)
		}
		if n := w.fetches() - before; n != 0 {
			t.Errorf("%d names were not fetched within %s of the server's return", n, time.Since(back))
		}
	})
}

func TestColdReadersOfAFailingClientShareItsProbe(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.failingRoles(e, 20, clientFailures["invalid_client"])
		before := w.fetches()
		parallel(len(names), func(i int) { wantError(t, e, names[i], w.refuse) })
		if n := w.fetches() - before; n > 1 {
			t.Errorf("the readers of one client caused %d requests", n)
		}
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

// When a probe fails, the other names of its client wait for the end of the next window. They need no storage for that.
func TestFailedProbeCostsNoReadsOfStorage(t *testing.T) {
	const names = 100
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 4 * time.Hour
		for _, name := range w.crowd(names, 1) {
			w.clients[name] = "client"
		}
		w.refuse, w.latency = clientFailures["503"], 5*time.Second
		e.LoadAll()
		c, release := e.clients.use("client")
		defer release()
		waiting := func(n int) func() bool {
			return func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return len(c.waiting) == n
			}
		}
		waitUntil(t, waiting(names-1))
		before, asked := w.storageCalls(), w.fetches()
		waitUntil(t, waiting(0))
		w.wantNoCallsSince(before)
		waitUntil(t, waiting(names-1))
		w.wantFetches(asked + 1)
	})
}

// If a token ends while its refresh waits for a probe, the refresh still follows the probe's success.
func TestRefreshFollowsAProbeThatSucceeds(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.refuse = clientFailures["503"] })
		_, _, _ = e.Refresh(t.Context(), weather, "")
		w.with(func(w *world) { w.refuse = nil })
		c, release := e.clients.use(weather.String())
		defer release()
		probe, _, _ := c.admit(time.Now(), func(*failure) time.Time { return time.Now() })
		time.Sleep(2 * time.Hour)
		w.wantFetches(2)
		if !probe.succeeded() {
			t.Error("the client was not failing")
		}
		probe.close()
		time.Sleep(time.Second)
		w.wantFetches(3)
	})
}
