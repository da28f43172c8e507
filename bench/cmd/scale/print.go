package main

import (
	"fmt"
	"path/filepath"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
)

const (
	mib = 1 << 20
	// most is how much memory the plugin's process is to need at most for 10,000 tokens.
	most = 100 * mib
)

// inMiB prints bytes.
func inMiB(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/mib) }

func (r *report) print() {
	fmt.Printf("Scale. %s.\n", r.Environment)
	if r.Mount != nil {
		r.Mount.print()
	}
	if r.Engine != nil {
		r.Engine.print()
	}
}

func (m *mountReport) print() {
	fmt.Printf("\nThe plugin on a real Vault; tokens of %d bytes\n", tokenSize)
	fmt.Printf("%8s  %-27s  %-16s  %-29s  %s\n", "", "first answer, s, after", "all loaded", "memory after loading, MiB", "after fetching")
	fmt.Printf("%8s  %13s  %12s  %7s  %7s  %8s  %9s  %8s  %8s  %8s\n",
		"configs", "plugin killed", "unsealing", "s", "CPU s", "resident", "anonymous", "peak", "resident", "peak")
	for _, s := range m.Steps {
		fmt.Printf("%8d  %13.3f  %12.3f  %7.2f  %7.2f  %8s  %9s  %8s  %8s  %8s\n", s.Configs, s.First, s.Mounted, s.Loaded, s.LoadCPU,
			inMiB(s.Memory.Resident), inMiB(s.Memory.Anonymous), inMiB(s.Memory.Peak), inMiB(s.Fetched.Resident), inMiB(s.Fetched.Peak))
	}
	fmt.Printf("memory at rest, MiB: %s resident, of which anonymous (heap and stacks) %s\n", inMiB(m.AtRest.Resident), inMiB(m.AtRest.Anonymous))
	fmt.Printf("with one config: %s resident, of which anonymous %s; the rest is the binary's pages\n",
		inMiB(m.AtRestOfOne.Resident), inMiB(m.AtRestOfOne.Anonymous))
	fmt.Printf("with tokens of an hour, all replaced a while ago: %s resident, of which anonymous %s\n",
		inMiB(m.AtWork.Resident), inMiB(m.AtWork.Anonymous))
	first, last := m.Steps[0], m.last()
	fmt.Printf("memory of one more token: %.1f KiB after loading, %.1f KiB at rest\n",
		m.perToken(first.Memory, last.Memory)/1024, m.perToken(m.AtRestOfOne, m.AtRest)/1024)
	fmt.Printf("CPU while nobody asks for anything:\n  no token due: %s of one CPU; with one config %s\n  tokens of an hour: %s of one CPU, with %.1f refreshes a second\n",
		m.Idle, m.IdleOfOne, m.Busy, float64(m.Busy.Refreshes)/time.Duration(m.Busy.Over).Seconds())
	fmt.Printf("configs written a second: %.0f; tokens fetched a second: %.0f\n", m.Written, m.Fetched)
	fmt.Printf("\n%-48s  %8s  %8s  %8s\n", "with all configs", "s", "KiB", "peak MiB")
	fmt.Printf("%-48s  %8s  %8s  %8s\n", "writing the second half of them", "", "", inMiB(m.WritePeak))
	for _, r := range m.Requests {
		what := r.What
		if r.AtOnce > 1 {
			what = fmt.Sprintf("the same, %d at once", r.AtOnce)
		}
		fmt.Printf("%-48s  %8.3f  %8.1f  %8s\n", what, r.Seconds, float64(r.Bytes)/1024, inMiB(r.Peak))
	}
	verdict := "met"
	if m.peak() > most {
		verdict = "NOT met"
	}
	fmt.Printf("target %s: at most %s MiB for 10,000 tokens, whatever is asked: %s with %d\n", verdict, inMiB(most), inMiB(m.peak()), m.last().Configs)
}

// String is the share of one CPU in percent. Nothing counted is less than a tick.
func (u use) String() string {
	if u.CPU == 0 {
		return fmt.Sprintf("< %.2f %%", 100*float64(clockTick)/float64(u.Over))
	}
	return fmt.Sprintf("%.2f %%", 100*u.share())
}

