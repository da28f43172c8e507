package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// around is the storage and the authorization server of a real engine. Like the simulation, it counts their use in
// each second.
type around struct {
	fleet Fleet
	begun time.Time

	mu                     sync.Mutex               // guards the fields below
	asked                  map[string]time.Duration // by access token: when it was requested
	reads, fetches, writes []int32
}

func (a *around) count(series []int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := time.Since(a.begun); at >= 0 && int(at/time.Second) < len(series) {
		i := int(at / time.Second)
		series[i]++
	}
}

func (a *around) Terms(context.Context, tokens.Name) (*tokens.Terms, error) {
	return &tokens.Terms{Shape: "A", DefaultTTL: a.fleet.Lifetime, Fetch: a.fetch}, nil
}

func (a *around) fetch(ctx context.Context) (*grant.Token, error) {
	begun := time.Now()
	a.count(a.fetches)
	select {
	case <-ctx.Done(): // the engine is closed, and its work must end within the bubble
		return nil, ctx.Err()
	case <-time.After(a.fleet.Latency):
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	answer := &grant.Token{AccessToken: fmt.Sprint(len(a.asked)), RequestedAt: begun, ExpiresIn: a.fleet.Lifetime}
	a.asked[answer.AccessToken] = begun.Sub(a.begun)
	return answer, nil
}

func (a *around) Load(context.Context, tokens.Name) (*tokens.Token, error) { return nil, nil }

func (a *around) Save(context.Context, tokens.Name, *tokens.Token) error {
	a.count(a.writes)
	return nil
}

func (a *around) Delete(context.Context, tokens.Name) error { return nil }

func (a *around) Names(context.Context) ([]tokens.Name, error) { return nil, nil }

// agent starts after a time, reads a token as Vault Agent does, and passes each answer to check.
func (a *around) agent(t *testing.T, e *tokens.Engine, start time.Duration, name tokens.Name, check func(tokens.Answer)) {
	time.Sleep(start)
	for time.Since(a.begun) <= a.fleet.Horizon {
		a.count(a.reads)
		answer, err := e.Read(t.Context(), name)
		if err != nil {
			t.Error(err)
			return
		}
		check(answer)
		time.Sleep(time.Duration(answer.TTL+1) * time.Second)
	}
}

// TestModelAgreesWithEngine runs the simulation's fleet against the engine itself. It compares every token's times,
// every ttl, and the counts with many simulations.
func TestModelAgreesWithEngine(t *testing.T) {
	for _, f := range []Fleet{
		{Lifetime: 20 * time.Second},
		{Lifetime: 5 * time.Minute},
		{Lifetime: 5 * time.Minute, Spread: 10 * time.Minute},
		{Lifetime: 5 * time.Minute, Before: 5 * time.Minute},
		{Lifetime: time.Hour},
		{Lifetime: 24 * time.Hour},
	} {
		f.Brokers, f.Servers, f.Latency = 100, 10, 200*time.Millisecond
		f.Horizon = min(10*f.Lifetime, max(100*time.Hour, 4*f.Lifetime)) // long lifetimes are slow to simulate
		t.Run(short(f.Lifetime)+" "+f.start(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { compareWithEngine(t, f) })
		})
	}
}

