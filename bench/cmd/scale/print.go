package main

import (
	"fmt"
	"path/filepath"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
)

const mib = 1 << 20

// inMiB prints bytes.
func inMiB(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/mib) }

func (r *report) print() {
	fmt.Printf("Scale, %s, %s, %d CPUs", r.Date, r.Go, r.CPUs)
	if r.Vault != "" {
		fmt.Printf(", Vault %s", r.Vault)
	}
	fmt.Println()
	if r.Mount != nil {
		r.Mount.print()
	}
	if r.Engine != nil {
		r.Engine.print()
	}
}

func (m *mountReport) print() {
	fmt.Printf("\nThe plugin on a real Vault; tokens of %d bytes\n", tokenSize)
	fmt.Printf("%8s  %-27s  %-16s  %-25s  %s\n", "", "first answer, s, after", "all loaded", "memory after loading, MiB", "after fetching")
	fmt.Printf("%8s  %13s  %12s  %7s  %7s  %8s  %5s  %8s  %14s\n",
		"configs", "plugin killed", "unsealing", "s", "CPU s", "resident", "heap", "peak", "resident")
	for _, s := range m.Steps {
		fmt.Printf("%8d  %13.3f  %12.3f  %7.2f  %7.2f  %8s  %5s  %8s  %14s\n", s.Configs, s.First, s.Mounted, s.Loaded, s.LoadCPU,
			inMiB(s.Memory.Resident), inMiB(s.Memory.Anonymous), inMiB(s.Memory.Peak), inMiB(s.Fetched.Resident))
	}
	fmt.Printf("memory at rest, MiB: %s resident, of which heap and stacks %s\n", inMiB(m.AtRest.Resident), inMiB(m.AtRest.Anonymous))
	first := m.Steps[0].Memory
	fmt.Printf("with one config: %s resident, of which heap and stacks %s; the rest is the binary's pages\n", inMiB(first.Resident), inMiB(first.Anonymous))
	fmt.Printf("memory of one more token: %.1f KiB after loading, %.1f KiB at rest\n", m.perToken(m.last().Memory)/1024, m.perToken(m.AtRest)/1024)
	fmt.Printf("idle CPU: %.2f %% of one CPU; with one config %.2f %%\n", 100*m.Idle, 100*m.IdleOfOne)
	fmt.Printf("configs written a second: %.0f; tokens fetched a second: %.0f\n", m.Written, m.Fetched)
	for _, l := range []struct {
		name string
		list
	}{{"config/", m.ConfigList}, {"status/", m.StatusList}, {"status/, half without tokens", m.EmptyList}} {
		fmt.Printf("list of %-29s %6.0f ms, %6.1f KiB\n", l.name+":", 1000*l.Seconds, float64(l.Bytes)/1024)
	}
}

func (m *mountReport) last() step { return m.Steps[len(m.Steps)-1] }

// perToken is what each token but the first adds to the process.
func (m *mountReport) perToken(with memory) float64 {
	first, last := m.Steps[0], m.last()
	return float64(with.Anonymous-first.Memory.Anonymous) / float64(max(1, last.Configs-first.Configs))
}

func (e *engineReport) print() {
	fmt.Printf("\nThe engine alone, %d names; a storage read takes %.2f ms, a token request %.0f ms\n", e.Names, 1000*e.GetTime, 1000*e.FetchTime)
	fmt.Printf("all timers set after %.2f s; first answer after %.1f ms; slowest while loading %.1f ms\n", e.Loaded, 1000*e.First, 1000*e.Reads)
	fmt.Printf("heap of a name: %.0f bytes, of which the access token %d\n", e.Heap, e.Token)
	fmt.Printf("memory of a due refresh that waits for its turn: %.0f bytes\n", e.Queued)
	fmt.Println("\nTokens due all at once")
	fmt.Printf("%6s  %7s  %8s  %13s  %17s\n", "hosts", "names", "all in s", "refreshes a s", "bound allows a s")
	for _, b := range e.Bursts {
		fmt.Printf("%6d  %7d  %8.2f  %13.0f  %17.0f\n", b.Hosts, b.Names, b.Seconds, b.Rate, b.Bound)
	}
	fmt.Println("\nMost tokens that may fall due at once and are replaced in time: computed from the bounds;\na machine may manage fewer (see the tokens fetched a second)")
	fmt.Printf("%9s  %13s  %12s  %9s\n", "lifetime", "token request", "of one host", "over all")
	for _, l := range e.Limits {
		fmt.Printf("%9s  %13s  %12d  %9d\n", seconds(l.Lifetime), seconds(l.Fetch), l.PerHost, l.OverAll)
	}
}

func seconds(s float64) string { return time.Duration(s * float64(time.Second)).String() }

// plot draws what the report has.
func (r *report) plot(dir string) error {
	if m := r.Mount; m != nil {
		var fetched, loaded plotter.XYs
		for _, s := range m.Steps {
			fetched = append(fetched, plotter.XY{X: float64(s.Configs), Y: float64(s.Fetched.Resident) / mib})
			loaded = append(loaded, plotter.XY{X: float64(s.Configs), Y: float64(s.Memory.Resident) / mib})
		}
		err := chart.Lines(filepath.Join(dir, "scale-memory.svg"), "Memory of the plugin's process", "tokens", "MiB resident", []chart.Line{
			{Name: "all tokens just fetched", XYs: fetched},
			{Name: "all tokens just loaded", XYs: loaded},
			{Name: "bound for 10,000", XYs: plotter.XYs{{X: 0, Y: 100}, {X: float64(m.last().Configs), Y: 100}}},
		})
		if err != nil {
			return err
		}
	}
	if e := r.Engine; e != nil {
		// What 10,000 names would take at the rates that were measured.
		var measured, bound plotter.XYs
		for _, b := range e.Bursts {
			measured = append(measured, plotter.XY{X: float64(b.Hosts), Y: 10_000 / b.Rate})
			bound = append(bound, plotter.XY{X: float64(b.Hosts), Y: 10_000 / b.Bound})
		}
		return chart.Lines(filepath.Join(dir, "scale-refresh.svg"), "10,000 tokens due at once", "authorization servers", "s until all are refreshed", []chart.Line{
			{Name: "measured", XYs: measured},
			{Name: "as the bounds allow", XYs: bound},
		})
	}
	return nil
}
