// Command fleet simulates the requests of a fleet of Vault Agents to Vault and to authorization servers with three
// kinds of secrets engine, see package fleet. The same seed gives the same figures.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/fleet"
)

var (
	lifetimes = []time.Duration{5 * time.Minute, time.Hour, 24 * time.Hour}
	schemes   = []fleet.Scheme{fleet.Engine, fleet.LeasePerRead, fleet.Polling}
	// starts are the ways in which agents start.
	starts = []struct {
		spread  time.Duration
		earlier bool // the first tokens were obtained at random within the previous lifetime
	}{{}, {spread: 10 * time.Minute}, {earlier: true}}
)

func main() {
	var o options
	flag.IntVar(&o.fleet.Brokers, "brokers", 1000, "brokers, each with a Vault Agent")
	flag.IntVar(&o.fleet.Servers, "servers", 100, "MCP servers, whose tokens each agent reads")
	flag.DurationVar(&o.fleet.Latency, "latency", 200*time.Millisecond, "time in which an authorization server answers")
	flag.Uint64Var(&o.fleet.Seed, "seed", 1, "seed of the random numbers")
	flag.StringVar(&o.out, "out", "", "directory to write fleet.json to")
	flag.StringVar(&o.plots, "plots", "", "directory to draw fleet-*.svg into")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

type options struct {
	fleet      fleet.Fleet
	out, plots string
}

func run(o options) error {
	if o.fleet.Brokers < 1 || o.fleet.Servers < 1 {
		return errors.New("a fleet has at least one broker and one server")
	}
	for _, dir := range []string{o.out, o.plots} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	fmt.Printf("Simulated: %d brokers, each with a Vault Agent that reads the tokens of %d MCP servers (seed %d)\n",
		o.fleet.Brokers, o.fleet.Servers, o.fleet.Seed)
	var results []fleet.Result
	var byStart [][]fleet.Result
	for i, start := range starts {
		var of []fleet.Result
		for _, lifetime := range lifetimes {
			f := o.fleet
			f.Spread, f.Lifetime = start.spread, lifetime
			if start.earlier {
				f.Before = lifetime
			}
			f.Horizon = max(2*time.Hour, 4*lifetime)
			loads, here := simulate(f)
			of = append(of, here...)
			if o.plots == "" || i > 0 {
				continue
			}
			err := fleet.DrawReads(o.plots, loads)
			if lifetime == time.Hour { // the plots for other lifetimes look alike
				err = errors.Join(err, fleet.DrawLoad(o.plots, here))
			}
			if err != nil {
				return err
			}
		}
		results, byStart = append(results, of...), append(byStart, of)
	}
	fleet.Tables(os.Stdout, byStart)
	fmt.Print(`
If the first readers obtain all tokens at one time, these become due together, even if the agents start at
different times. The reads spread if the tokens were obtained at different times, as by config writes.
Each reader has a lease of its own.
`)
	if o.out == "" {
		return nil
	}
	content, err := json.MarshalIndent(map[string]any{
		"brokers": o.fleet.Brokers,
		"servers": o.fleet.Servers,
		"seed":    o.fleet.Seed,
		"results": results,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "fleet.json"), append(content, '\n'), 0o644)
}

// simulate computes the load of a fleet for each scheme.
func simulate(f fleet.Fleet) ([]*fleet.Load, []fleet.Result) {
	loads := make([]*fleet.Load, len(schemes))
	results := make([]fleet.Result, len(schemes))
	var work sync.WaitGroup
	for i, scheme := range schemes {
		work.Go(func() {
			loads[i] = fleet.Simulate(f, scheme)
			results[i] = loads[i].Result()
		})
	}
	work.Wait()
	return loads, results
}
