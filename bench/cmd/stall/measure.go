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
}

// A stallCase is one way to stall, of so many authorization servers.
type stallCase struct {
	Stall      string  `json:"stall"`
	Hosts      int     `json:"authorization_servers"` // each with one token, which is being refreshed
	UnderWay   []int   `json:"refreshes_under_way"`   // at the end of each disturbed time
	Refreshing readers `json:"refreshing_names"`      // what readers of those tokens saw
	Others     readers `json:"other_names"`

	how       stall
	ill, well []*host
}

// readers are what one group of readers saw in each round.
type readers struct {
	Before []figures `json:"undisturbed_before"`
	During []figures `json:"disturbed"`
	After  []figures `json:"undisturbed_after"`
	Ratio  float64   `json:"p99_ratio"` // disturbed / undisturbed, the median over the rounds
	// Noise is the largest ratio of the p99 of the two undisturbed times of a round, whichever is
	// the larger.
	Noise float64 `json:"p99_noise"`
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
		c.Refreshing.compare()
		c.Others.compare()
	}
	return r, nil
}

// round measures a case once: before it is disturbed, while it is, and after.
func (s *stage) round(ctx context.Context, c *stallCase) error {
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
	read := func(one, other *[]figures) error {
		seen, err := measure.Read(ctx, s.Duration, refreshing, others)
		// The log would grow by some gigabytes.
		if err := errors.Join(err, ctx.Err(), os.Truncate(s.bed.Vault.AuditLog, 0)); err != nil {
			return err
		}
		*one, *other = append(*one, newFigures(seen[0])), append(*other, newFigures(seen[1]))
		return nil
	}
	if err := read(&c.Refreshing.Before, &c.Others.Before); err != nil {
		return err
	}
	held, err := s.tokenIDs(ctx, c.ill)
	if err != nil {
		return err
	}
	refreshes, err := s.begin(ctx, c.how, c.ill)
	defer refreshes.Wait()
	if err != nil {
		return err
	}
	if err := read(&c.Refreshing.During, &c.Others.During); err != nil {
		return err
	}
	underWay, err := s.refreshing(ctx, c.ill)
	if err != nil {
		return err
	}
	c.UnderWay = append(c.UnderWay, underWay)
	if err := s.end(ctx, c.ill, held); err != nil {
		return err
	}
	return read(&c.Refreshing.After, &c.Others.After)
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

// compare works out the ratio and the noise. The disturbed time of each round is compared with the
// geometric mean of its undisturbed ones.
func (r *readers) compare() {
	var ratios []float64
	for i, during := range r.During {
		before, after := r.Before[i].P99, r.After[i].P99
		ratios = append(ratios, during.P99/math.Sqrt(before*after))
		r.Noise = max(r.Noise, before/after, after/before)
	}
	r.Ratio = measure.Median(ratios)
}
