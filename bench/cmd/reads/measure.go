package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// readerCounts are the numbers of readers to measure.
var readerCounts = []int{1, 16, 64}

// warmUp is the duration of reads of each series before a round if the plugins' processes are new.
const warmUp = time.Second

// orders are the orders of the series in a round. Each series comes equally often in each position, and equally often
// right after each other series.
var orders = [][seriesCount]int{
	{seriesFloor, seriesFloorAgain, seriesToken, seriesKV},
	{seriesFloorAgain, seriesKV, seriesFloor, seriesToken},
	{seriesKV, seriesToken, seriesFloorAgain, seriesFloor},
	{seriesToken, seriesFloor, seriesKV, seriesFloorAgain},
}

// A results is everything measured.
type results struct {
	Environment measure.Environment `json:"environment"`
	Options     options             `json:"options"`
	Answers     []answer            `json:"answers"`
	Loads       []load              `json:"loads"`                         // of readers with a single policy
	Default     []load              `json:"loads_with_default_policy"`     // of readers that also have Vault's default policy
	ASRequests  int                 `json:"authorization_server_requests"` // in total, including the first token's
}

// A load holds the figures for one number of readers.
type load struct {
	Readers int                 `json:"readers"`
	Series  [seriesCount]series `json:"series"`
	Ratios  map[string]ratio    `json:"throughput_ratios"`
	// Share is the token path's ratio to KV v2 divided by the floor plugin's ratio to KV v2, in medians. Within a
	// single round it would equal the token path's ratio to the floor plugin.
	Share float64 `json:"token_to_kv_of_floor_to_kv"`
	// CPURatios are ratios of the CPU time of Vault and its plugins per read.
	CPURatios map[string]ratio `json:"cpu_ratios"`
}

// A series holds the figures of one path.
type series struct {
	Name  string `json:"name"`
	Reads int    `json:"reads"` // over all rounds
	// Throughput is the median over the rounds, in reads a second.
	Throughput float64 `json:"reads_per_second"`
	// Latencies of the reads of all rounds.
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p99_9_ms"`
	// CPU is the CPU time of Vault and its plugins per read over all rounds, in microseconds.
	CPU    float64 `json:"cpu_us_per_read"`
	Rounds []round `json:"rounds"`

	latencies []time.Duration
	cpu       time.Duration
}

// A round holds the figures of a series in one round.
type round struct {
	Turn       int     `json:"turn"` // position within the round, from 0
	Throughput float64 `json:"reads_per_second"`
	CPU        float64 `json:"cpu_us_per_read"`
}

// A ratio compares two series in the same round. It holds the median over the rounds, the middle half, and the 95 %
// confidence interval of the median.
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
	// The mean of both floors varies less than either floor.
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

// load measures with one number of readers. Each round reads each series in turn.
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
		// Otherwise the log would grow by some gigabytes.
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

// compare computes the ratios.
func (l *load) compare() {
	l.Ratios = l.ratios(func(r round) float64 { return r.Throughput })
	l.Share = l.Ratios[tokenToKV].Median / l.Ratios[floorToKV].Median
	l.CPURatios = l.ratios(func(r round) float64 { return r.CPU })
}

// take makes a group of readers read their series for one turn of a round.
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

// sum computes a series' figures over all rounds.
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

// ratios compares a figure of the series, round by round.
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
