// Command soak runs the plugin under trouble for a given time. Three Vaults fail over, the plugin is killed, the
// authorization server restarts and fails in many ways, and configs are rewritten, rotated, deleted and created
// again, while many brokers read tokens of 5 s. A printed seed determines the events, which are logged with their
// times.
//
// It checks every token of a broker and, at the end, the token requests and the plugin's resources. Its exit status
// is 0 only if all claims hold.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

func main() {
	duration := flag.Duration("duration", 2*time.Minute, "how long the trouble lasts")
	seed := flag.Uint64("seed", rand.Uint64(), "seed of the random events")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *duration, *seed)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, duration time.Duration, seed uint64) error {
	fmt.Printf("Soak of %s with seed %d (again: make soak DURATION=%s SEED=%d)\n", duration, seed, duration, seed)
	b, err := bed.Start(ctx, bed.Options{Nodes: 3, LogLevel: "debug"})
	if err != nil {
		return err
	}
	s, err := newSoak(ctx, b, seed)
	if err == nil {
		err = s.run(ctx, duration)
		s.stop()
		s.report()
	}
	if err != nil || s.failed > 0 {
		fmt.Println(b.LogTails(20))
	}
	report, closeErr := b.Close()
	if err := errors.Join(err, closeErr); err != nil {
		return err
	}
	s.check(len(report.Leaks) == 0, "none of %d secrets and tokens is in %d MB of logs", report.Values, report.Bytes>>20)
	if s.failed > 0 {
		return fmt.Errorf("%d of the claims above did not hold", s.failed)
	}
	fmt.Println("\nAll held.")
	return nil
}