func (m *mountReport) last() step { return m.Steps[len(m.Steps)-1] }

// perToken is what each token but the first adds to the process.
func (m *mountReport) perToken(of1, ofAll memory) float64 {
	return float64(ofAll.Anonymous-of1.Anonymous) / float64(max(1, m.last().Configs-m.Steps[0].Configs))
}

// peak is the most memory that was resident at any time.
func (m *mountReport) peak() int64 {
	peak := max(m.WritePeak, m.AtRest.Peak, m.AtWork.Peak)
	for _, s := range m.Steps {
		peak = max(peak, s.Memory.Peak, s.Fetched.Peak)
	}
	for _, r := range m.Requests {
		peak = max(peak, r.Peak)
	}
	return peak
}

func (e *engineReport) print() {
	fmt.Printf("\nThe engine alone, %d names; a storage read takes %.2f ms, a token request %.0f ms\n", e.Names, 1000*e.GetTime, 1000*e.FetchTime)
	fmt.Printf("all timers set after %.2f s; first answer after %.1f ms; slowest while loading %.1f ms\n", e.Loaded, 1000*e.First, 1000*e.Reads)
	fmt.Printf("heap of a name: %.0f bytes, of which the access token %d\n", e.Heap, e.Token)
	fmt.Printf("memory of a due refresh that waits for its turn: %.0f bytes\n", e.Queued)
	fmt.Println("\nTokens due all at once")
	fmt.Printf("%6s  %7s  %8s  %10s  %8s  %13s  %17s\n", "hosts", "names", "all in s", "valid for", "too late", "refreshes a s", "bound allows a s")
	for _, b := range e.Bursts {
		fmt.Printf("%6d  %7d  %8.2f  %10.2f  %8d  %13.0f  %17.0f\n", b.Hosts, b.Names, b.Seconds, b.Margin, b.Late, b.Rate, b.Bound)
	}
	fmt.Println("\nMost tokens that may fall due at once and are replaced in time: computed from the bounds;\na machine may manage fewer (see the tokens fetched a second)")
	fmt.Printf("%9s  %13s  %12s  %9s\n", "lifetime", "token request", "of one host", "over all")
	for _, l := range e.Limits {
		fmt.Printf("%9s  %13s  %12d  %9d\n", inWords(l.Lifetime), inWords(l.Fetch), l.PerHost, l.OverAll)
	}
}

func inWords(s float64) string { return time.Duration(s * float64(time.Second)).String() }

// plot draws what the report has.
func (r *report) plot(dir string) error {
	if dir == "" {
		return nil
	}
	if m := r.Mount; m != nil {
		var fetched, loaded plotter.XYs
		for _, s := range m.Steps {
			fetched = append(fetched, plotter.XY{X: float64(s.Configs), Y: float64(s.Fetched.Resident) / mib})
			loaded = append(loaded, plotter.XY{X: float64(s.Configs), Y: float64(s.Memory.Resident) / mib})
		}
		err := chart.Lines(filepath.Join(dir, "scale-memory.svg"), "Memory of the plugin's process", "tokens", "MiB resident", []chart.Line{
			{Name: "all tokens just fetched", XYs: fetched},
			{Name: "all tokens just loaded", XYs: loaded},
			{Name: "bound for 10,000", XYs: plotter.XYs{{X: 0, Y: most / mib}, {X: float64(m.last().Configs), Y: most / mib}}},
		})
		if err != nil {
			return err
		}
	}
	if e := r.Engine; e != nil {
		var measured, bound plotter.XYs
		for _, b := range e.Bursts {
			measured = append(measured, plotter.XY{X: float64(b.Hosts), Y: b.Rate})
			bound = append(bound, plotter.XY{X: float64(b.Hosts), Y: b.Bound})
		}
		return chart.Lines(filepath.Join(dir, "scale-refresh.svg"), "Tokens due at once; a token request takes "+inWords(e.FetchTime),
			"authorization servers", "tokens replaced a second", []chart.Line{
				{Name: "measured", XYs: measured},
				{Name: "as the bounds allow", XYs: bound},
			}, chart.LogX, chart.LogY)
	}
	return nil
}
