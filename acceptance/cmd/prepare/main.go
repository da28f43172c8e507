// Command prepare fetches and builds the slow parts of the acceptance tests and the demo, and shows its progress:
// servers, the plugin and npm packages. Its arguments are values of VAULT_BIN, one for each server. Default: the
// environment's value.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := prepare(ctx, servers(os.Args[1:]))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

// servers returns the values of VAULT_BIN to prepare.
func servers(args []string) []string {
	if len(args) == 0 {
		return []string{os.Getenv("VAULT_BIN")}
	}
	return args
}

func prepare(ctx context.Context, servers []string) error {
	log := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	for _, server := range servers {
		if _, err := bed.FindBinary(ctx, server, log); err != nil {
			return err
		}
	}
	if _, err := bed.InstallPackages(ctx, "as", log); err != nil {
		return err
	}
	if err := bed.InstallSDKServers(ctx, log); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mcp-oauth-plugin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	_, err = bed.BuildPlugin(ctx, dir, log)
	return err
}
