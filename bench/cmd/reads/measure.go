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

// warmUp is how long each series is read before a round, if the plugins' processes are new.
const warmUp = time.Second

// orders are the orders in which a round may take the series: each comes first, second, third and
// last as often, and each comes just after each other one as often.
var orders = [][seriesCount]int{
	{seriesFloor, seriesFloorAgain, seriesToken, seriesKV},
	{seriesFloorAgain, seriesKV, seriesFloor, seriesToken},
	{seriesKV, seriesToken, seriesFloorAgain, seriesFloor},
	{seriesToken, seriesFloor, seriesKV, seriesFloorAgain},
}

// A results is all that was measured.
type results struct {
	Environment measure.Environment `json:"environment"`
	Options     options             `json:"options"`
	Answers     []answer            `json:"answers"`
	Loads       []load              `json:"loads"`                         // of readers with one policy
	Default     []load              `json:"loads_with_default_policy"`     // and of those with Vault's default policy too
	ASRequests  int                 `json:"authorization_server_requests"` // in all, the first token's included
}

// A load holds the figures for one number of readers.
type load struct {
	Readers int                 `json:"readers"`
	Series  [seriesCount]series `json:"series"`
	Ratios  map[string]ratio    `json:"throughput_ratios"`
	// Share is how much of the floor plugin's ratio to KV v2 the token path's reaches, in medians.
	// Within one round it would be the token path's ratio to the floor plugin.
	Share float64 `json:"token_to_kv_of_floor_to_kv"`
	// CPURatios are of Vault's and its plugins' CPU time for each read.
	CPURatios map[string]ratio `json:"cpu_ratios"`
}

// A series holds the figures of one path that was read.
type series struct {
	Name  string `json:"name"`
	Reads int    `json:"reads"` // in all rounds
	// Throughput is the median of the rounds', in reads a second.
	Throughput float64 `json:"reads_per_second"`
	// Latencies of the reads of all rounds together.
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p99_9_ms"`
	// CPU is Vault's and its plugins' for each read of all rounds, in microseconds.
	CPU    float64 `json:"cpu_us_per_read"`
	Rounds []round `json:"rounds"`

	latencies []time.Duration
	cpu       time.Duration
}

// A round of a series.
type round struct {
	Turn       int     `json:"turn"` // in which it was read within the round, from 0
	Throughput float64 `json:"reads_per_second"`
	CPU        float64 `json:"cpu_us_per_read"`
}

