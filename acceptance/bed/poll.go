package bed

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// StopPolling returns an error that ends Poll.
func StopPolling(err error) error { return stopPolling{err} }

type stopPolling struct{ error }

func (e stopPolling) Unwrap() error { return e.error }

// Poll calls f until it returns nil, for at most limit. It returns f's last error.
func Poll(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if errors.As(err, new(stopPolling)) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up after %s: %w", limit, err)
		case <-tick.C:
		}
	}
}

// Sleep waits for d. It returns an error if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
