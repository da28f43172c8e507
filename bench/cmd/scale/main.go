// Command scale measures what many tokens cost.
//
// On a real Vault: the plugin's process with thousands of configs, each with a token. How soon after
// a restart it answers, how long it takes to set all timers, what memory and idle CPU it takes, and
// how long lists take. Its authorization server is a handler of this process, because an OpenID
// provider would need minutes for so many tokens.
//
// In this process: the engine alone with many more names, over storage and an authorization server
// that only wait. How long loading takes, what a name costs in memory, and how fast tokens that fall
// due all at once are replaced within the bounds on fetches.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

type options struct {
	configs int           // on the real Vault
	names   int           // in the engine alone
	rounds  int           // restarts at each step
	idle    time.Duration // over which idle CPU is measured
	rest    time.Duration // before memory at rest is measured
	burst   time.Duration // for how long tokens that are due at once are to keep the engine busy
	out     string
	plots   string
}

func main() {
	var o options
	flag.IntVar(&o.configs, "configs", 10_000, "configs with tokens on the real Vault; 0 leaves that part out")
	flag.IntVar(&o.names, "names", 100_000, "names in the engine alone; 0 leaves that part out")
	flag.IntVar(&o.rounds, "rounds", 3, "restarts of the plugin at each number of configs")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "how long to watch the idle plugin's CPU")
	flag.DurationVar(&o.rest, "rest", 125*time.Second, "how long to leave the plugin alone, the above and the engine's part included, before its memory at rest is read: Go collects garbage at least every two minutes")
	flag.DurationVar(&o.burst, "burst", 5*time.Second, "how long each burst of due refreshes is to take")
	flag.StringVar(&o.out, "out", "", "directory for scale.json")
	flag.StringVar(&o.plots, "plots", "", "directory for the plots")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// report is what is written as JSON. Times are in seconds, memory in bytes.
type report struct {
	Date   string        `json:"date"`
	Go     string        `json:"go"`
	Vault  string        `json:"vault,omitempty"`
	CPUs   int           `json:"cpus"`
	Mount  *mountReport  `json:"mount,omitempty"`
	Engine *engineReport `json:"engine,omitempty"`
}

func run(ctx context.Context, o options) (err error) {
	r := report{Date: time.Now().UTC().Format(time.DateOnly), Go: runtime.Version(), CPUs: runtime.NumCPU()}
	var m *mount
	if o.configs > 0 {
		if m, err = startMount(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.close()) }()
		r.Vault = m.version
		if r.Mount, err = m.measure(ctx, o); err != nil {
			return err
		}
	}
	if o.names > 0 {
		if r.Engine, err = measureEngine(ctx, o); err != nil {
			return err
		}
	}
	if m != nil {
		if r.Mount.AtRest, err = m.memoryAtRest(ctx, o.rest); err != nil {
			return err
		}
	}
	r.print()
	return r.write(o)
}

func (r *report) write(o options) error {
	if o.out != "" {
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.out, "scale.json"), append(data, '\n'), 0o600); err != nil {
			return err
		}
	}
	if o.plots == "" {
		return nil
	}
	return r.plot(o.plots)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
