// Command proxy compares the throughput of mcp-token-proxy with that of a bare httputil.ReverseProxy, alternately, in
// front of the same MCP server. It also measures the memory of both with many open streams.
//
// The MCP server and Vault are handlers of this process: a proxy reads Vault once per ttl, so only a request's path
// through the proxy matters. The figures do not change the exit status.
package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// options are the command's flags.
type options struct {
	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"` // the flag's Duration, for JSON
	Streams  int           `json:"streams"`
	out      string
}

func main() {
	var o options
	flag.IntVar(&o.Rounds, "rounds", 15, "rounds; in each the two proxies take turns, twice")
	flag.DurationVar(&o.Duration, "duration", 500*time.Millisecond, "how long each turn lasts")
	flag.IntVar(&o.Streams, "streams", 1000, "open streams for the memory")
	flag.StringVar(&o.out, "out", "", "directory for proxy.json; if empty, none")
	flag.String("plots", "", "for the other commands: there is no plot")
	flag.Parse()
	o.Seconds = o.Duration.Seconds()
	measure.Main("proxy", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	if o.Rounds < 1 || o.Duration <= 0 || o.Streams < 1 {
		return errors.New("there must be a round, a duration and a stream")
	}
	s, err := newStage(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	r, err := s.measure(ctx, o)
	if err != nil {
		return err
	}
	r.print()
	return r.write(o.out)
}
