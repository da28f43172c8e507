// Command trouble measures on a real Vault what trouble costs: a seal and a step-down
// while readers wait for a server that hangs, a client with many names that is limited or refused, the time from a
// server's return to the first served read, tokens too short to refresh ahead, and the delete of a large config.
//
// It exits 0 even if a figure misses its target.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// options are what the command is given.
type options struct {
	parts   []string
	names   int
	roles   int
	others  int
	lengths []time.Duration // of outages
}

// report is all that was measured.
type report struct {
	options
	environment measure.Environment
	hangs       []*trouble.HangReport
	crowds      []*trouble.CrowdReport
	rotations   []rotation
	outages     []*trouble.OutageReport
	shortLived  []*trouble.ShortLivedReport
	bigDelete   *trouble.BigDeleteReport
	rewrite     *trouble.Rewrite
}

// rotation is a trouble.Rotation with the name of its failure.
type rotation struct {
	failure string
	*trouble.Rotation
}

// parts are what can be measured, in this order.
var parts = []string{"hanging", "client", "outage", "short", "delete"}

func main() {
	var o options
	only := flag.String("only", strings.Join(parts, ","), "the parts to measure, separated by commas")
	lengths := flag.String("outages", "20s,75s,100s,120s", "how long servers are away, separated by commas; all at once")
	flag.IntVar(&o.names, "names", 300, "names of the client that is limited or refused, and with tokens too short to refresh ahead")
	flag.IntVar(&o.roles, "roles", 3000, "roles of the config that is deleted")
	flag.IntVar(&o.others, "others", 700, "other servers, whose brokers read meanwhile")
	flag.Parse()
	err := o.parse(*only, *lengths)
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, o)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trouble:", err)
		os.Exit(1)
	}
}

func (o *options) parse(only, lengths string) error {
	for part := range strings.SplitSeq(only, ",") {
		if !slices.Contains(parts, part) {
			return fmt.Errorf("no part %q: there are %s", part, strings.Join(parts, ", "))
		}
		o.parts = append(o.parts, part)
	}
	for text := range strings.SplitSeq(lengths, ",") {
		length, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		o.lengths = append(o.lengths, length)
	}
	return nil
}

func run(ctx context.Context, o options) error {
	r := report{options: o}
	for _, part := range parts {
		if !slices.Contains(o.parts, part) {
			continue
		}
		fmt.Fprintln(os.Stderr, "trouble:", part)
		if err := r.measure(ctx, part); err != nil {
			r.print() // what was measured until then
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	r.print()
	return nil
}

// measure measures one part, on a Vault of its own.
func (r *report) measure(ctx context.Context, part string) (err error) {
	opts := bed.Options{LogLevel: "info"}
	if part == "hanging" {
		opts.Nodes = 3
	}
	b, err := bed.Start(ctx, opts)
	if err != nil {
		return err
	}
	defer func() {
		_, closeErr := b.Close()
		err = errors.Join(err, closeErr)
	}()
	root, err := b.Vault.Root()
	if err != nil {
		return err
	}
	if r.environment, err = measure.Here(ctx, root); err != nil {
		return err
	}
	switch part {
	case "hanging":
		return r.hanging(ctx, b)
	case "client":
		return r.client(ctx, b)
	case "outage":
		return r.outage(ctx, b)
	case "short":
		return r.short(ctx, b)
	default:
		return r.delete(ctx, b)
	}
}