// A ratio is of two series in the same round: the median over the rounds, the middle half, and where
// the median lies with a confidence of 95 %.
type ratio struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"first_quartile"`
	Q3     float64 `json:"third_quartile"`
	Low    float64 `json:"low_95"`
	High   float64 `json:"high_95"`
}

// The ratios, by name.
const (
	tokenToFloor = "token path / floor plugin"
	// Of the two floors the mean varies less than either.
	tokenToFloors = "token path / mean of both floors"
	floorToFloor  = "floor again / floor plugin"
	tokenToKV     = "token path / KV v2"
	floorToKV     = "floor plugin / KV v2"
)

func (s *stage) measure(ctx context.Context) (*results, error) {
	r := &results{Options: s.options, Answers: s.answers}
	var err error
	if r.Environment, err = measure.Here(ctx, s.root); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		policies string
		rounds   int
		loads    *[]load
	}{{onePolicy, s.Rounds, &r.Loads}, {withDefault, s.DefaultRounds, &r.Default}} {
		if part.rounds == 0 {
			continue
		}
		for _, readers := range readerCounts {
			fmt.Fprintf(os.Stderr, "reads: %d rounds with %d readers, %s\n", part.rounds, readers, part.policies)
			l, err := s.load(ctx, part.policies, readers, part.rounds)
			if err != nil {
				return nil, err
			}
			*part.loads = append(*part.loads, *l)
		}
	}
	requests, err := s.bed.AS.Requests(ctx, name)
	r.ASRequests = len(requests)
	return r, err
}

// load measures with one number of readers: in each round each series in turn.
func (s *stage) load(ctx context.Context, policies string, readers, rounds int) (*load, error) {
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
		if groups[i], err = s.readers(ctx, policies, i, readers); err != nil {
			return nil, err
		}
	}
	for n := range rounds {
		if n%s.Block == 0 {
			if err := s.replacePlugins(ctx); err != nil {
				return nil, err
			}
			for _, group := range groups {
				if _, err := measure.Read(ctx, warmUp, group); err != nil {
					return nil, err
				}
			}
		}
		// It would grow by some gigabytes.
		if err := os.Truncate(s.bed.Vault.AuditLog, 0); err != nil {
			return nil, err
		}
		for turn, i := range orders[n%len(orders)] {
			if err := s.take(ctx, &l.Series[i], turn, groups[i]); err != nil {
				return nil, err
			}
		}
	}
	for i := range l.Series {
		l.Series[i].sum()
	}
	l.compare()
	return l, nil
}

// compare works out the ratios.
func (l *load) compare() {
	l.Ratios = l.ratios(func(r round) float64 { return r.Throughput })
	l.Share = l.Ratios[tokenToKV].Median / l.Ratios[floorToKV].Median
	l.CPURatios = l.ratios(func(r round) float64 { return r.CPU })
}

// take lets a group of readers read their series for one turn of a round.
func (s *stage) take(ctx context.Context, of *series, turn int, group []*measure.Reader) error {
	pid := s.bed.Nodes[0].PID()
	before, err := measure.TreeCPU(pid)
	if err != nil {
		return err
	}
	seen, err := measure.Read(ctx, s.Duration, group)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r := round{Turn: turn, Throughput: seen[0].Throughput()}
	after, err := measure.TreeCPU(pid)
	if err != nil {
		return err
	}
	of.cpu += after - before
	r.CPU = perRead(after-before, len(seen[0].Latencies))
	of.Rounds = append(of.Rounds, r)
	of.latencies = append(of.latencies, seen[0].Latencies...)
	return nil
}

func perRead(cpu time.Duration, reads int) float64 {
	return float64(cpu) / float64(time.Microsecond) / float64(reads)
}

// sum computes the figures over all rounds.
func (s *series) sum() {
	var throughputs []float64
	for _, r := range s.Rounds {
		throughputs = append(throughputs, r.Throughput)
	}
	s.Reads = len(s.latencies)
	s.Throughput = measure.Median(throughputs)
	s.P50 = measure.Milliseconds(s.latencies, 0.5)
	s.P99 = measure.Milliseconds(s.latencies, 0.99)
	s.P999 = measure.Milliseconds(s.latencies, 0.999)
	s.CPU = perRead(s.cpu, s.Reads)
	s.latencies = nil
}

// ratios compares a figure of the series round by round.
func (l *load) ratios(of func(round) float64) map[string]ratio {
	compare := func(one int, others ...int) ratio {
		var values []float64
		for i, r := range l.Series[one].Rounds {
			mean := 0.0
			for _, other := range others {
				mean += of(l.Series[other].Rounds[i]) / float64(len(others))
			}
			values = append(values, of(r)/mean)
		}
		low, high := measure.Interval(values)
		return ratio{
			Median: measure.Median(values),
			Q1:     measure.Quantile(values, 0.25),
			Q3:     measure.Quantile(values, 0.75),
			Low:    low,
			High:   high,
		}
	}
	return map[string]ratio{
		tokenToFloor:  compare(seriesToken, seriesFloor),
		tokenToFloors: compare(seriesToken, seriesFloor, seriesFloorAgain),
		floorToFloor:  compare(seriesFloorAgain, seriesFloor),
		tokenToKV:     compare(seriesToken, seriesKV),
		floorToKV:     compare(seriesFloor, seriesKV),
	}
}
