package main

import (
	"fmt"
	"math"
	"path/filepath"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

func (r *results) print() {
	w := r.Profiled
	fmt.Printf("CPU of a warm read. %s.\n", r.Environment)
	fmt.Printf("One Vault node with a file audit log, log level info; %d readers on the same machine.\n", r.Options.Readers)
	fmt.Printf("%d reads in %s, %.0f a second. ", w.Reads, r.Options.Duration, w.Throughput)
	fmt.Printf("Token requests at the authorization server, the first included: %d.\n\n", r.ASRequests)
	fmt.Println("process                 µs per read   percent")
	for _, row := range []struct {
		process string
		cpu     float64
	}{{"Vault", w.Vault}, {"plugin", w.Plugin}, {"readers", w.Readers}, {"all", w.all()}} {
		fmt.Printf("%-22s %12.1f %9.1f\n", row.process, row.cpu, 100*row.cpu/w.all())
	}
	fmt.Println("\nlayer of Vault's process                        µs per read   percent")
	for _, s := range r.Vault {
		fmt.Printf("%-46s %12.1f %9.1f\n", s.Layer, s.PerRead, s.Percent)
	}
	fmt.Println("\nlayer of the plugin's process                   µs per read   percent     objects       bytes")
	for i, s := range r.Plugin {
		fmt.Printf("%-46s %12.1f %9.1f %11.1f %11.0f\n", s.Layer, s.PerRead, s.Percent, r.ObjectsBy[i].PerRead, r.BytesBy[i].PerRead)
	}
	fmt.Printf("%-46s %12.1f %9.1f %11.1f %11.0f\n", "all", w.Plugin, 100.0, r.Objects, r.Bytes)
	if len(r.Costs) == 0 {
		return
	}
	fmt.Printf("\nReads a second, CPU per read of Vault and of all in µs; %d rounds of turns of %s\n", len(r.Rounds), r.Options.Turn)
	fmt.Println("round         as usual            no audit log          no default policy")
	for i, turns := range r.Rounds {
		fmt.Printf("%5d", i+1)
		for _, w := range turns {
			fmt.Printf("   %6.0f %6.1f %6.1f", w.Throughput, w.Vault, w.all())
		}
		fmt.Println()
	}
	fmt.Println("\nWith it, in terms of without, in the same round: median (lowest-highest)")
	fmt.Println("                throughput            Vault's CPU per read  µs more  all CPU per read")
	for _, c := range r.Costs {
		fmt.Printf("%-15s %-21s %-21s %7.1f  %s\n", c.What, c.Throughput, c.Vault, c.VaultMore, c.All)
	}
}

func (r measuredRatio) String() string {
	return fmt.Sprintf("%.3f (%.3f-%.3f)", r.Median, r.Lowest, r.Most)
}

func (r *results) write(dir string) error { return measure.WriteJSON(dir, "profile.json", r) }

// draw draws the CPU by layer.
func (r *results) draw(dir string) error {
	if dir == "" {
		return nil
	}
	var groups []string
	values := [2]map[string]float64{{}, {}}
	known := make(map[string]bool)
	for i, layers := range [][]layer{vaultLayers, pluginLayers} {
		for _, l := range layers {
			if !known[l.short] {
				known[l.short] = true
				groups = append(groups, l.short)
			}
			for _, s := range [][]share{r.Vault, r.Plugin}[i] {
				if s.Layer == l.name {
					values[i][l.short] += s.PerRead
				}
			}
		}
	}
	sets := []chart.Set{{Name: "Vault"}, {Name: "plugin"}}
	for i := range sets {
		for _, group := range groups {
			value, ok := values[i][group]
			if !ok {
				value = math.NaN()
			}
			sets[i].Values = append(sets[i].Values, value)
		}
	}
	return chart.Bars(filepath.Join(dir, "profile.svg"), "CPU of a warm read by layer, µs", "µs", groups, sets)
}
