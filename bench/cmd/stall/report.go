package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

func (r *results) Print() {
	fmt.Printf("Warm reads of %d names while authorization servers stall. %s.\n", r.Names, r.Environment)
	fmt.Printf("%d readers of the names whose refresh stalls and %d of the others; %d rounds, each of\n",
		r.Options.Readers, r.Options.Readers, r.Options.Rounds)
	fmt.Printf("%s calm, control, calm, stalled, calm. One Vault node with a file audit log, log level info.\n", r.Options.Duration)
	short := verdict{noise: r.Noise}
	var rows [][]string
	r.each(func(c *stallCase, names string, group readers) {
		control, stalled := summary(group.Control), summary(group.During)
		rows = append(rows, append(c.begin(names),
			measure.Decimals(control.P99, 1), measure.Decimals(stalled.P99, 1),
			measure.Decimals(group.CalmRatio, 2), short.of(group.Ratio),
			measure.Decimals(control.Slowest, 1), measure.Decimals(stalled.Slowest, 1)))
	})
	measure.Table(os.Stdout, []string{
		"stall", "servers", "names", "p99 control, ms", "p99 stalled, ms",
		"ratio control", "ratio stalled", "slowest control, ms", "slowest stalled, ms",
	}, rows...)
	fmt.Println("\np99: median over rounds. Ratio: to the calm times before and after it, median over rounds.")
	fmt.Printf("Noise: %.2f to %.2f; in 19 of 20 runs in which nothing happens the ratios of all %d lie there.\n",
		1/r.Noise.Wide, r.Noise.Wide, 2*len(r.Cases))
	fmt.Printf("The median of all %d control ratios is %.2f.\n", 2*len(r.Cases)*r.Options.Rounds, r.Noise.Median)
	slowest := func(of func(readers) []figures) string {
		var all []float64
		r.each(func(_ *stallCase, _ string, group readers) { all = append(all, medianSlowest(of(group))) })
		return fmt.Sprintf("%.0f to %.0f ms", slices.Min(all), slices.Max(all))
	}
	fmt.Printf("Each round's slowest read, median over the rounds: control %s, stalled %s.\n",
		slowest(func(g readers) []figures { return g.Control }), slowest(func(g readers) []figures { return g.During }))
	for _, c := range r.Cases {
		fmt.Printf("%s, %d servers: at least %d of %d refreshes under way to the end of each stall; %d tokens ended in one\n",
			c.Stall, c.Hosts, slices.Min(c.UnderWay), c.Hosts, c.Ended)
	}
	fmt.Printf("\nFor %s each, with slow answers, timeouts and retries in them: calm, stalled, calm\n", r.Options.Long)
	long := verdict{noise: r.Noise}
	rows = nil
	r.each(func(c *stallCase, names string, group readers) {
		if len(group.LongStall) == 0 {
			return
		}
		before, stalled, after := summary(group.LongBefore), summary(group.LongStall), summary(group.LongAfter)
		both := func(a, b float64) string { return measure.Decimals(a, 1) + ", " + measure.Decimals(b, 1) }
		rows = append(rows, append(c.begin(names),
			both(before.P99, after.P99), measure.Decimals(stalled.P99, 1), long.of(group.LongRatio),
			both(before.Slowest, after.Slowest), measure.Decimals(stalled.Slowest, 1), measure.Count(c.Attempts)))
	})
	measure.Table(os.Stdout, []string{
		"stall", "servers", "names", "p99 calm, before and after, ms", "p99 stalled, ms", "ratio",
		"slowest calm, ms", "slowest stalled, ms", "token requests",
	}, rows...)
	fmt.Printf("\ntarget %s: p99 not above the noise during each stall, in %d ratios\n", short, short.judged)
	fmt.Printf("target %s: the same during each long stall, in %d ratios\n", long, long.judged)
}

// begin begins a row of a table. A case has two rows, and its name is in the first.
func (c *stallCase) begin(names string) []string {
	if names != refreshingNames {
		return []string{"", "", names}
	}
	return []string{c.Stall, measure.Count(c.Hosts), names}
}

// A verdict reports whether any ratio passed to it is above the noise.
type verdict struct {
	noise          noise
	judged, beyond int
}

// of prints a ratio, and marks one beyond the noise.
func (v *verdict) of(ratio float64) string {
	v.judged++
	switch printed := measure.Decimals(ratio, 2); {
	case v.noise.covers(ratio):
		return printed
	case ratio < 1:
		return printed + ", below the noise" // the machine was busy in the calm periods, so this is not a stall
	default:
		v.beyond++
		return printed + ", beyond the noise"
	}
}

func (v verdict) String() string {
	if v.beyond > 0 {
		return fmt.Sprintf("NOT met by %d", v.beyond)
	}
	return "met"
}

// each calls f for each group of readers.
func (r *results) each(f func(c *stallCase, names string, group readers)) {
	for _, c := range r.Cases {
		f(c, refreshingNames, c.Refreshing)
		f(c, "other", c.Others)
	}
}

const refreshingNames = "refreshing"

// medianSlowest returns the median of the periods' slowest reads.
func medianSlowest(times []figures) float64 {
	var all []float64
	for _, t := range times {
		all = append(all, t.Slowest)
	}
	return measure.Median(all)
}

// summary returns the median p99 and the slowest read of several periods.
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

func (r *results) Draw(dir string) error {
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
		groups, []chart.Set{refreshing, others}, chart.Level(r.Noise.Wide), chart.Level(1/r.Noise.Wide))
}
