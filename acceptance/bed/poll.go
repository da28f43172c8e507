package bed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// HTTPClient gives a request up after half a minute. The limit of Poll does not end a call of f, so a request that hangs
// must end by itself.
var HTTPClient = &http.Client{Timeout: 30 * time.Second}

// StopPolling returns an error after which Poll does not call f again.
func StopPolling(err error) error { return stopPolling{err} }

// stopPolling is an error after which asking again is of no use.
type stopPolling struct{ error }

func (e stopPolling) Unwrap() error { return e.error }

// Poll calls f until it returns nil, for at most limit. The error is the last that f returned.
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
