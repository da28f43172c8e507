package tokens

import (
	"errors"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// The backoff windows within which the authorization server is not asked again.
const (
	// An unreachable or failing server may be back in a second.
	unavailableFirst = time.Second
	unavailableMost  = time.Minute
	// Refusals may end soon: a restarting server refuses clients until it has loaded them. Lasting refusals count as
	// failed logins, which lock accounts, so their window grows.
	refusedFirst = 5 * time.Second
	refusedMost  = 15 * time.Minute
	// refusedBlip is how many refusals in a row have short windows: about one minute in all.
	refusedBlip = 7
	// waitingMost bounds the window while callers wait for a valid token.
	waitingMost = 10 * time.Second
	// headStart is how much earlier a window of waitingMost ends for names whose own requests have not failed
	// since the client last worked: the failure may concern only the others, and one success ends the window
	// for all.
	headStart = time.Second
	// retryAfterMost bounds a Retry-After (RFC 9110 section 10.2.3): a wrong value must not stop fetches for a
	// day.
	retryAfterMost = 15 * time.Minute
)

// storageRetry returns how long background work waits after its n-th storage failure in a row. Readers don't wait:
// each reads storage again.
func storageRetry(n int) time.Duration { return window(n, time.Second, time.Minute) }

// window returns the backoff window after n failures in a row. It doubles from first to most, less up to a quarter.
func window(n int, first, most time.Duration) time.Duration {
	w := min(first<<min(n-1, 16), most)
	return w - jitter(w/4)
}

// refusedWindow returns the window after the n-th refusal in a row.
func refusedWindow(n int) time.Duration {
	if n <= refusedBlip {
		return window(n, refusedFirst, waitingMost)
	}
	return window(n-refusedBlip, 2*waitingMost, refusedMost)
}

// retryAfter returns how long the server asked not to be called; 0 if it did not ask.
func retryAfter(cause error) time.Duration {
	if unavailable, ok := errors.AsType[*grant.UnavailableError](cause); ok {
		return min(unavailable.RetryAfter, retryAfterMost)
	}
	return 0
}