func compareWithEngine(t *testing.T, f Fleet) {
	seconds := int(f.Horizon/time.Second) + 1
	a := &around{
		fleet: f, begun: time.Now().Add(f.Before), asked: map[string]time.Duration{},
		reads: make([]int32, seconds), fetches: make([]int32, seconds), writes: make([]int32, seconds),
	}
	e := tokens.New(tokens.Options{Store: a, Passive: func() bool { return false }, Log: hclog.NewNullLogger()})
	defer e.Close()

	obtainEarlier(t, e, f)
	var mu sync.Mutex
	var shares []float64 // each drawn ttl's position in its range
	check := func(answer tokens.Answer) {
		now := time.Since(a.begun)
		a.mu.Lock()
		asked := a.asked[answer.AccessToken]
		a.mu.Unlock()
		// The token's own refresh time is random, and the rest follows from it.
		held := newToken(asked, f.Lifetime, f.Latency, 0)
		refreshAt := answer.RefreshAt.Sub(a.begun)
		if soonest := newToken(asked, f.Lifetime, f.Latency, 1).refreshAt; refreshAt < soonest || refreshAt > held.refreshAt {
			t.Errorf("refresh at %s, the model says %s to %s", refreshAt, soonest, held.refreshAt)
		}
		if expires := answer.Expires.Sub(a.begun); expires != held.expires {
			t.Errorf("expires at %s, the model says %s", expires, held.expires)
		}
		held.refreshAt = refreshAt
		ttl := time.Duration(answer.TTL) * time.Second
		least, most := held.ttl(now, 0), held.ttl(now, almost1)
		if ttl < least || ttl > most {
			t.Errorf("ttl %s, the model says %s to %s", ttl, least, most)
		}
		if most > least {
			mu.Lock()
			defer mu.Unlock()
			shares = append(shares, float64(ttl-least)/float64(most-least))
		}
	}
	var agents sync.WaitGroup
	for range f.Brokers {
		start := time.Duration(rand.Float64() * float64(f.Spread+time.Second))
		for server := range f.Servers {
			agents.Go(func() { a.agent(t, e, start, tokens.Name{Server: fmt.Sprint(server)}, check) })
		}
	}
	agents.Wait()
	e.Close()
	synctest.Wait() // requests under way end within the bubble, and are not counted

	slices.Sort(shares)
	for _, q := range []float64{0.1, 0.25, 0.5, 0.75, 0.9} {
		// A short range has few whole seconds, so its steps are wide.
		if got, off := shares[int(q*float64(len(shares)))], 0.05+1/(margin(f.Lifetime)/3).Seconds(); got < q-off || got > q+off {
			t.Errorf("quantile %.2f of the ttl's jitter is at %.3f of its range, want an even spread", q, got)
		}
	}
	got := newTotals(f, a.reads, a.fetches, a.writes)
	least, most := simulatedTotals(f)
	for i, what := range totalNames {
		// The simulations' range shows the effect of chance in some hundred draws. Widened by half on both sides, it
		// also covers rarer effects.
		more := (most[i]-least[i])/2 + 1
		if got[i] < least[i]-more || got[i] > most[i]+more {
			t.Errorf("%s: %d, of %d simulations %d to %d", what, got[i], simulations, least[i], most[i])
		}
		t.Logf("%s: %d, of %d simulations %d to %d", what, got[i], simulations, least[i], most[i])
	}
}

// simulations is the number of simulations with which a run of the engine is compared.
const simulations = 200

// totals are the compared figures of a run.
type totals [4]int

var totalNames = [len(totals{})]string{"reads", "requests", "writes", "most reads in a tenth of the margin"}

// newTotals counts the peak in bins of a tenth of the margin, so that chance alone does not decide it.
func newTotals(f Fleet, reads, fetches, writes []int32) totals {
	bin := max(1, int(margin(f.Lifetime)/(10*time.Second)))
	started := int((&Load{Fleet: f}).started() / time.Second)
	return totals{sum(reads), sum(fetches), sum(writes), peakOf(reads[started:], bin)}
}

// simulatedTotals returns the least and the most of many simulations, because a single one varies by chance as much
// as a run of the engine does.
func simulatedTotals(f Fleet) (least, most totals) {
	for f.Seed = range simulations {
		l := Simulate(f, Engine)
		for i, n := range newTotals(f, l.Reads, l.Fetches, l.Writes) {
			if f.Seed == 0 {
				least[i], most[i] = n, n
			}
			least[i], most[i] = min(least[i], n), max(most[i], n)
		}
	}
	return least, most
}

// obtainEarlier gets the tokens of a fleet at random times before its agents start.
func obtainEarlier(t *testing.T, e *tokens.Engine, f Fleet) {
	if f.Before == 0 {
		return
	}
	var configs sync.WaitGroup
	for server := range f.Servers {
		configs.Go(func() {
			at := time.Duration(rand.Float64() * float64(f.Before))
			time.Sleep(at)
			if _, err := e.Read(t.Context(), tokens.Name{Server: fmt.Sprint(server)}); err != nil {
				t.Error(err)
			}
			time.Sleep(f.Before - at - f.Latency)
		})
	}
	configs.Wait()
}

// almost1 is the end of the interval of random draws.
const almost1 = 1 - 1e-12

// peakOf returns the largest sum in any bin of this many seconds.
func peakOf(series []int32, bin int) int {
	most := 0
	for in := range slices.Chunk(series, bin) {
		most = max(most, sum(in))
	}
	return most
}
