// Command demo shows the plugin's main job on real parts: Vault with the plugin, Vault Agent, an authorization
// server, an MCP server and a broker, all on loopback. It prints a transcript with commands and answers, and checks
// every claim. Its exit status is 0 only if all claims hold. With -keep, everything keeps running after the set-up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

func main() {
	keep := flag.Bool("keep", false, "keep the parts running after the set-up, until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *keep, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run runs the story, and searches logs and transcript for secrets.
func run(ctx context.Context, keep bool, out io.Writer) (err error) {
	fmt.Fprintln(out, "Starting Vault or OpenBao with the plugin, an authorization server and an MCP server on loopback.")
	b, err := bed.Start(ctx, bed.Options{Bare: true})
	if err != nil {
		return err
	}
	t := &transcript{out: out, vault: b.Vault, dir: b.Dir}
	s := &story{transcript: t, bed: b}
	err = s.tell(ctx, keep)
	if err == nil && keep {
		s.invite()
		<-ctx.Done()
	}
	if keep && ctx.Err() != nil { // interrupted, possibly during the set-up
		err = nil
		fmt.Fprintln(out, "\nStopping.")
	}
	if err != nil {
		fmt.Fprintf(out, "\n%s", b.LogTails(20))
	}
	s.stop()
	report, closeErr := b.Close()
	if err := errors.Join(err, closeErr); err != nil {
		return err
	}
	if keep {
		return t.verdict()
	}

	t.check(true, "none of %d secrets and tokens is in %d kB of logs: Vault, audit, agent, errors, authorization server",
		report.Values, report.Bytes/1000)
	leaks := b.Secrecy.ScanText("the transcript", t.printed.Bytes())
	t.check(len(leaks) == 0, "none is in this transcript")
	return t.verdict()
}
