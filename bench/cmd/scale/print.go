package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

const (
	mib = 1 << 20
	// most is the target for the plugin's memory with 10,000 tokens.
	most = 100 * mib
)

// inMiB prints bytes.
func inMiB(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/mib) }

func (r *report) Print() {
	fmt.Printf("Scale. %s.\n", r.Environment)
	r.Mount.print()
}

func (m *mountReport) print() {
	fmt.Printf("\nThe plugin on a real Vault; tokens of %d bytes\n", tokenSize)
	var steps [][]string
	for _, s := range m.Steps {
		steps = append(steps, []string{
			measure.Count(s.Configs), measure.Decimals(s.First, 2) + " s", measure.Decimals(s.Mounted, 2) + " s",
			measure.Decimals(s.Loaded, 1) + " s", measure.Decimals(s.LoadCPU, 2) + " s",
			fmt.Sprintf("%s MiB (%s)", inMiB(s.Memory.Resident), inMiB(s.Memory.Anonymous)),
			fmt.Sprintf("%s MiB, %s", inMiB(s.Fetched.Resident), inMiB(s.Fetched.Peak)),
		})
	}
	measure.Table(os.Stdout, []string{
		"configs", "first answer after the plugin was killed", "after unsealing", "all timers set",
		"CPU to load", "memory after loading (anonymous)", "after fetching, and its peak",
	}, steps...)

	first, last := m.Steps[0], m.last()
	all := measure.Count(last.Configs) + " configs"
	measure.Table(os.Stdout, []string{"with " + all, ""},
		[]string{fmt.Sprintf("memory at rest (%.0f s), after all below", time.Duration(m.Rest).Seconds()), fmt.Sprintf("%s MiB, of which anonymous %s; with one config %s, %s",
			inMiB(m.AtRest.Resident), inMiB(m.AtRest.Anonymous), inMiB(m.AtRestOfOne.Resident), inMiB(m.AtRestOfOne.Anonymous))},
		[]string{"one more token", fmt.Sprintf("%.1f KiB after loading, %.1f KiB at rest",
			m.perToken(first.Memory, last.Memory)/1024, m.perToken(m.AtRestOfOne, m.AtRest)/1024)},
		[]string{"CPU without requests, no token due", fmt.Sprintf("%s of one CPU; with one config %s", m.Idle, m.IdleOfOne)},
		[]string{"with tokens of an hour", fmt.Sprintf("%s of one CPU, for %.1f refreshes a second; %s MiB",
			m.Busy, float64(m.Busy.Refreshes)/time.Duration(m.Busy.Over).Seconds(), inMiB(m.AtWork.Resident))},
		[]string{"peak of memory while all are replaced, and with tokens of an hour", inMiB(m.AtWork.Peak) + " MiB"},
		[]string{"peak of memory while the second half of the configs is written", inMiB(m.WritePeak) + " MiB"},
		[]string{"written, and cold tokens obtained", fmt.Sprintf("%s and %s a second", measure.Count(m.Written), measure.Count(m.Fetched))},
	)
	var requests [][]string
	for _, r := range m.Requests {
		what := r.What
		if r.AtOnce > 1 {
			what = fmt.Sprintf("the same, %d at once", r.AtOnce)
		}
		requests = append(requests, []string{what, measure.Decimals(r.Seconds, 2), measure.Count(float64(r.Bytes) / 1024), inMiB(r.Peak)})
	}
	measure.Table(os.Stdout, []string{"with " + all, "s", "KiB", "peak of memory, MiB"}, requests...)

	if len(m.Outages) > 0 {
		fmt.Printf("\nTokens that became due while Vault was sealed, token requests of %d ms; from unsealing on\n", fetchLatency.Milliseconds())
		var outages [][]string
		for _, o := range m.Outages {
			outages = append(outages, []string{
				measure.Count(o.Hosts), measure.Count(o.Names), fmt.Sprintf("%.1f to %.1f s", o.Margin, o.Most), measure.Count(o.Late),
				measure.Decimals(o.Left, 1) + " s", measure.Decimals(o.Seconds, 1) + " s", measure.Count(o.Rate), measure.Count(o.Bound), inMiB(o.Memory.Peak) + " MiB",
			})
		}
		measure.Table(os.Stdout, []string{
			"hosts", "tokens due at once", "valid for", "too late", "least left of an old token",
			"all replaced after", "replaced a second", "bounds allow", "peak of memory",
		}, outages...)
	}

	fmt.Println()
	target := func(what string, peak int64) {
		verdict := "met"
		if peak > most {
			verdict = "NOT met"
		}
		fmt.Printf("target %s: less than %s MiB for 10,000 tokens, %s: %s MiB at most with %d\n", verdict, inMiB(most), what, inMiB(peak), last.Configs)
	}
	target("to write, load, fetch, hold and refresh them", m.holdingPeak())
	target("and to replace those that are all due at once", max(m.holdingPeak(), m.outagePeak()))
	target("and whatever is asked", m.peak())
}

// String returns the share of one CPU in percent.
func (u use) String() string {
	return fmt.Sprintf("%.3f %%", 100*u.share())
}

func (m *mountReport) last() step { return m.Steps[len(m.Steps)-1] }

// perToken returns the bytes of memory for each token after the first.
func (m *mountReport) perToken(of1, ofAll measure.Memory) float64 {
	return float64(ofAll.Anonymous-of1.Anonymous) / float64(max(1, m.last().Configs-m.Steps[0].Configs))
}

// peak returns the largest resident memory at any time.
func (m *mountReport) peak() int64 {
	peak := max(m.holdingPeak(), m.outagePeak())
	for _, r := range m.Requests {
		peak = max(peak, r.Peak)
	}
	return peak
}

// holdingPeak returns the peak while tokens were written, fetched, loaded, held and replaced. At rest, the current
// memory counts, because the peak still includes the previous requests.
func (m *mountReport) holdingPeak() int64 {
	peak := max(m.WritePeak, m.AtRest.Resident, m.AtWork.Peak)
	for _, s := range m.Steps {
		peak = max(peak, s.Memory.Peak, s.Fetched.Peak)
	}
	return peak
}

// outagePeak returns the largest memory after outages of Vault.
func (m *mountReport) outagePeak() int64 {
	var peak int64
	for _, o := range m.Outages {
		peak = max(peak, o.Memory.Peak)
	}
	return peak
}

// Draw draws the memory by number of tokens.
func (r *report) Draw(dir string) error {
	var fetched, loaded plotter.XYs
	for _, s := range r.Mount.Steps {
		fetched = append(fetched, plotter.XY{X: float64(s.Configs), Y: float64(s.Fetched.Resident) / mib})
		loaded = append(loaded, plotter.XY{X: float64(s.Configs), Y: float64(s.Memory.Resident) / mib})
	}
	return chart.Lines(filepath.Join(dir, "scale-memory.svg"), "Memory of the plugin's process", "tokens", "MiB resident", []chart.Line{
		{Name: "all tokens just fetched", XYs: fetched},
		{Name: "all tokens just loaded", XYs: loaded},
		{Name: "bound for 10,000", XYs: plotter.XYs{{X: 0, Y: most / mib}, {X: float64(r.Mount.last().Configs), Y: most / mib}}},
	})
}
