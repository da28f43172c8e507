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
	fmt.Printf("%d readers of the names whose refresh stalls and %d of the others; %d rounds of %s before,\n",
		r.Options.Readers, r.Options.Readers, r.Options.Rounds, r.Options.Duration)
	fmt.Print("during and after each stall. One Vault node with a file audit log, log level info.\n\n")
	fmt.Println("                                         p99, ms           p99          slowest read, ms")
	fmt.Println("stall                 AS  names       calm  stalled   ratio (noise)       calm   stalled")
	for _, c := range r.Cases {
		for _, row := range []struct {
			names   string
			readers readers
		}{{"refreshing", c.Refreshing}, {"other", c.Others}} {
			calm, stalled := summary(slices.Concat(row.readers.Before, row.readers.After)), summary(row.readers.During)
			fmt.Printf("%-19s %4d  %-10s %6.2f %8.2f   %5.2f  (%4.2f)   %8.1f  %8.1f\n", c.Stall, c.Hosts, row.names,
				calm.P99, stalled.P99, row.readers.Ratio, row.readers.Noise, calm.Slowest, stalled.Slowest)
		}
	}
	fmt.Println("\np99: median over rounds. Ratio: during the stall to before and after it, median over rounds.")
	fmt.Print("Noise: of after to before, or the other way round; the largest of all rounds.\n\n")
	within := true
	for _, c := range r.Cases {
		fmt.Printf("%s, %d AS: at least %d of %d refreshes under way to the end of each stall\n",
			c.Stall, c.Hosts, slices.Min(c.UnderWay), c.Hosts)
		within = within && c.Refreshing.Ratio <= c.Refreshing.Noise && c.Others.Ratio <= c.Others.Noise
	}
	verdict := "met"
	if !within {
		verdict = "NOT met"
	}
	fmt.Printf("target %s: p99 during every stall within the noise of the times before and after\n", verdict)
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
	return chart.Bars(filepath.Join(dir, "stall.svg"), "Reads while authorization servers (AS) stall", "p99, stalled / calm",
		groups, []chart.Set{refreshing, others}, chart.Level(1))
}
