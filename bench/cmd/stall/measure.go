package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// A stall is a way in which authorization servers do not answer.
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

// A results is all that was measured.
type results struct {
	Environment measure.Environment `json:"environment"`
	Options     options             `json:"options"`
	Names       int                 `json:"names"`
	Cases       []*stallCase        `json:"cases"`
	// Noise are quantiles of the calm ratios of all cases.
	Noise noise `json:"p99_noise"`
}

// noise is where four fifths of the ratios lie that compare a calm time with the calm times around it.
type noise struct {
	Least float64 `json:"first_decile"`
	Most  float64 `json:"last_decile"`
}

// covers tells whether a ratio is within the noise, widened to be as far to both sides.
func (n noise) covers(ratio float64) bool {
	wide := n.wide()
	return ratio <= wide && ratio >= 1/wide
}

func (n noise) wide() float64 { return max(n.Most, 1/n.Least) }

// A stallCase is one way to stall, of so many authorization servers.
type stallCase struct {
	Stall      string  `json:"stall"`
	Hosts      int     `json:"authorization_servers"` // each with one token, which is being refreshed
	UnderWay   []int   `json:"refreshes_under_way"`   // at the end of each disturbed time
	Refreshing readers `json:"refreshing_names"`      // what readers of those tokens saw
	Others     readers `json:"other_names"`
	Attempts   int     `json:"token_requests_in_long_stall,omitempty"`

	how       stall
	ill, well []*host
}

// readers are what one group of readers saw. The first five are by round, and come in this order.
type readers struct {
	Before  []figures `json:"undisturbed_before"`
	Control []figures `json:"undisturbed_control"`
	Between []figures `json:"undisturbed_between"`
	During  []figures `json:"disturbed"`
	After   []figures `json:"undisturbed_after"`

	// Medians over the rounds of the p99 of a time against the geometric mean of the times before and
	// after it.
	Ratio     float64 `json:"p99_ratio"`      // of the disturbed time
	CalmRatio float64 `json:"p99_calm_ratio"` // of the control, to which nothing happens

	LongCalm  *figures `json:"undisturbed_for_long,omitempty"`
	LongStall *figures `json:"disturbed_for_long,omitempty"`
}

// figures are those of one time.
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

// round measures a case once: the disturbed time, a control to which nothing happens, and a calm time
// before and after each of the two.
func (s *stage) round(ctx context.Context, c *stallCase) error {
	refreshing, others := &c.Refreshing, &c.Others
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

// long measures a case for long: undisturbed, and then disturbed.
func (s *stage) long(ctx context.Context, c *stallCase) error {
	return s.watch(ctx, c, func(read readBoth) error {
		calm, err := read(s.Long)
		if err != nil {
			return err
		}
		c.Refreshing.LongCalm, c.Others.LongCalm = &calm[0], &calm[1]
		return s.disturbed(ctx, c, func() error {
			earlier := attempts(c.ill)
			stalled, err := read(s.Long)
			// The first requests were there already.
			c.Attempts = len(c.ill) + attempts(c.ill) - earlier
			c.Refreshing.LongStall, c.Others.LongStall = &stalled[0], &stalled[1]
			return err
		})
	})
}

// readBoth has both groups of readers read for a time.
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

// watch connects the readers of a case for as long as f takes: of the names that are to stall, and of
// the others.
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
		// The log would grow by some gigabytes.
		if err := errors.Join(err, ctx.Err(), os.Truncate(s.bed.Vault.AuditLog, 0)); err != nil {
			return both, err
		}
		return [2]figures{newFigures(seen[0]), newFigures(seen[1])}, nil
	})
}

// disturbed does f while the authorization servers of a case stall, and waits until they are well.
func (s *stage) disturbed(ctx context.Context, c *stallCase, f func() error) error {
	held, err := s.tokenIDs(ctx, c.ill)
	if err != nil {
		return err
	}
	refreshes, err := s.begin(ctx, c.how, c.ill)
	defer refreshes.Wait()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return s.end(ctx, c.ill, held)
}

// attempts counts the requests that hosts have seen.
func attempts(ill []*host) (n int) {
	for _, h := range ill {
		n += len(h.proxy.Attempts())
	}
	return n
}

// begin makes authorization servers stall, has each of their tokens refreshed, and waits until
// all these requests have reached them. refreshes end when those who asked for them are answered.
func (s *stage) begin(ctx context.Context, how stall, ill []*host) (refreshes *sync.WaitGroup, err error) {
	refreshes = new(sync.WaitGroup)
	earlier := make([]int, len(ill))
	for i, h := range ill {
		earlier[i] = len(h.proxy.Attempts())
		if err := s.stall(ctx, h, how); err != nil {
			return refreshes, err
		}
		// An error is what is to be expected of a server that stalls.
		refreshes.Go(func() { _ = s.refresh(ctx, h) })
	}
	return refreshes, until(ctx, "waiting for the refreshes to begin", func() (bool, error) {
		for i, h := range ill {
			if len(h.proxy.Attempts()) == earlier[i] {
				return false, nil
			}
		}
		return true, nil
	})
}

// end makes authorization servers answer, and waits until each of their names has another token
// than the one held, and nothing is under way.
func (s *stage) end(ctx context.Context, ill []*host, held map[string]string) error {
	for _, h := range ill {
		if err := s.stall(ctx, h, stall{fault: bed.NoFault}); err != nil {
			return err
		}
	}
	return until(ctx, "waiting for the refreshes to succeed", func() (bool, error) {
		after, err := s.tokenIDs(ctx, ill)
		if err != nil {
			return false, err
		}
		for name, id := range held {
			if after[name] == id {
				return false, nil
			}
		}
		underWay, err := s.refreshing(ctx, ill)
		return underWay == 0, err
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

// compare works out the ratios and the noise.
func (r *results) compare() {
	var all []float64
	for _, c := range r.Cases {
		for _, group := range []*readers{&c.Refreshing, &c.Others} {
			group.Ratio = measure.Median(ratios(group.During, group.Between, group.After))
			calm := ratios(group.Control, group.Before, group.Between)
			group.CalmRatio = measure.Median(calm)
			all = append(all, calm...)
		}
	}
	r.Noise = noise{measure.Quantile(all, 0.1), measure.Quantile(all, 0.9)}
}

// ratios compare the p99 of times with the geometric mean of those before and after them.
func ratios(times, before, after []figures) []float64 {
	var all []float64
	for i, t := range times {
		all = append(all, t.P99/math.Sqrt(before[i].P99*after[i].P99))
	}
	return all
}
