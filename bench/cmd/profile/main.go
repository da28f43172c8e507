// Command profile shows where a warm token read on a real Vault spends its CPU time: by process, and within Vault and
// the plugin by layer, from profiles of both taken while readers read. It also shows how much the plugin allocates
// per read.
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
	Readers  int           `json:"readers"`
	Windows  int           `json:"windows"`
	Duration time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"` // the flag's Duration, for JSON
	output   *measure.Output
	profiles string
}

func main() {
	var o options
	flag.IntVar(&o.Readers, "readers", 16, "readers of the token")
	flag.IntVar(&o.Windows, "windows", 8, "number of profiles")
	flag.DurationVar(&o.Duration, "duration", 40*time.Second, "how long to read for the profiles each time; at most "+longest.String())
	o.output = measure.OutputFlags("profile.json")
	flag.StringVar(&o.profiles, "profiles", "", "directory for the profiles themselves, for go tool pprof; if empty, none")
	flag.Parse()
	o.Seconds = o.Duration.Seconds()
	measure.Main("profile", func(ctx context.Context) error { return run(ctx, o) })
}

// longest is shorter than Vault's limit for a request, which also holds for the request for its profile.
const longest = time.Minute

func run(ctx context.Context, o options) error {
	if o.Readers < 1 || o.Windows < 1 || o.Duration < 2*time.Second || o.Duration > longest {
		return errors.New("there must be a reader, and it must read for two seconds to " + longest.String())
	}
	return o.output.OnBed(ctx, "info", func(b *bed.Bed) (measure.Results, error) {
		s, err := newStage(ctx, b, o)
		if err != nil {
			return nil, err
		}
		defer s.close()
		return s.measure(ctx)
	})
}
