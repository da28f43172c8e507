package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/chart"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

func (r *results) Print() {
	w := r.Profiled
	fmt.Printf("CPU of a warm read. %s.\n", r.Environment)
	fmt.Printf("One Vault node with a file audit log, log level info; %d readers on the same machine, with Vault's default policy.\n", r.Options.Readers)
	fmt.Printf("%s reads in %d times %s, %s a second. ", measure.Count(w.Reads), r.Options.Windows, r.Options.Duration, measure.Count(w.Throughput))
	fmt.Printf("Token requests at the authorization server, the first included: %d.\n", r.ASRequests)
	percent := func(p float64) string { return measure.Decimals(p, 1) + " %" }
	process := func(name string, cpu float64) []string {
		return []string{name, measure.Count(cpu), percent(100 * cpu / w.all())}
	}
	measure.Table(os.Stdout, []string{"process", "µs", ""},
		process("Vault", w.Vault), process("plugin", w.Plugin), process("readers", w.Readers), process("all", w.all()))
	var vault, plugin [][]string
	for _, i := range ranked(r.Vault) {
		s := r.Vault[i]
		vault = append(vault, []string{s.Layer, measure.Count(s.PerRead), percent(s.Percent), measure.Count(float64(s.Samples))})
	}
	measure.Table(os.Stdout, []string{"in Vault", "µs", "", "samples"}, vault...)
	for _, i := range ranked(r.Plugin) {
		s := r.Plugin[i]
		plugin = append(plugin, []string{
			s.Layer, measure.Decimals(s.PerRead, 1), percent(s.Percent), measure.Count(float64(s.Samples)),
			measure.Decimals(r.ObjectsBy[i].PerRead, 1), measure.Count(r.BytesBy[i].PerRead),
		})
	}
	plugin = append(plugin, []string{"all", measure.Decimals(w.Plugin, 1), percent(100), "", measure.Decimals(r.Objects, 1), measure.Count(r.Bytes)})
	measure.Table(os.Stdout, []string{"in the plugin", "µs", "", "samples", "objects", "bytes"}, plugin...)
	fmt.Println("\nOf n samples a figure is known to 2/√n of it, with a confidence of 95 %.")
}

// ranked returns the indexes of the shares with samples, the largest share first.
func ranked(shares []share) (places []int) {
	for i, s := range shares {
		if s.Samples > 0 {
			places = append(places, i)
		}
	}
	slices.SortStableFunc(places, func(a, b int) int { return cmp.Compare(shares[b].PerRead, shares[a].PerRead) })
	return places
}

// Draw draws the CPU by layer.
func (r *results) Draw(dir string) error {
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
