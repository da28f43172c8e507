package main

import (
	"fmt"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot/plotter"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// target is how much of what others reach the token path is to reach.
const target = 0.97

func (r *results) print() {
	fmt.Printf("Warm reads over HTTP. %s.\n", r.Environment)
	audit := "with a file audit log"
	if !r.Options.Audit {
		audit = "without an audit log"
	}
	fmt.Printf("One Vault node %s, log level %s; readers on the same machine.\n", audit, r.Options.LogLevel)
	fmt.Printf("Medians of %d interleaved rounds of %s.\n", r.Options.Rounds, r.Options.Duration)
	fmt.Printf("Token requests at the authorization server, the first included: %d.\n\n", r.ASRequests)
	fmt.Println("series          fields, bytes   response, bytes")
	for _, a := range r.Answers {
		fmt.Printf("%-14s %14d %17d\n", a.Series, a.FieldBytes, a.ResponseBytes)
	}
	fmt.Println("\nreaders  series           reads/s     p50 ms     p99 ms   p99.9 ms")
	for _, l := range r.Loads {
		for _, s := range l.Series {
			m := s.Medians
			fmt.Printf("%7d  %-14s %9.0f %10.2f %10.2f %10.2f\n", l.Readers, s.Name, m.Throughput, m.P50, m.P99, m.P999)
		}
	}
	fmt.Println("\nThroughput, as ratios within a round: median (middle half)")
	fmt.Println("readers  token/floor          token/KV             floor/KV             of floor/KV, token/KV is")
	for _, l := range r.Loads {
		fmt.Printf("%7d  %-19s  %-19s  %-19s  %.3f\n", l.Readers,
			l.Ratios[tokenToFloor], l.Ratios[tokenToKV], l.Ratios[floorToKV], l.share())
	}
	fmt.Println()
	for _, l := range r.Loads {
		verdict(l.Readers, "token/floor", l.Ratios[tokenToFloor].Median)
		verdict(l.Readers, "token/KV of floor/KV", l.share())
	}
}

// share is how much of the floor's ratio to KV the token path reaches, in medians. Within one round
// it would be the token path's ratio to the floor.
func (l *load) share() float64 { return l.Ratios[tokenToKV].Median / l.Ratios[floorToKV].Median }

func (r measuredRatio) String() string {
	return fmt.Sprintf("%.3f (%.3f-%.3f)", r.Median, r.Q1, r.Q3)
}

func verdict(readers int, what string, ratio float64) {
	met := "    met"
	if ratio < target {
		met = "NOT met"
	}
	fmt.Printf("target %.2f %s: %s with %d readers: %.3f\n", target, met, what, readers, ratio)
}

func (r *results) write(dir string) error { return measure.WriteJSON(dir, "reads.json", r) }

// draw draws the throughput and the latencies.
func (r *results) draw(dir string) error {
	if dir == "" {
		return nil
	}
	var (
		lines   []chart.Line
		sets    []chart.Set
		groups  []string
		readers []float64
		labels  []string
	)
	for _, l := range r.Loads {
		readers = append(readers, float64(l.Readers))
		labels = append(labels, strconv.Itoa(l.Readers))
		who := "1 reader"
		if l.Readers > 1 {
			who = fmt.Sprintf("%d readers", l.Readers)
		}
		for _, quantile := range []string{"p50", "p99", "p99.9"} {
			groups = append(groups, quantile+"\n"+who)
		}
	}
	for i := range seriesCount {
		line := chart.Line{Name: seriesNames[i]}
		set := chart.Set{Name: seriesNames[i]}
		for _, l := range r.Loads {
			m := l.Series[i].Medians
			line.XYs = append(line.XYs, plotter.XY{X: float64(l.Readers), Y: m.Throughput})
			set.Values = append(set.Values, m.P50, m.P99, m.P999)
		}
		lines, sets = append(lines, line), append(sets, set)
	}
	err := chart.Lines(filepath.Join(dir, "reads-throughput.svg"), "Warm reads: throughput", "readers", "reads a second",
		lines, chart.LogX, chart.LabelX(readers, labels...))
	if err != nil {
		return err
	}
	return chart.Marks(filepath.Join(dir, "reads-latency.svg"), "Warm reads: latency", "milliseconds",
		groups, sets, chart.LogY)
}
