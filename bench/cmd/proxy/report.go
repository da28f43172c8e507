package main

import (
	"fmt"
	"os"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// The targets are the least share of a bare ReverseProxy's throughput, and the largest memory with 1,000 open streams
// in MiB.
const (
	leastRatio = 0.95
	mostMemory = 32
)

func (r *results) print() {
	fmt.Printf("mcp-token-proxy against a bare ReverseProxy to the same server; %d rounds of 4 turns of %s each.\n",
		r.Options.Rounds, r.Options.Duration)
	var rows [][]string
	for _, t := range r.Cases {
		rows = append(rows, []string{
			measure.Count(t.Connections), measure.Count(measure.Median(t.Bare)), measure.Count(measure.Median(t.Token)),
			fmt.Sprintf("%.3f (%.3f to %.3f)", t.Ratio, t.Low, t.High),
			fmt.Sprintf("%.0f, %.0f", t.BareCPU, t.TokenCPU),
		})
	}
	measure.Table(os.Stdout, []string{"connections", "bare, calls/s", "mcp-token-proxy, calls/s", "ratio", "CPU of a call, µs: bare, mcp-token-proxy"}, rows...)
	fmt.Printf("\nMemory: %.1f MiB idle; with %d open streams %.1f MiB, at most %.1f (bare: %.1f).\n",
		r.Idle, r.Options.Streams, r.Streams, r.Peak, r.Bare)
	for _, t := range r.Cases {
		fmt.Printf("target %s: at least %.2f of the throughput with %d connections\n", met(t.Ratio >= leastRatio), leastRatio, t.Connections)
	}
	if r.Options.Streams >= 1000 {
		fmt.Printf("target %s: less than %d MiB\n", met(r.Peak < mostMemory), mostMemory)
	}
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "NOT met"
}

func (r *results) write(dir string) error { return measure.WriteJSON(dir, "proxy.json", r) }
