package tokens

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// After an outage, thousands of refreshes may wait. Each is an entry in a line, so the number of goroutines is
// bounded, whether hosts or a probe hang.
func TestRefreshesThatWaitHaveNoGoroutines(t *testing.T) {
	const names, hosts = 1000, 10
	type waiting struct {
		before func(w *world)
		places int // for background refreshes; each needs a goroutine
	}
	stories(t, map[string]waiting{
		"for ten hosts": {func(*world) {}, hosts * hostBackground},
		"for the places over all": {func(w *world) {
			for name := range w.hosts {
				w.hosts[name] = "host of " + name.Server
			}
		}, allBackground},
		"for a probe of their client": {func(w *world) {
			for name := range w.hosts {
				w.clients[name] = "client"
			}
		}, hosts * hostBackground},
	}, func(t *testing.T, w *world, e *Engine, c waiting) {
		w.lifetime = 2 * time.Hour
		all := w.crowd(names, hosts)
		c.before(w)
		w.latency = 5 * time.Second
		before := goroutines()
		e.LoadAll()
		// A few goroutines of earlier tests may have ended.
		if n := goroutines() - before; n < c.places-5 || n > c.places+5 {
			t.Errorf("%d goroutines for %d due refreshes, want one for each of %d places", n, names, c.places)
		}
		time.Sleep(margin(w.lifetime) - time.Second)
		wantReplaced(t, e, all)
		w.wantFetches(names)
		if n := len(e.lines.hosts); n != 0 || e.lines.taken != 0 {
			t.Errorf("%d unused hosts and %d unused places are in memory", n, e.lines.taken)
		}
	})
}

var stacks = make([]byte, 1<<20) // for goroutines

// goroutines counts the process's goroutines once all in the bubble are blocked. runtime.NumGoroutine may be wrong by
// some dozens, because it adds up lists that change meanwhile.
func goroutines() int {
	synctest.Wait()
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("\n\ngoroutine "))
}

// When a failing client's window ends, all its names are due. One probes. The others wait without a goroutine until
// the probe fails, and until one succeeds.
func TestRefreshesThatWaitForAProbeHaveNoGoroutines(t *testing.T) {
	const names = 300
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 4 * time.Hour
		all := w.crowd(names, 1)
		for _, name := range all {
			w.clients[name] = "client"
		}
		w.refuse, w.latency = clientFailures["503"], 5*time.Second
		before := goroutines()
		most := 0
		watch := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				most = max(most, goroutines()-before)
			}
		}
		e.LoadAll()
		watch(10 * time.Minute)
		failed := 0
		w.with(func(w *world) { w.refuse, failed = nil, w.fetched-w.flying }) // one under way succeeds
		watch(40 * time.Minute)
		if most > hostFetches+5 {
			t.Errorf("%d goroutines for %d refreshes, want only those of %d fetches", most, names, hostFetches)
		}
		if failed > 40 {
			t.Errorf("%d requests failed in ten minutes, want one for each window", failed)
		}
		w.wantFetches(failed + names)
		wantReplaced(t, e, all)
	})
}

// If a refresh waits for a place, a caller that needs the token starts the request at once. The refresh does nothing
// at its turn.
func TestReaderDoesNotWaitForARefreshInLine(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		const names = 100
		w.lifetime = time.Hour
		all := w.crowd(names, 1)
		w.latency = 4 * time.Second
		e.LoadAll()
		synctest.Wait()
		last := all[slices.IndexFunc(all, func(name Name) bool { return e.peek(name).turn.Load() != nil })]
		begun := time.Now()
		got, refreshed, err := e.Refresh(t.Context(), last, mustRead(t, e, last).ID())
		if err != nil || !refreshed || got.AccessToken == "old" || time.Since(begun) != w.latency {
			t.Errorf("got a refreshed token: %t, %v after %s, want one after %s", refreshed, err, time.Since(begun), w.latency)
		}
		time.Sleep(10 * time.Minute)
		w.wantFetches(names)
	})
}

// The hosts take turns for the places in total, and each host is limited to its own places.
func TestHostsTakeTurns(t *testing.T) {
	l := newLines()
	hosts := map[*turn]string{}
	for i := range allBackground {
		if !l.enter(fmt.Sprint("busy", i), &turn{}) {
			t.Fatalf("place %d was refused", i)
		}
	}
	for _, host := range []string{"a", "b"} {
		for range 2 * hostBackground {
			waits := &turn{}
			hosts[waits] = host
			if l.enter(host, waits) {
				t.Fatal("there was another place")
			}
		}
	}
	var got []string
	for i := range allBackground {
		waited, host := l.leave(fmt.Sprint("busy", i))
		if waited == nil {
			break
		}
		if hosts[waited] != host {
			t.Errorf("a place at %s for a refresh at %s", host, hosts[waited])
		}
		got = append(got, host)
	}
	if len(got) != 2*hostBackground || !slices.Equal(got[:4], []string{"a", "b", "a", "b"}) {
		t.Errorf("the places went to %q", got)
	}
	for i := range 2 * hostBackground {
		if waited, host := l.leave(got[i]); waited == nil || host != got[i] {
			t.Errorf("after %s, want the host's other refresh; got %s", got[i], host)
		}
	}
}
