package tokens

import (
	"errors"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// The backoff windows within which the authorization server is not asked again.
const (
	// A server that is unreachable or failing may be back in a second.
	unavailableFirst = time.Second
	unavailableMost  = time.Minute
	// A refusal may be a blip: a server that restarts refuses clients that it has not loaded
	// yet. One that lasts counts as failed logins, which lock accounts, so its window grows.
	refusedFirst = 5 * time.Second
	refusedMost  = 15 * time.Minute
	// refusedBlip is how many refusals in a row have short windows: about a minute of them.
	refusedBlip = 7
	// waitingMost bounds the window while no valid token is held and callers ask for one.
	waitingMost = 10 * time.Second
	// headStart is how much earlier a window of waitingMost ends for the names whose own requests
	// have not failed since the client last worked: what fails may concern the others only, and a
	// success opens the client for all.
	headStart = time.Second
	// retryAfterMost bounds a Retry-After (RFC 9110 section 10.2.3): a mistaken
	// one must not take a token out of service for a day.
	retryAfterMost = 15 * time.Minute
)

// storageRetry is how long background work waits after its n-th failure in a row
// to use storage. Readers do not wait: their own look at storage is the retry.
func storageRetry(n int) time.Duration { return window(n, time.Second, time.Minute) }

// window doubles from first to most over the failures in a row, less up to a quarter.
func window(n int, first, most time.Duration) time.Duration {
	w := min(first<<min(n-1, 16), most)
	return w - jitter(w/4)
}

// refusedWindow is the window after the n-th refusal in a row.
func refusedWindow(n int) time.Duration {
	if n <= refusedBlip {
		return window(n, refusedFirst, waitingMost)
	}
	return window(n-refusedBlip, 2*waitingMost, refusedMost)
}

// retryAfter is how long the server asked to be left alone; 0 if it did not.
func retryAfter(cause error) time.Duration {
	if unavailable, ok := errors.AsType[*grant.UnavailableError](cause); ok {
		return min(unavailable.RetryAfter, retryAfterMost)
	}
	return 0
}
