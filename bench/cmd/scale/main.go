// Command scale measures the plugin's process on a real Vault with thousands of configs, each with a token: the time
// to the first answer after a restart, the time until all timers are set, memory and CPU time while idle, the
// duration of lists and metrics, also while all tokens fail, and whether all tokens that become due during an outage
// of Vault are replaced in time.
//
// Its authorization server is a handler of this process, because an OpenID provider would need minutes for so many
// tokens.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// options are the command's flags. Times in JSON are in seconds.
type options struct {
	Configs int     `json:"configs"`
	Rounds  int     `json:"rounds"` // restarts in each step
	Idle    seconds `json:"idle"`   // duration of the CPU measurement
	Rest    seconds `json:"rest"`   // wait before memory at rest is read
	output  *measure.Output
}

type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(s).Seconds()) }

func main() {
	var o options
	flag.IntVar(&o.Configs, "configs", 10_000, "configs, each with a token")
	flag.IntVar(&o.Rounds, "rounds", 3, "restarts of the plugin at each number of configs")
	flag.DurationVar((*time.Duration)(&o.Idle), "idle", time.Minute, "how long to measure the CPU time of the idle plugin")
	flag.DurationVar((*time.Duration)(&o.Rest), "rest", 150*time.Second, "how long the plugin is idle before its memory at rest is read: Go collects garbage at least every two minutes, and then returns memory")
	o.output = measure.OutputFlags("scale.json")
	flag.Parse()
	measure.Main("scale", func(ctx context.Context) error { return run(ctx, o) })
}

// report is the JSON output. Times are in seconds, memory in bytes.
type report struct {
	Environment measure.Environment `json:"environment"`
	Options     options             `json:"options"`
	Mount       *mountReport        `json:"mount"`
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
	if r.Mount, err = m.measure(ctx, o); err != nil {
		return err
	}
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
	if err := m.failing(ctx, r.Mount); err != nil {
		return err
	}
	return o.output.Show(&r)
}
