package tokens

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// clientFailures are failures that concern all names of a client.
var clientFailures = map[string]error{
	"429":                     &grant.UnavailableError{Status: 429, RetryAfter: 10 * time.Minute},
	"503":                     &grant.UnavailableError{Status: 503},
	"timeout":                 &grant.UnavailableError{Reason: "timed out after 10s"},
	"connection refused":      &grant.UnavailableError{Reason: "connection refused"},
	"invalid_client":          &grant.RefusedError{Status: 401, Code: "invalid_client"},
	"unauthorized_client 401": &grant.RefusedError{Status: 401, Code: "unauthorized_client"},
}

// roles makes n roles of one client at one host, and reads each role once.
func (w *world) roles(e *Engine, n int) []Name {
	names := make([]Name, n)
	w.with(func(w *world) {
		for i := range names {
			names[i] = Name{"weather", fmt.Sprint("r", i)}
			w.shapes[names[i]], w.hosts[names[i]], w.clients[names[i]] = "A", "as.example.com", "client"
		}
		w.hosts[weather], w.clients[weather] = "as.example.com", "client"
	})
	for _, name := range names {
		mustRead(w.t, e, name)
	}
	return names
}

// failingRoles makes n roles whose tokens have expired, at a failing server.
func (w *world) failingRoles(e *Engine, n int, failure error) []Name {
	names := w.roles(e, n)
	w.with(func(w *world) { w.refuse = failure })
	time.Sleep(3 * time.Hour)
	return names
}

// occupyHost fills the places of the roles' host with refreshes.
func (w *world) occupyHost(e *Engine, latency time.Duration) {
	names := w.roles(e, hostFetches)
	w.with(func(w *world) { w.latency = latency })
	time.Sleep(time.Minute)
	go parallel(len(names), func(i int) { _, _, _ = e.Refresh(w.t.Context(), names[i], "") })
	synctest.Wait()
}

// attemptsFrom returns the times of the requests from the n-th on.
func (w *world) attemptsFrom(n int) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begun[n:]
}

// The server refuses new credentials for 300 names. It gets only the requests that were already under way; then one
// name probes per window.
func TestFailureOfAClientIsSharedByItsNames(t *testing.T) {
	stories(t, clientFailures, func(t *testing.T, w *world, e *Engine, cause error) {
		w.lifetime = 10 * time.Hour
		names := w.roles(e, 300)
		before := w.fetches()
		w.with(func(w *world) { w.refuse = cause })
		change := w.reshape(weather, "A")
		change.Refresh = true
		begun := time.Now()
		mustChange(t, e, weather, change)
		time.Sleep(time.Second)
		if n := w.fetches() - before; n > hostFetches {
			t.Errorf("the server got %d concurrent requests, want at most %d", n, hostFetches)
		}
		time.Sleep(30 * time.Minute)
		for _, name := range names {
			if mustRead(t, e, name); !e.Failing(name) {
				t.Errorf("%s is not failing", name)
			}
		}
		attempts := w.attemptsFrom(before)
		for len(attempts) > 1 && attempts[0].Sub(begun) < time.Second/2 {
			attempts = attempts[1:]
		}
		for i := range attempts[1:] {
			if gap := attempts[i+1].Sub(attempts[i]); gap < 3*time.Second/4 {
				t.Errorf("two requests %s apart, in one window", gap)
			}
		}
		if most := 60; len(attempts) > most {
			t.Errorf("the server got %d requests in half an hour, want one per window", len(attempts))
		}
	})
}

// While a write reads the terms of 300 roles, the server refuses the new credentials. The write must not clear this
// newer failure.
func TestWriteForgetsAClientsFailureOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 10 * time.Hour
		w.roles(e, 300)
		before := w.fetches()
		w.with(func(w *world) { w.refuse, w.latency = clientFailures["invalid_client"], time.Millisecond })
		change := w.reshape(weather, "A")
		change.Refresh = true
		change.Terms = func(ctx context.Context, name Name) (*Terms, error) {
			time.Sleep(5 * time.Millisecond)
			return w.Terms(ctx, name)
		}
		mustChange(t, e, weather, change)
		after := w.fetches()
		if n := after - before; n > hostFetches {
			t.Errorf("the server got %d requests, want at most %d", n, hostFetches)
		}
		_ = mustFail(t, e, weather)
		time.Sleep(time.Second)
		w.wantFetches(after)
	})
}

