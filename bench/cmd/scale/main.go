// Command scale measures what many tokens cost.
//
// On a real Vault: the plugin's process with thousands of configs, each with a token. How soon after
// a restart it answers, how long it takes to set all timers, what memory and idle CPU it takes,
// how long lists take, and whether all tokens are replaced in time that fell due in an outage of Vault. Its authorization server is a handler of this process, because an OpenID
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
	"syscall"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// options are what the command is given. For JSON, times are in seconds.
type options struct {
	Configs int     `json:"configs"` // on the real Vault
	Names   int     `json:"names"`   // in the engine alone
	Rounds  int     `json:"rounds"`  // restarts at each step
	Idle    seconds `json:"idle"`    // over which CPU is measured
	Rest    seconds `json:"rest"`    // before memory at rest is measured
	Burst   seconds `json:"burst"`   // for how long tokens that are due at once are to keep the engine busy
	out     string
	plots   string
}

type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(s).Seconds()) }

func main() {
	var o options
	flag.IntVar(&o.Configs, "configs", 10_000, "configs with tokens on the real Vault; 0 leaves them out")
	flag.IntVar(&o.Names, "names", 100_000, "names in the engine alone; 0 leaves that part out")
	flag.IntVar(&o.Rounds, "rounds", 3, "restarts of the plugin at each number of configs")
	flag.DurationVar((*time.Duration)(&o.Idle), "idle", time.Minute, "how long to watch the CPU of a plugin that nobody asks for anything")
	flag.DurationVar((*time.Duration)(&o.Rest), "rest", 150*time.Second, "how long to leave the plugin alone, the above and the engine's part included, before its memory at rest is read: Go collects garbage at least every two minutes, and then gives memory back")
	flag.DurationVar((*time.Duration)(&o.Burst), "burst", 5*time.Second, "how long each burst of due refreshes is to take")
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
	Environment measure.Environment `json:"environment"`
	Options     options             `json:"options"`
	Mount       *mountReport        `json:"mount,omitempty"`
	Engine      *engineReport       `json:"engine,omitempty"`
}

func run(ctx context.Context, o options) (err error) {
	r := report{Options: o}
	m, err := startMount(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	root, err := m.node.Root()
	if err != nil {
		return err
	}
	if r.Environment, err = measure.Here(ctx, root); err != nil {
		return err
	}
	if o.Configs > 0 {
		if r.Mount, err = m.measure(ctx, o); err != nil {
			return err
		}
	}
	if o.Names > 0 {
		if r.Engine, err = measureEngine(ctx, o); err != nil {
			return err
		}
	}
	if r.Mount != nil {
		if r.Mount.AtRest, err = m.memoryAtRest(ctx, o); err != nil {
			return err
		}
		if r.Mount.Busy, err = m.busy(ctx, o); err != nil {
			return err
		}
		if r.Mount.AtWork, err = m.memory(); err != nil {
			return err
		}
		if r.Mount.Outages, err = m.outages(ctx); err != nil {
			return err
		}
	}
	r.print()
	return errors.Join(measure.WriteJSON(o.out, "scale.json", r), r.plot(o.plots))
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
