// Command mcp-token-proxy is a reverse proxy for MCP brokers that only take a URL. It adds the access token kept in
// Vault by the plugin to each request. See docs/deployments.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version"
)

// Exit codes.
const (
	exitFailed  = 1
	exitBadArgs = 2
)

func main() {
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, stop))
}

// run is main. The first signal makes the proxy drain, and a second one ends it at once.
func run(args []string, out, errs io.Writer, signals <-chan os.Signal) int {
	o, err := parseFlags(args, errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitBadArgs // the flag package has printed the reason
	case o.version:
		fmt.Fprintln(out, version.String())
		return 0
	}
	c, err := o.config()
	var p *proxy
	log := slog.New(slog.NewTextHandler(errs, nil))
	if err == nil {
		p, err = newProxy(c, log)
	}
	if err != nil {
		fmt.Fprintln(errs, "mcp-token-proxy:", err)
		return exitFailed
	}
	if o.check {
		fmt.Fprintf(out, "the configuration is valid, and has %d routes\n", len(c.Routes))
		return 0
	}
	drain, drained := context.WithCancel(context.Background())
	now, ended := context.WithCancel(context.Background())
	defer drained()
	defer ended()
	go func() {
		<-signals
		drained()
		<-signals
		ended()
	}()
	if err := p.serve(drain, now); err != nil {
		fmt.Fprintln(errs, "mcp-token-proxy:", err)
		return exitFailed
	}
	return 0
}
