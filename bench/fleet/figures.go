package fleet

import (
	"fmt"
	"slices"
	"time"
)

// Figures summarize how often something happens.
type Figures struct {
	Average       float64 `json:"average_per_second"` // without the start
	Start         int32   `json:"peak_at_start"`      // most per second while agents start
	FirstInterval int32   `json:"peak_in_first_interval"`
	Later         int32   `json:"peak_later"` // in the last two lifetimes of the simulation
}

// A Result holds the figures of a fleet under a scheme.
type Result struct {
	Scheme   string  `json:"scheme"`
	Lifetime float64 `json:"token_lifetime_seconds"`
	Spread   float64 `json:"start_spread_seconds"`
	Before   float64 `json:"tokens_obtained_before_seconds"` // within this time before the start; 0: at the start
	Hours    float64 `json:"simulated_hours"`
	Reads    Figures `json:"reads"`
	Fetches  Figures `json:"authorization_server_requests"`
	Writes   Figures `json:"storage_writes"`
	Copies   int     `json:"token_copies_in_storage"`
	Expired  float64 `json:"share_of_time_with_expired_token"`
}

// Result summarizes the load.
func (l *Load) Result() Result {
	pairs := float64(l.Fleet.Brokers * l.Fleet.Servers)
	reads := pairs * l.readRate.perSecond()
	fetches := float64(l.Fleet.Servers) * l.newRate.perSecond()
	writes := fetches
	if l.Scheme == LeasePerRead {
		fetches, writes = reads, 4*reads
	}
	return Result{
		Scheme:   l.Scheme.String(),
		Lifetime: l.Fleet.Lifetime.Seconds(),
		Spread:   l.Fleet.Spread.Seconds(),
		Before:   l.Fleet.Before.Seconds(),
		Hours:    l.Fleet.Horizon.Hours(),
		Reads:    l.figures(l.Reads, reads),
		Fetches:  l.figures(l.Fetches, fetches),
		Writes:   l.figures(l.Writes, writes),
		Copies:   l.Copies,
		Expired:  l.expired / l.held,
	}
}

// figures returns the average and the peaks of a series.
func (l *Load) figures(series []int32, average float64) Figures {
	started := int(l.started() / time.Second)
	lifetime := int(l.Fleet.Lifetime / time.Second)
	peak := func(from, to int) int32 { return slices.Max(series[from:min(to, len(series))]) }
	return Figures{
		Average:       average,
		Start:         peak(0, started),
		FirstInterval: peak(started, started+lifetime),
		Later:         peak(len(series)-2*lifetime, len(series)),
	}
}

// started returns the time by which all agents have started and the first tokens exist.
func (l *Load) started() time.Duration {
	return (l.Fleet.Spread + l.Fleet.Latency + 2*time.Second).Truncate(time.Second)
}

// start describes how the agents of a fleet start.
func (f Fleet) start() string {
	how := "at once"
	if f.Spread > 0 {
		how = "within " + short(f.Spread)
	}
	if f.Before > 0 {
		how += ", tokens obtained earlier"
	}
	return how
}

// short formats a duration without zero parts: 5m, not 5m0s.
func short(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return d.String()
	}
}
