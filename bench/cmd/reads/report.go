package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot/plotter"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// target is the lowest acceptable ratio of the token path to the others.
const target = 0.97

func (r *results) Print() {
	fmt.Printf("Warm reads over HTTP. %s.\n", r.Environment)
	audit := "with a file audit log"
	if !r.Options.Audit {
		audit = "without an audit log"
	}
	fmt.Printf("One Vault node %s, log level %s; readers on the same machine.\n", audit, r.Options.LogLevel)
	fmt.Printf("%d interleaved rounds of %s for each series, %d with the default policy, with new plugin processes every %d; files in %s.\n",
		r.Options.Rounds, r.Options.Duration, r.Options.DefaultRounds, r.Options.Block, r.Options.Directory)
	fmt.Printf("Token requests at the authorization server, the first included: %d.\n", r.ASRequests)
	var answers [][]string
	for _, a := range r.Answers {
		answers = append(answers, []string{a.Series, measure.Count(a.FieldBytes), measure.Count(a.ResponseBytes)})
	}
	measure.Table(os.Stdout, []string{"series", "bytes of the fields", "bytes of the response"}, answers...)
	for _, part := range []struct {
		policies string
		loads    []load
	}{{onePolicy, r.Loads}, {withDefault, r.Default}} {
		if len(part.loads) > 0 {
			fmt.Printf("\nReaders have %s:\n", part.policies)
			printLoads(part.loads)
		}
	}
}

func printLoads(loads []load) {
	var series [][]string
	for _, l := range loads {
		for i, s := range l.Series {
			readers := ""
			if i == 0 {
				readers = strconv.Itoa(l.Readers)
			}
			series = append(series, []string{
				readers, s.Name, measure.Count(s.Throughput),
				measure.Decimals(s.P50, 2), measure.Decimals(s.P99, 2), measure.Decimals(s.P999, 2), measure.Count(s.CPU), measure.Count(s.Reads),
			})
		}
	}
	measure.Table(os.Stdout, []string{"readers", "series", "reads/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs a read", "reads"}, series...)
	for _, table := range []struct {
		what   string
		ratios func(load) map[string]ratio
	}{
		{"Throughput", func(l load) map[string]ratio { return l.Ratios }},
		{"CPU of Vault and its plugins for each read", func(l load) map[string]ratio { return l.CPURatios }},
	} {
		fmt.Printf("\n%s, as ratios within a round: median, and where it lies with a confidence of 95 %%\n", table.what)
		var rows [][]string
		for _, l := range loads {
			of := table.ratios(l)
			row := []string{strconv.Itoa(l.Readers)}
			for _, name := range []string{tokenToFloor, tokenToFloors, floorToFloor, tokenToKV, floorToKV} {
				row = append(row, of[name].String())
			}
			rows = append(rows, row)
		}
		measure.Table(os.Stdout, []string{"readers", "token / floor", "token / mean of both floors", "floor again / floor", "token / KV v2", "floor / KV v2"}, rows...)
	}
	fmt.Println()
	for _, l := range loads {
		fmt.Printf("target %.2f of token/floor with %d readers: %s\n", target, l.Readers, l.Ratios[tokenToFloor].verdict())
		fmt.Printf("target %.2f of token/mean of both floors with %d readers: %s\n", target, l.Readers, l.Ratios[tokenToFloors].verdict())
		fmt.Printf("target %.2f of token/KV to floor/KV with %d readers: %.3f\n", target, l.Readers, l.Share)
	}
}

func (r ratio) String() string { return fmt.Sprintf("%.3f (%.3f-%.3f)", r.Median, r.Low, r.High) }

// verdict reports whether the target is met, and whether the run is precise enough to decide that.
func (r ratio) verdict() string {
	verdict := "met"
	if r.Median < target {
		verdict = "NOT met"
	}
	if r.Low < target && target <= r.High {
		verdict += ", within what this run can tell"
	}
	return verdict + ": " + r.String()
}

// Draw draws the throughput and the latencies.
func (r *results) Draw(dir string) error {
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
		for _, quantile := range []string{"p50", "p99", "p99.9"} {
			groups = append(groups, fmt.Sprintf("%s\n%d", quantile, l.Readers))
		}
	}
	// The token path comes first, and so gets the strongest colour.
	for _, i := range []int{seriesToken, seriesFloor, seriesKV, seriesFloorAgain} {
		line := chart.Line{Name: seriesNames[i]}
		set := chart.Set{Name: seriesNames[i]}
		for _, l := range r.Loads {
			m := l.Series[i]
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
		groups, sets, chart.LogY, chart.NameX("quantile, number of readers"))
}
