// Command prepare gets ready what the acceptance tests and the demo need and what takes long the
// first time: the Vault binary, the plugin and the authorization server's npm packages. The tests
// do it themselves where it has not been done, but go test shows no progress meanwhile.
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
	err := prepare(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

func prepare(ctx context.Context) error {
	log := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	if _, err := bed.FindVault(ctx, log); err != nil {
		return err
	}
	if _, err := bed.InstallAuthorizationServer(ctx, log); err != nil {
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
