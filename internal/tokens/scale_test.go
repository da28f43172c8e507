package tokens

import (
	"fmt"
	"testing"
	"time"
)

// wantReplaced reads the tokens of a crowd and checks that all are new.
func wantReplaced(t *testing.T, e *Engine, names []Name) {
	t.Helper()
	for _, name := range names {
		if mustRead(t, e, name).AccessToken == "old" {
			t.Fatalf("%s was not refreshed", name)
		}
	}
}

// crowd stores tokens of many names, spread over hosts. All are due now and end a margin later.
func (w *world) crowd(names, hosts int) []Name {
	now := time.Now()
	crowd := make([]Name, names)
	for i := range crowd {
		crowd[i] = Name{Server: fmt.Sprint("s", i)}
		w.shapes[crowd[i]], w.hosts[crowd[i]] = "A", fmt.Sprint("as", i%hosts)
		end := now.Add(margin(w.lifetime))
		w.saved[crowd[i]] = Token{AccessToken: "old", Shape: "A", Issued: end.Add(-w.lifetime), Expires: end, RefreshAt: now}
	}
	return crowd
}

// If the limits on background fetches allow all replacements within the margin, each token is replaced before its
// end, and the replacements take only as long as the limits require.
func TestTokensThatFallDueAtOnceAreReplacedInTime(t *testing.T) {
	const (
		perHost = hostFetches - hostFetches/4 // the places for background work
		overAll = allFetches - allFetches/4
	)
	type crowd struct {
		names, hosts int
		latency      time.Duration
		places       int
	}
	stories(t, map[string]crowd{
		"1 host":    {names: 1500, hosts: 1, latency: 100 * time.Millisecond, places: perHost},
		"10 hosts":  {names: 1500, hosts: 10, latency: time.Second, places: 10 * perHost},
		"100 hosts": {names: 1500, hosts: 100, latency: 3 * time.Second, places: overAll},
	}, func(t *testing.T, w *world, e *Engine, c crowd) {
		w.lifetime, w.latency = 2*time.Minute, c.latency
		needed := c.latency * time.Duration((c.names+c.places-1)/c.places)
		if needed >= margin(w.lifetime) {
			t.Fatalf("%s of work are too much for a margin of %s", needed, margin(w.lifetime))
		}
		names := w.crowd(c.names, c.hosts)
		e.LoadAll()
		time.Sleep(needed + time.Millisecond)
		wantReplaced(t, e, names)
		w.wantFetches(c.names)
		if w.mostFly != c.places {
			t.Errorf("%d fetches at once, want %d", w.mostFly, c.places)
		}
	})
}

func TestTokensThatFallDueAtOnceAreSpreadAfterwards(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		const names, hosts = 1000, 1000
		w.lifetime, w.latency = time.Hour, 0
		w.crowd(names, hosts)
		e.LoadAll()
		time.Sleep(time.Second)
		w.wantFetches(names)
		time.Sleep(time.Hour - time.Minute)
		w.wantFetches(2 * names)
		// Refresh times are drawn from a tenth of the margin, which is 90 s.
		most := map[int64]int{}
		for _, begun := range w.begun[names:] {
			most[begun.Unix()]++
		}
		for _, n := range most {
			if n > names/30 {
				t.Errorf("%d of %d refreshes within one second", n, names)
			}
		}
	})
}
