package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// readerCounts are the numbers of readers, each measured by itself.
var readerCounts = []int{1, 16, 64}

// warmUp is how long each series is read before the first round of a number of readers.
const warmUp = time.Second

// A results is all that was measured.
type results struct {
	Environment measure.Environment `json:"environment"`
	Options     options             `json:"options"`
	Answers     []answer            `json:"answers"`
	Loads       []load              `json:"loads"`
	ASRequests  int                 `json:"authorization_server_requests"` // in all, the first token's included
}

// A load is what was measured with one number of readers.
type load struct {
	Readers int                      `json:"readers"`
	Series  [seriesCount]series      `json:"series"`
	Ratios  map[string]measuredRatio `json:"throughput_ratios"`
}

// A series is what the readers of one thing saw.
type series struct {
	Name    string    `json:"name"`
	Reads   int       `json:"reads"` // in all rounds
	Medians figures   `json:"medians"`
	Rounds  []figures `json:"rounds"`
}

// figures are a round's, or medians over rounds.
type figures struct {
	Throughput float64 `json:"reads_per_second"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p99_9_ms"`
}

// A measuredRatio is of two series in the same round: the median over the rounds, and the middle half.
type measuredRatio struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"first_quartile"`
	Q3     float64 `json:"third_quartile"`
}

// The ratios, by name.
const (
	tokenToFloor = "token path / floor plugin"
	tokenToKV    = "token path / KV v2"
	floorToKV    = "floor plugin / KV v2"
)

func (s *stage) measure(ctx context.Context) (*results, error) {
	r := &results{Options: s.options, Answers: s.answers}
	var err error
	if r.Environment, err = measure.Here(ctx, s.root); err != nil {
		return nil, err
	}
	for _, readers := range readerCounts {
		fmt.Fprintf(os.Stderr, "reads: %d rounds with %d readers\n", s.Rounds, readers)
		l, err := s.load(ctx, readers)
		if err != nil {
			return nil, err
		}
		r.Loads = append(r.Loads, *l)
	}
	requests, err := s.bed.AS.Requests(ctx, name)
	r.ASRequests = len(requests)
	return r, err
}

// load measures with one number of readers: in each round each series in turn, beginning with
// another one each time.
func (s *stage) load(ctx context.Context, readers int) (*load, error) {
	l := &load{Readers: readers}
	var groups [seriesCount][]*measure.Reader
	defer func() {
		for _, group := range groups {
			for _, r := range group {
				r.Close()
			}
		}
	}()
	for i := range seriesCount {
		l.Series[i].Name = seriesNames[i]
		var err error
		if groups[i], err = s.readers(ctx, i, readers); err != nil {
			return nil, err
		}
		if _, err := measure.Read(ctx, warmUp, groups[i]); err != nil {
			return nil, err
		}
	}
	for round := range s.Rounds {
		for turn := range seriesCount {
			i := (round + turn) % seriesCount
			seen, err := measure.Read(ctx, s.Duration, groups[i])
			if err != nil {
				return nil, err
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			l.Series[i].add(seen[0])
		}
		// It would grow by some gigabytes.
		if err := os.Truncate(s.bed.Vault.AuditLog, 0); err != nil {
			return nil, err
		}
	}
	for i := range l.Series {
		l.Series[i].Medians = medians(l.Series[i].Rounds)
	}
	l.Ratios = map[string]measuredRatio{
		tokenToFloor: l.ratio(seriesToken, seriesFloor),
		tokenToKV:    l.ratio(seriesToken, seriesKV),
		floorToKV:    l.ratio(seriesFloor, seriesKV),
	}
	return l, nil
}

func (s *series) add(seen measure.Series) {
	s.Reads += len(seen.Latencies)
	s.Rounds = append(s.Rounds, figures{
		Throughput: seen.Throughput(),
		P50:        measure.Milliseconds(seen.Latencies, 0.5),
		P99:        measure.Milliseconds(seen.Latencies, 0.99),
		P999:       measure.Milliseconds(seen.Latencies, 0.999),
	})
}

func medians(rounds []figures) figures {
	of := func(figure func(figures) float64) float64 {
		var values []float64
		for _, f := range rounds {
			values = append(values, figure(f))
		}
		return measure.Median(values)
	}
	return figures{
		Throughput: of(func(f figures) float64 { return f.Throughput }),
		P50:        of(func(f figures) float64 { return f.P50 }),
		P99:        of(func(f figures) float64 { return f.P99 }),
		P999:       of(func(f figures) float64 { return f.P999 }),
	}
}

// ratio compares the throughput of two series round by round.
func (l *load) ratio(one, other int) measuredRatio {
	var ratios []float64
	for i, f := range l.Series[one].Rounds {
		ratios = append(ratios, f.Throughput/l.Series[other].Rounds[i].Throughput)
	}
	return measuredRatio{
		Median: measure.Median(ratios),
		Q1:     measure.Quantile(ratios, 0.25),
		Q3:     measure.Quantile(ratios, 0.75),
	}
}
