package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

func (r *results) print() {
	fmt.Printf("Warm reads of %d names while authorization servers (AS) stall. %s.\n", r.Names, r.Environment)
	fmt.Printf("%d readers of the names whose refresh stalls and %d of the others; %d rounds, each of\n",
		r.Options.Readers, r.Options.Readers, r.Options.Rounds)
	fmt.Printf("%s calm, control, calm, stalled, calm. One Vault node with a file audit log, log level info.\n\n", r.Options.Duration)
	fmt.Println("                                          p99, ms        p99 ratio          slowest read, ms")
	fmt.Println("stall                 AS  names    control  stalled   stalled  control     control   stalled")
	within := true
	r.each(func(c *stallCase, names string, group readers) {
		control, stalled := summary(group.Control), summary(group.During)
		note := ""
		if !r.Noise.covers(group.Ratio) {
			within, note = false, "  beyond the noise"
		}
		fmt.Printf("%-19s %4d  %-10s %6.2f %8.2f    %6.2f   %6.2f    %8.1f  %8.1f%s\n", c.Stall, c.Hosts, names,
			control.P99, stalled.P99, group.Ratio, group.CalmRatio, control.Slowest, stalled.Slowest, note)
	})
	fmt.Println("\np99: median over rounds. Ratio: to the calm times before and after it, median over rounds.")
	fmt.Printf("Noise: four fifths of all %d control ratios are %.2f to %.2f; to both sides: %.2f to %.2f.\n\n",
		2*len(r.Cases)*r.Options.Rounds, r.Noise.Least, r.Noise.Most, 1/r.Noise.wide(), r.Noise.wide())
	for _, c := range r.Cases {
		fmt.Printf("%s, %d AS: at least %d of %d refreshes under way to the end of each stall\n",
			c.Stall, c.Hosts, slices.Min(c.UnderWay), c.Hosts)
	}
	fmt.Printf("\nFor %s each, with slow answers, timeouts and retries in them:\n", r.Options.Long)
	fmt.Println("                                          p99, ms      slowest read, ms   token")
	fmt.Println("stall                 AS  names       calm  stalled      calm   stalled   requests")
	r.each(func(c *stallCase, names string, group readers) {
		if calm, stalled := group.LongCalm, group.LongStall; calm != nil {
			fmt.Printf("%-19s %4d  %-10s %6.2f %8.2f  %8.1f  %8.1f   %8d\n", c.Stall, c.Hosts, names,
				calm.P99, stalled.P99, calm.Slowest, stalled.Slowest, c.Attempts)
		}
	})
	verdict := "met"
	if !within {
		verdict = "NOT met"
	}
	fmt.Printf("\ntarget %s: median ratio of the p99 during every stall within the noise of times to which nothing happens\n", verdict)
}

// each calls f for what each group of readers saw.
func (r *results) each(f func(c *stallCase, names string, group readers)) {
	for _, c := range r.Cases {
		f(c, "refreshing", c.Refreshing)
		f(c, "other", c.Others)
	}
}

// summary is the median p99 and the slowest read of several times.
func summary(times []figures) figures {
	var p99 []float64
	var s figures
	for _, r := range times {
		p99 = append(p99, r.P99)
		s.Slowest = max(s.Slowest, r.Slowest)
	}
	s.P99 = measure.Median(p99)
	return s
}

func (r *results) write(dir string) error { return measure.WriteJSON(dir, "stall.json", r) }

func (r *results) draw(dir string) error {
	if dir == "" {
		return nil
	}
	var groups []string
	refreshing := chart.Set{Name: "names whose refresh stalls"}
	others := chart.Set{Name: "other names"}
	for _, c := range r.Cases {
		servers := "1 AS"
		if c.Hosts > 1 {
			servers = fmt.Sprintf("%d AS", c.Hosts)
		}
		groups = append(groups, servers+"\n"+c.Stall)
		refreshing.Values = append(refreshing.Values, c.Refreshing.Ratio)
		others.Values = append(others.Values, c.Others.Ratio)
	}
	return chart.Bars(filepath.Join(dir, "stall.svg"), "Reads while authorization servers (AS) stall", "p99, stalled / calm (dashed: noise)",
		groups, []chart.Set{refreshing, others}, chart.Level(r.Noise.wide()), chart.Level(1/r.Noise.wide()))
}