// A request on the old terms that fails after the write does not fail the client, even for a role whose terms the
// write has not read yet.
func TestFailureOnOldTermsDoesNotOutliveTheWrite(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 10 * time.Hour
		names := w.roles(e, 300)
		for _, n := range names {
			w.clients[n] = "c"
		}
		w.clients[weather] = "c"
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.refuse, w.latency = clientFailures["invalid_client"], 300*time.Millisecond })
		for _, n := range names[:6] {
			go func() { _, _, _ = e.Refresh(t.Context(), n, "") }()
		}
		synctest.Wait()
		change := w.reshape(weather, "A")
		change.Terms = func(ctx context.Context, name Name) (*Terms, error) {
			time.Sleep(5 * time.Millisecond)
			return w.Terms(ctx, name)
		}
		mustChange(t, e, weather, change)
		c, release := e.clients.use("c")
		defer release()
		if c.failed.Load() != nil {
			t.Error("a failure on the old terms outlives the write")
		}
	})
}

// The server fails every request for one role's token, which looks like an outage. Readers call this role and another
// all the time.
func TestFaultOfANameLeavesItsSiblingsInService(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = time.Minute
		names := w.roles(e, 4)
		w.with(func(w *world) { w.refusals = map[string]error{"bad": &grant.UnavailableError{Status: 500}} })
		for _, bad := range names[1:] {
			mustChange(t, e, bad, w.reshape(bad, "bad"))
		}
		missed := 0
		for range 1800 {
			time.Sleep(time.Second)
			for _, bad := range names[1:] {
				go func() { _, _ = e.Read(t.Context(), bad) }()
			}
			if _, err := e.Read(t.Context(), names[0]); err != nil {
				missed++
			}
		}
		if missed > 0 {
			t.Errorf("%d of 1800 reads of the other role got no token", missed)
		}
	})
}

// A refusal of scopes, resource or audience concerns the name alone.
func TestRefusalOfANameHurtsNoSibling(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refusals = map[string]error{}
		for _, code := range []string{"invalid_scope", "invalid_target", "access_denied", "invalid_request"} {
			bad := Name{"weather", code}
			w.with(func(w *world) {
				w.shapes[bad], w.hosts[bad], w.clients[bad] = code, "as.example.com", "client"
				w.refusals[code] = &grant.RefusedError{Status: 400, Code: code}
			})
			_ = mustFail(t, e, bad)
			w.roles(e, 10)
		}
	})
}

// Requests that fail together count as one failure, with the longest Retry-After. A success does not end a failure
// that began later.
func TestRequestsUnderWayTogetherFailAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, waited := &client{}, func(f *failure) time.Time { return f.end(false) }
		admit := func() *permit {
			p, _, _ := c.admit(time.Now(), waited)
			return p
		}
		var together []*permit
		for range hostFetches {
			together = append(together, admit())
		}
		time.Sleep(time.Second)
		short := &grant.UnavailableError{Status: 429, RetryAfter: 2 * time.Second}
		long := &grant.UnavailableError{Status: 429, RetryAfter: time.Minute}
		first := together[0].failed("weather", "as", short, time.Now())
		if next := together[1].failed("weather", "as", short, time.Now()); next != first {
			t.Errorf("the second failure is %+v, want the first", next)
		}
		next := together[2].failed("weather", "as", long, time.Now())
		if next.count != 1 || next.streak != 1 || time.Until(next.end(false)) < time.Minute {
			t.Errorf("after a longer Retry-After: %+v", next)
		}
		if together[3].succeeded() || c.failed.Load() != next {
			t.Error("a request that began before the failure ended it")
		}
		for _, p := range together {
			p.close()
		}
		if p := admit(); p != nil {
			t.Error("a request was permitted within the window")
		}
		time.Sleep(2 * time.Minute)
		probe := admit()
		if p, _, probing := c.admit(time.Now(), waited); p != nil || probing == nil {
			t.Error("two names probe at once")
		}
		probe.close() // its result is void, so the next attempt probes
		if probe = admit(); probe == nil {
			t.Fatal("no name may probe")
		}
		if !probe.succeeded() || c.failed.Load() != nil {
			t.Error("the probe's success did not end the failure")
		}
		if again := admit(); again.succeeded() {
			t.Error("a working client has recovered twice")
		}
		admit().failed("weather", "as", clientFailures["503"], time.Now())
		if meanwhile := (&permit{client: c, begun: time.Now()}); !meanwhile.succeeded() {
			t.Error("the success of a request that began with the failure does not end it")
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
