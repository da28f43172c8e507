// Command stall measures whether readers of warm tokens notice that authorization servers stall: one or ten servers
// answer after 5 s, never answer, or trickle, while their tokens are due and being refreshed. Undisturbed and
// disturbed periods alternate in one run.
//
// The figures do not change its exit status.
package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// options are the command's flags.
type options struct {
	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"` // the flag's Duration, for JSON
	Long     time.Duration `json:"-"`
	LongSecs float64       `json:"long_seconds"`
	Readers  int           `json:"readers"`
	output   *measure.Output
}

func main() {
	var o options
	flag.IntVar(&o.Rounds, "rounds", 8, "rounds; in each all cases take turns, each with one disturbed time among four undisturbed ones")
	flag.DurationVar(&o.Duration, "duration", 600*time.Millisecond, "duration of one measurement; at most "+longest.String())
	flag.DurationVar(&o.Long, "long", 12*time.Second, "duration of each part of the long measurement (undisturbed, disturbed, undisturbed again) with ten servers: long enough for slow answers, timeouts and retries")
	flag.IntVar(&o.Readers, "readers", 8, "readers of the names whose refresh stalls, and as many of other names")
	o.output = measure.OutputFlags("stall.json")
	flag.Parse()
	o.Seconds, o.LongSecs = o.Duration.Seconds(), o.Long.Seconds()
	measure.Main("stall", func(ctx context.Context) error { return run(ctx, o) })
}

// longest is short enough for a stalled refresh to last for a whole disturbed period.
const longest = 4 * time.Second

func run(ctx context.Context, o options) error {
	if o.Rounds < 1 || o.Readers < 1 || o.Duration <= 0 || o.Duration > longest || o.Long <= 0 {
		return errors.New("there must be a round, a reader and a long time, and a duration of at most " + longest.String())
	}
	return o.output.OnBed(ctx, "info", func(b *bed.Bed) (measure.Results, error) {
		s, err := newStage(ctx, b, o)
		if err != nil {
			return nil, err
		}
		return s.measure(ctx)
	})
}
