package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// What the engine alone is measured over.
const (
	storageLatency = 350 * time.Microsecond // of a plugin's storage read on a real Vault
	fetchLatency   = 100 * time.Millisecond // of a token request
)

// The engine's bounds on background fetches: three quarters of 8 per host and of 256 over all.
const (
	placesPerHost = 6
	placesOverAll = 192
)

type engineReport struct {
	Names     int     `json:"names"`
	Loaded    float64 `json:"all_timers_set"`
	First     float64 `json:"first_answer"`   // of a name that is loaded last, right at the start
	Reads     float64 `json:"slowest_answer"` // of names read while loading, until each is held
	Heap      float64 `json:"heap_per_name"`  // with its token
	Idle      use     `json:"cpu_with_no_token_due"`
	Token     int     `json:"access_token"`         // of that, the access token itself
	Bursts    []burst `json:"bursts"`               // tokens that are due all at once
	Queued    float64 `json:"memory_per_queued"`    // heap and stack of a refresh that waits for its turn
	Limits    []limit `json:"names_in_time"`        // computed from the bounds
	FetchTime float64 `json:"fetch_latency"`        // of the bursts
	GetTime   float64 `json:"storage_read_latency"` // of everything
}

// burst is the refreshing of many tokens that are due all at once.
type burst struct {
	Hosts   int     `json:"hosts"`
	Names   int     `json:"names"`
	Margin  float64 `json:"margin"`   // from when the tokens are due to when they expire
	Late    int64   `json:"too_late"` // replaced after that
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"refreshes_per_second"`
	Bound   float64 `json:"bound_per_second"` // what the bounds on fetches allow
}

// limit is how many tokens of one host may fall due at once with all replaced in time.
type limit struct {
	Lifetime float64 `json:"lifetime"`
	Fetch    float64 `json:"fetch_latency"`
	PerHost  int     `json:"per_host"`
	OverAll  int     `json:"over_all"`
}

func measureEngine(ctx context.Context, o options) (*engineReport, error) {
	r := &engineReport{Names: o.Names, Token: tokenSize, FetchTime: fetchLatency.Seconds(), GetTime: storageLatency.Seconds()}
	if err := r.measureLoading(ctx, o); err != nil {
		return nil, err
	}
	for _, hosts := range []int{1, 10, 100} {
		busy := time.Duration(o.Burst)
		names := int(bound(hosts) * busy.Seconds())
		b, err := measureBurst(ctx, hosts, names, time.Duration(spare*float64(busy)))
		if err != nil {
			return nil, err
		}
		r.Bursts = append(r.Bursts, b)
	}
	// And all names, with tokens of five minutes, whose margin is a quarter of that.
	b, err := measureBurst(ctx, 100, r.Names, 5*time.Minute/4)
	if err != nil {
		return nil, err
	}
	r.Bursts = append(r.Bursts, b)
	if err := r.measureQueue(ctx); err != nil {
		return nil, err
	}
	for _, lifetime := range []time.Duration{5 * time.Minute, time.Hour, 24 * time.Hour} {
		for _, fetch := range []time.Duration{100 * time.Millisecond, time.Second} {
			// A token is refreshed at the latest a quarter of its lifetime ahead of its end.
			rounds := float64(lifetime/4) / float64(fetch)
			r.Limits = append(r.Limits, limit{
				Lifetime: lifetime.Seconds(),
				Fetch:    fetch.Seconds(),
				PerHost:  int(placesPerHost * rounds),
				OverAll:  int(placesOverAll * rounds),
			})
		}
	}
	return r, nil
}

func newEngine(w *world) *tokens.Engine {
	return tokens.New(tokens.Options{
		Store:   w,
		Passive: func() bool { return false },
		Log:     hclog.NewNullLogger(),
	})
}

// measureLoading starts an engine over stored tokens that are not due for hours.
func (r *engineReport) measureLoading(ctx context.Context, o options) error {
	w := newWorld(r.Names, 1, 24*time.Hour, 24*time.Hour)
	before := heap()
	e := newEngine(w)
	defer e.Close()
	begun := time.Now()
	e.LoadAll()
	if _, err := e.Read(ctx, w.names[r.Names-1]); err != nil {
		return err
	}
	r.First = time.Since(begun).Seconds()
	var slowest time.Duration
	for i := r.Names - 2; i > 0 && w.loads.Load() < int64(r.Names); i -= max(1, r.Names/1000) {
		asked := time.Now()
		if _, err := e.Read(ctx, w.names[i]); err != nil {
			return err
		}
		slowest = max(slowest, time.Since(asked))
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	r.Reads = slowest.Seconds()
	for w.loads.Load() < int64(r.Names) || !held(ctx, e, w.names) {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	r.Loaded = time.Since(begun).Seconds()
	r.Heap = float64(heap()-before) / float64(r.Names)
	r.Idle = use{Lifetime: seconds(w.lifetime), Over: o.Idle}
	used, err := measure.CPU(os.Getpid())
	if err != nil {
		return err
	}
	if err := pause(ctx, time.Duration(o.Idle)); err != nil {
		return err
	}
	after, err := measure.CPU(os.Getpid())
	if err != nil {
		return err
	}
	r.Idle.CPU = seconds(after - used)
	if fetched := w.fetched.Load(); fetched > 0 {
		return fmt.Errorf("loading caused %d fetches", fetched)
	}
	return nil
}

// held reports whether the engine holds the last tokens, which are loaded last.
func held(ctx context.Context, e *tokens.Engine, names []tokens.Name) bool {
	for _, name := range slices.Backward(names[max(0, len(names)-12):]) {
		if status, err := e.Status(ctx, name); err != nil || status.LastRead.IsZero() {
			return false
		}
	}
	return true
}

// spare is how much longer the tokens of a burst are valid than the bounds on fetches need.
const spare = 1.1

// bound is how many tokens of so many hosts the bounds on fetches allow to be replaced a second.
func bound(hosts int) float64 {
	return float64(min(placesPerHost*hosts, placesOverAll)) / fetchLatency.Seconds()
}

// measureBurst starts an engine over stored tokens that are all due, and expire after the given time:
// what is replaced later is late.
func measureBurst(ctx context.Context, hosts, names int, valid time.Duration) (burst, error) {
	b := burst{Hosts: hosts, Names: names, Bound: bound(hosts), Margin: valid.Seconds()}
	w := newWorld(b.Names, hosts, 0, time.Hour)
	w.end = w.due.Add(valid)
	e := newEngine(w)
	defer e.Close()
	begun := time.Now()
	e.LoadAll()
	for w.saved.Load() < int64(b.Names) {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return b, err
		}
	}
	b.Seconds = time.Since(begun).Seconds()
	b.Rate = float64(b.Names) / b.Seconds
	b.Late = w.late.Load()
	return b, nil
}

// measureQueue tells what it costs that tokens are due and wait for their turn.
func (r *engineReport) measureQueue(ctx context.Context) error {
	names := min(r.Names, 10_000)
	load := func(untilDue time.Duration) (used uint64, err error) {
		w := newWorld(names, 1, untilDue, 24*time.Hour)
		w.hanging = true
		before := heapAndStacks()
		e := newEngine(w)
		defer e.Close()
		e.LoadAll()
		for !held(ctx, e, w.names) {
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return 0, err
			}
		}
		// The timers of what is due fire at once.
		if err := pause(ctx, time.Second); err != nil {
			return 0, err
		}
		return heapAndStacks() - before, nil
	}
	quiet, err := load(time.Hour)
	if err != nil {
		return err
	}
	queued, err := load(0)
	if err != nil {
		return err
	}
	r.Queued = (float64(queued) - float64(quiet)) / float64(names)
	return nil
}

// heap is what is in use of the heap after a collection.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // finalizers and pools need a second one
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func heapAndStacks() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
