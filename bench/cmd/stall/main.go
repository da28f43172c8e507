// Command stall measures whether readers of warm tokens notice that authorization servers stall: one
// or ten of them take 5 s for an answer, never answer, or trickle, while the tokens that come from
// there are being refreshed. Undisturbed and disturbed times take turns in one run.
//
// It is to tell, not to fail: whatever the figures are it exits 0.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// options are what the command is given.
type options struct {
	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"` // Duration, for JSON
	Readers  int           `json:"readers"`
	out      string
	plots    string
}

func main() {
	var o options
	flag.IntVar(&o.Rounds, "rounds", 4, "rounds; in each all cases take turns, each between two undisturbed times")
	flag.DurationVar(&o.Duration, "duration", 1200*time.Millisecond, "how long is read at a time; at most "+longest.String())
	flag.IntVar(&o.Readers, "readers", 8, "readers of the names whose refresh stalls, and as many of other names")
	flag.StringVar(&o.out, "out", "", "directory for stall.json; none where empty")
	flag.StringVar(&o.plots, "plots", "", "directory for the plot; none where empty")
	flag.Parse()
	o.Seconds = o.Duration.Seconds()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stall:", err)
		os.Exit(1)
	}
}

// longest is such that a refresh that stalls is under way for the whole of a disturbed time.
const longest = 4 * time.Second

func run(ctx context.Context, o options) (err error) {
	if o.Rounds < 1 || o.Readers < 1 || o.Duration <= 0 || o.Duration > longest {
		return errors.New("there must be a round and a reader, and a duration of at most " + longest.String())
	}
	b, err := bed.Start(ctx, bed.Options{LogLevel: "info"})
	if err != nil {
		return err
	}
	defer func() {
		_, closeErr := b.Close()
		err = errors.Join(err, closeErr)
	}()
	s, err := newStage(ctx, b, o)
	if err != nil {
		return err
	}
	results, err := s.measure(ctx)
	if err != nil {
		return err
	}
	results.print()
	return errors.Join(results.write(o.out), results.draw(o.plots))
}
