package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Main runs a command until it ends or is interrupted. If the command fails, Main prints the error and exits with
// status 1.
func Main(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// OnBed starts a bed, and closes it after run.
func OnBed(ctx context.Context, logLevel string, run func(*bed.Bed) error) error {
	b, err := bed.Start(ctx, bed.Options{LogLevel: logLevel})
	if err != nil {
		return err
	}
	err = run(b)
	_, closeErr := b.Close()
	return errors.Join(err, closeErr)
}
