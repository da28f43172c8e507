package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// A stall is a way in which authorization servers fail to answer.
type stall struct {
	name  string
	fault bed.Fault
	delay time.Duration
}

var stalls = []stall{
	{"answers after 5 s", bed.NoFault, slow},
	{"never answers", bed.NoAnswer, 0},
	{"trickles", bed.SlowBody, 0},
}

// A results is everything measured.
type results struct {
	Environment measure.Environment `json:"environment"`
	Options     options             `json:"options"`
	Names       int                 `json:"names"`
	Cases       []*stallCase        `json:"cases"`
	Noise       noise               `json:"p99_noise"`
}

// noise is how far the median of a case's ratios deviates from 1 by chance.
type noise struct {
	// Median of all control ratios.
	Median float64 `json:"median_of_control"`
	// Wide is a factor: in 19 of 20 undisturbed runs, every case's median is at most this factor above or below 1. It
	// is found by drawing such runs from all control ratios.
	Wide float64 `json:"factor"`
}

// covers reports whether a ratio is within the noise.
func (n noise) covers(ratio float64) bool { return ratio <= n.Wide && ratio >= 1/n.Wide }

// newNoise draws runs of this many medians, each over one ratio per round.
func newNoise(control []float64, rounds, medians int) noise {
	const runs = 2000
	draw := rand.New(rand.NewPCG(1, 2)) // the same draws each time
	farthest := make([]float64, runs)
	sample := make([]float64, rounds)
	for i := range farthest {
		for range medians {
			for j := range sample {
				sample[j] = control[draw.IntN(len(control))]
			}
			m := measure.Median(sample)
			farthest[i] = max(farthest[i], m, 1/m)
		}
	}
	return noise{Median: measure.Median(control), Wide: measure.Quantile(farthest, 0.95)}
}

// A stallCase is one way to stall, for a number of authorization servers.
type stallCase struct {
	Stall      string  `json:"stall"`
	Hosts      int     `json:"authorization_servers"` // each has one token, which is being refreshed
	UnderWay   []int   `json:"refreshes_under_way"`   // at the end of each disturbed period
	Ended      int     `json:"tokens_that_ended"`     // during a disturbed period, so that their readers had to wait
	Refreshing readers `json:"refreshing_names"`      // readers of the tokens of these servers
	Others     readers `json:"other_names"`
	Attempts   int     `json:"token_requests_in_long_stall,omitempty"`

	how       stall
	ill, well []*host
}

// readers holds the figures of one group of readers. The first five are by round, in this order.
type readers struct {
	Before  []figures `json:"undisturbed_before"`
	Control []figures `json:"undisturbed_control"`
	Between []figures `json:"undisturbed_between"`
	During  []figures `json:"disturbed"`
	After   []figures `json:"undisturbed_after"`

	// Medians over the rounds of the p99 of a period, divided by the geometric mean of the periods before and after
	// it.
	Ratio     float64 `json:"p99_ratio"`      // of the disturbed period
	CalmRatio float64 `json:"p99_calm_ratio"` // of the control period, which is undisturbed

	LongBefore []figures `json:"undisturbed_before_long,omitempty"`
	LongStall  []figures `json:"disturbed_for_long,omitempty"`
	LongAfter  []figures `json:"undisturbed_after_long,omitempty"`
	LongRatio  float64   `json:"p99_ratio_for_long,omitempty"`
}

