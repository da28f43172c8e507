package fleet

import (
	"fmt"
	"math"
	"path/filepath"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
)

// DrawReads draws the reads per second of loads of one fleet during its first lifetimes, without the reads at the
// start.
func DrawReads(dir string, loads []*Load) error {
	f := loads[0].Fleet
	lifetimes := min(8*f.Lifetime, f.Horizon)
	bin := max(time.Second, (lifetimes / 600).Truncate(time.Second))
	unit, name := time.Minute, "minutes"
	if f.Lifetime >= time.Hour {
		unit, name = time.Hour, "hours"
	}
	var lines []chart.Line
	var at []float64 // lifetimes since the start
	var labels []string
	for since := time.Duration(0); since <= lifetimes; since += f.Lifetime {
		at = append(at, since.Seconds()/unit.Seconds())
		labels = append(labels, fmt.Sprint(int(since/unit)))
	}
	for _, l := range loads {
		lines = append(lines, chart.Line{Name: l.Scheme.String(), XYs: l.means(l.Reads, l.started(), lifetimes, bin, unit)})
	}
	return chart.Lines(filepath.Join(dir, "fleet-reads-"+short(f.Lifetime)+".svg"),
		fmt.Sprintf("Reads of %d tokens that live for %s, by %d Vault Agents that start %s",
			f.Servers, short(f.Lifetime), f.Brokers, f.start()),
		name+" since the start, whose reads are left out",
		"reads a second (means over "+short(bin)+")", lines, chart.LabelX(at, labels...))
}

// means returns a series' means over bins, within a period.
func (l *Load) means(series []int32, from, to, bin, unit time.Duration) plotter.XYs {
	var points plotter.XYs
	for at := from; at+bin <= to; at += bin {
		sum := 0
		for _, n := range series[at/time.Second : (at+bin)/time.Second] {
			sum += int(n)
		}
		points = append(points, plotter.XY{
			X: (at + bin/2).Seconds() / unit.Seconds(),
			Y: float64(sum) / bin.Seconds(),
		})
	}
	return points
}

// DrawLoad draws averages and peaks of a fleet's results without its start: the peaks of the first token lifetime
// after the start, and the lasting ones.
func DrawLoad(dir string, results []Result) error {
	var groups []string
	for _, what := range []string{"reads", "requests", "writes"} {
		groups = append(groups, what+",\naverage", what+",\n1st peak", what+",\nlater peak")
	}
	var sets []chart.Set
	for _, r := range results {
		var values []float64
		for _, f := range []Figures{r.Reads, r.Fetches, r.Writes} {
			values = append(values, f.Average, float64(f.FirstInterval), float64(f.Later))
		}
		for i, v := range values {
			if v == 0 {
				values[i] = math.NaN() // a logarithmic axis has no 0
			}
		}
		sets = append(sets, chart.Set{Name: r.Scheme, Values: values})
	}
	lifetime := short(time.Duration(results[0].Lifetime) * time.Second)
	return chart.Marks(filepath.Join(dir, "fleet-load-"+lifetime+".svg"),
		"After the start; tokens live for "+lifetime+"; requests: to the AS", "a second", groups, sets, chart.LogY)
}
