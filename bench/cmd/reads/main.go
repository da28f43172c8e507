// Command reads compares warm token reads on a real Vault, in the same rounds, with reads of a plugin that answers a
// constant (the floor) and of a KV v2 secret, both with fields of the same names and sizes. The floor plugin runs
// twice, and the token path is also compared with the mean of both. Readers have one policy, and in a second part
// also Vault's default policy.
//
// The figures do not change its exit status.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// options are the command's flags.
type options struct {
	Rounds        int           `json:"rounds"`
	DefaultRounds int           `json:"rounds_with_default_policy"`
	Block         int           `json:"rounds_per_plugin_process"`
	Duration      time.Duration `json:"-"`
	Audit         bool          `json:"audit"`
	LogLevel      string        `json:"log_level"`
	Seconds       float64       `json:"seconds"` // the flag's Duration, for JSON
	// Directory is the place of Vault's storage and audit log.
	Directory string `json:"directory"`
	output    *measure.Output
}

func main() {
	var o options
	flag.IntVar(&o.Rounds, "rounds", 80, "rounds for each number of readers, a multiple of 4: each order of the series comes up as often")
	flag.IntVar(&o.DefaultRounds, "default-rounds", 40, "the same for readers who have Vault's default policy too; 0 leaves them out")
	flag.IntVar(&o.Block, "block", 16, "rounds after which the plugins' processes are replaced")
	flag.DurationVar(&o.Duration, "duration", 300*time.Millisecond, "how long each series is read in a round")
	flag.BoolVar(&o.Audit, "audit", true, "whether Vault writes a file audit log, as in production")
	flag.StringVar(&o.LogLevel, "log-level", "info", "Vault's log level")
	o.output = measure.OutputFlags("reads.json")
	flag.Parse()
	o.Seconds = o.Duration.Seconds()
	measure.Main("reads", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	if o.Rounds < 1 || o.Rounds%len(orders) != 0 || o.DefaultRounds < 0 || o.DefaultRounds%len(orders) != 0 || o.Block < 1 || o.Duration <= 0 {
		return fmt.Errorf("there must be rounds, a multiple of %d, and they must last", len(orders))
	}
	// If possible, the audit log is in memory, because Vault's work is measured and not the disk's.
	if memory, err := os.Stat("/dev/shm"); err == nil && memory.IsDir() && os.Getenv("TMPDIR") == "" {
		if err := os.Setenv("TMPDIR", "/dev/shm"); err != nil {
			return err
		}
	}
	o.Directory = os.TempDir()
	return o.output.OnBed(ctx, o.LogLevel, func(b *bed.Bed) (measure.Results, error) {
		s, err := newStage(ctx, b, o)
		if err != nil {
			return nil, err
		}
		return s.measure(ctx)
	})
}