// figures are the figures of one period.
type figures struct {
	Reads   int     `json:"reads"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Slowest float64 `json:"slowest_ms"`
}

func (s *stage) measure(ctx context.Context) (*results, error) {
	r := &results{Options: s.options, Names: len(stalls) * hosts}
	var err error
	if r.Environment, err = measure.Here(ctx, s.root); err != nil {
		return nil, err
	}
	for _, n := range []int{1, hosts} {
		for i, how := range stalls {
			c := &stallCase{Stall: how.name, Hosts: n, how: how}
			for j, all := range s.hosts {
				if j == i {
					c.ill, all = all[:n], all[n:]
				}
				c.well = append(c.well, all...)
			}
			r.Cases = append(r.Cases, c)
		}
	}
	for round := range s.Rounds {
		fmt.Fprintf(os.Stderr, "stall: round %d of %d\n", round+1, s.Rounds)
		for _, c := range r.Cases {
			if err := s.round(ctx, c); err != nil {
				return nil, fmt.Errorf("%d, %s: %w", c.Hosts, c.Stall, err)
			}
		}
	}
	for _, c := range r.Cases {
		if c.Hosts < hosts {
			continue
		}
		fmt.Fprintf(os.Stderr, "stall: %s for long\n", c.Stall)
		if err := s.long(ctx, c); err != nil {
			return nil, fmt.Errorf("%d, %s: %w", c.Hosts, c.Stall, err)
		}
	}
	r.compare()
	return r, nil
}

// round measures a case once: a disturbed period, an undisturbed control, and a calm period before and after each.
func (s *stage) round(ctx context.Context, c *stallCase) error {
	refreshing, others := &c.Refreshing, &c.Others
	if err := s.shorten(ctx, c.ill, s.Duration); err != nil {
		return err
	}
	return s.watch(ctx, c, func(read readBoth) error {
		for _, calm := range [][2]*[]figures{
			{&refreshing.Before, &others.Before},
			{&refreshing.Control, &others.Control},
			{&refreshing.Between, &others.Between},
		} {
			if err := appendBoth(calm, s.Duration, read); err != nil {
				return err
			}
		}
		err := s.disturbed(ctx, c, func() error {
			if err := appendBoth([2]*[]figures{&refreshing.During, &others.During}, s.Duration, read); err != nil {
				return err
			}
			underWay, err := s.refreshing(ctx, c.ill)
			c.UnderWay = append(c.UnderWay, underWay)
			return err
		})
		if err != nil {
			return err
		}
		return appendBoth([2]*[]figures{&refreshing.After, &others.After}, s.Duration, read)
	})
}

// long measures a case for a long time: undisturbed, disturbed, and undisturbed again.
func (s *stage) long(ctx context.Context, c *stallCase) error {
	refreshing, others := &c.Refreshing, &c.Others
	if err := s.shorten(ctx, c.ill, s.Long); err != nil {
		return err
	}
	return s.watch(ctx, c, func(read readBoth) error {
		if err := appendBoth([2]*[]figures{&refreshing.LongBefore, &others.LongBefore}, s.Long, read); err != nil {
			return err
		}
		err := s.disturbed(ctx, c, func() error {
			earlier := attempts(c.ill)
			err := appendBoth([2]*[]figures{&refreshing.LongStall, &others.LongStall}, s.Long, read)
			// The first requests were made before.
			c.Attempts = len(c.ill) + attempts(c.ill) - earlier
			return err
		})
		if err != nil {
			return err
		}
		return appendBoth([2]*[]figures{&refreshing.LongAfter, &others.LongAfter}, s.Long, read)
	})
}

// readBoth makes both groups of readers read for a time.
type readBoth func(time.Duration) ([2]figures, error)

func appendBoth(to [2]*[]figures, d time.Duration, read readBoth) error {
	seen, err := read(d)
	if err != nil {
		return err
	}
	for i := range to {
		*to[i] = append(*to[i], seen[i])
	}
	return nil
}

// watch connects two groups of readers of a case while f runs: of the names to be stalled, and of the others.
func (s *stage) watch(ctx context.Context, c *stallCase, f func(readBoth) error) error {
	refreshing, err := s.readers(ctx, c.ill)
	defer closeAll(refreshing)
	if err != nil {
		return err
	}
	others, err := s.readers(ctx, c.well)
	defer closeAll(others)
	if err != nil {
		return err
	}
	return f(func(d time.Duration) (both [2]figures, err error) {
		seen, err := measure.Read(ctx, d, refreshing, others)
		// Otherwise the log would grow by some gigabytes.
		if err := errors.Join(err, ctx.Err(), os.Truncate(s.bed.Vault.AuditLog, 0)); err != nil {
			return both, err
		}
		return [2]figures{newFigures(seen[0]), newFigures(seen[1])}, nil
	})
}

// disturbed calls f while the authorization servers of a case stall and the held tokens are due. Then it waits until
// the servers answer again.
func (s *stage) disturbed(ctx context.Context, c *stallCase, f func() error) error {
	if err := s.begin(ctx, c.how, c.ill); err != nil {
		return err
	}
	held, err := s.tokens(ctx, c.ill)
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	now := time.Now()
	for _, token := range held {
		if !token.ExpiresAt.After(now) {
			c.Ended++
		}
	}
	return s.end(ctx, c.ill, held)
}

// attempts counts the requests that hosts have received.
func attempts(ill []*host) (n int) {
	for _, h := range ill {
		n += len(h.proxy.Attempts())
	}
	return n
}

// begin makes authorization servers stall, and waits until all their tokens are due and a request for each has
// reached its server.
func (s *stage) begin(ctx context.Context, how stall, ill []*host) error {
	earlier := make([]int, len(ill))
	for i, h := range ill {
		earlier[i] = len(h.proxy.Attempts())
		if err := s.stall(ctx, h, how); err != nil {
			return err
		}
	}
	return bed.Poll(ctx, settled, func() error {
		for i, h := range ill {
			if len(h.proxy.Attempts()) == earlier[i] {
				return fmt.Errorf("the refresh of %s has not begun", h.name)
			}
		}
		return nil
	})
}

// end makes authorization servers answer again, and waits until each of their names has a new token and no request is
// under way.
func (s *stage) end(ctx context.Context, ill []*host, held []*bed.Token) error {
	for _, h := range ill {
		if err := s.stall(ctx, h, stall{fault: bed.NoFault}); err != nil {
			return err
		}
	}
	return bed.Poll(ctx, settled, func() error {
		after, err := s.tokens(ctx, ill)
		if err != nil {
			return bed.StopPolling(err)
		}
		for i, token := range held {
			if after[i].TokenID == token.TokenID {
				return fmt.Errorf("the token of %s has not been replaced", ill[i].name)
			}
		}
		underWay, err := s.refreshing(ctx, ill)
		if err == nil && underWay > 0 {
			return fmt.Errorf("%d refreshes are under way", underWay)
		}
		return err
	})
}

func closeAll(group []*measure.Reader) {
	for _, r := range group {
		r.Close()
	}
}

func newFigures(seen measure.Series) figures {
	return figures{
		Reads:   len(seen.Latencies),
		P50:     measure.Milliseconds(seen.Latencies, 0.5),
		P99:     measure.Milliseconds(seen.Latencies, 0.99),
		Slowest: measure.Milliseconds(seen.Latencies, 1),
	}
}

// compare computes the ratios and the noise.
func (r *results) compare() {
	var control []float64
	medians := 0
	for _, c := range r.Cases {
		for _, group := range []*readers{&c.Refreshing, &c.Others} {
			group.Ratio = measure.Median(ratios(group.During, group.Between, group.After))
			calm := ratios(group.Control, group.Before, group.Between)
			group.CalmRatio = measure.Median(calm)
			control = append(control, calm...)
			if len(group.LongStall) > 0 {
				group.LongRatio = measure.Median(ratios(group.LongStall, group.LongBefore, group.LongAfter))
			}
			medians++
		}
	}
	r.Noise = newNoise(control, len(control)/medians, medians)
}

// ratios returns the p99 of periods divided by the geometric mean of the periods before and after them.
func ratios(times, before, after []figures) []float64 {
	var all []float64
	for i, t := range times {
		all = append(all, t.P99/math.Sqrt(before[i].P99*after[i].P99))
	}
	return all
}
