package fleet

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// colours of the schemes, told apart by those who don't see all colours too.
var colours = [...]color.Color{
	Engine:       color.RGBA{R: 0, G: 114, B: 178, A: 255},
	LeasePerRead: color.RGBA{R: 213, G: 94, B: 0, A: 255},
	Polling:      color.RGBA{R: 153, G: 153, B: 153, A: 255},
}

const (
	plotWidth  = 18 * vg.Centimeter
	plotHeight = 9 * vg.Centimeter
)

// DrawReads draws the reads a second of loads of one fleet over its first lifetimes, without the
// reads of the start.
func DrawReads(dir string, loads []*Load) error {
	f := loads[0].Fleet
	lifetimes := min(8*f.Lifetime, f.Horizon)
	bin := max(time.Second, (lifetimes / 600).Truncate(time.Second))
	unit, name := time.Minute, "minutes"
	if f.Lifetime >= time.Hour {
		unit, name = time.Hour, "hours"
	}
	p := plot.New()
	p.Title.Text = fmt.Sprintf("Reads of %d tokens by %d Vault Agents that start %s; tokens live for %s",
		f.Servers, f.Brokers, f.start(), short(f.Lifetime))
	p.X.Label.Text = name + " since the start, whose reads are left out"
	p.Y.Label.Text = "reads a second (means over " + short(bin) + ")"
	p.Y.Min = 0
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	// The engine last, over the others.
	for i := len(loads) - 1; i >= 0; i-- {
		l := loads[i]
		line, err := plotter.NewLine(l.means(l.Reads, l.started(), lifetimes, bin, unit))
		if err != nil {
			return err
		}
		line.Color = colours[l.Scheme]
		line.Width = vg.Points(1.2)
		p.Add(line)
		p.Legend.Add(l.Scheme.String(), line)
	}
	p.Y.Max *= 1.25 // room for the legend
	return p.Save(plotWidth, plotHeight, filepath.Join(dir, "fleet-reads-"+short(f.Lifetime)+".svg"))
}

// means are a series' means over bins, from a time to another.
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

// DrawLoad draws averages and peaks of results of one fleet, without its start, as bars on a
// logarithmic scale.
func DrawLoad(dir string, results []Result) error {
	groups := []struct {
		name string
		of   func(Result) float64
	}{
		{"reads,\naverage", func(r Result) float64 { return r.Reads.Average }},
		{"reads,\npeak", func(r Result) float64 { return r.Reads.peak() }},
		{"AS requests,\naverage", func(r Result) float64 { return r.Fetches.Average }},
		{"AS requests,\npeak", func(r Result) float64 { return r.Fetches.peak() }},
		{"storage writes,\naverage", func(r Result) float64 { return r.Writes.Average }},
		{"storage writes,\npeak", func(r Result) float64 { return r.Writes.peak() }},
	}
	lifetime := short(time.Duration(results[0].Lifetime) * time.Second)
	p := plot.New()
	p.Title.Text = "After the start; tokens live for " + lifetime
	p.Y.Label.Text = "a second (logarithmic)"
	p.Y.Min, p.Y.Max = 0, math.Log10(mostBar/leastBar)
	p.Y.Tick.Marker = plot.ConstantTicks(powers())
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	width := vg.Points(18)
	for i, r := range results {
		// The package draws bars up from 0, which a logarithmic axis does not have.
		values := make(plotter.Values, len(groups))
		names := make([]string, len(groups))
		for j, g := range groups {
			values[j] = math.Log10(max(g.of(r), leastBar) / leastBar)
			names[j] = g.name
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.Color = colours[i]
		bars.LineStyle.Width = 0
		bars.Offset = width * vg.Length(float64(i)-float64(len(results)-1)/2)
		p.Add(bars)
		p.Legend.Add(r.Scheme, bars)
		p.NominalX(names...)
	}
	return p.Save(plotWidth, plotHeight, filepath.Join(dir, "fleet-load-"+lifetime+".svg"))
}

// Bars begin and end where no figure drawn is less or more.
const leastBar, mostBar = 0.0005, 1_000_000

// powers are ticks at the powers of ten.
func powers() []plot.Tick {
	var ticks []plot.Tick
	for v := 0.001; v < mostBar; v *= 10 {
		ticks = append(ticks, plot.Tick{Value: math.Log10(v / leastBar), Label: fmt.Sprintf("%.6g", v)})
	}
	return ticks
}
