package tokens

import (
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Names that fail together must not retry together, nor within their window. During the first minute of refusals,
// windows are at most 10 s, like those of waiting callers in an outage.
func TestWindowsDoubleUpToTheirMostAndAreSpread(t *testing.T) {
	now := time.Now()
	const s, m = time.Second, time.Minute
	for _, c := range []struct {
		name  string
		cause error
		want  []time.Duration
	}{
		{"unavailable", &grant.UnavailableError{Status: 503}, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, m, m, m}},
		{"refused", &grant.RefusedError{Status: 401, Code: "invalid_client"}, []time.Duration{
			5 * s, 10 * s, 10 * s, 10 * s, 10 * s, 10 * s, 10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 320 * s, 640 * s, 15 * m, 15 * m,
		}},
	} {
		last := make([]*failure, 100)
		for n, want := range c.want {
			waits := map[time.Duration]bool{}
			for i := range last {
				last[i] = last[i].next("as.example.com", c.cause, now)
				held, waiting := last[i].end(true).Sub(now), last[i].end(false).Sub(now)
				if held <= want*3/4 || held > want {
					t.Fatalf("%s: the window after %d failures is %s, want %s less up to a quarter", c.name, n+1, held, want)
				}
				wantWaiting := min(held, 10*s)
				if c.name == "refused" {
					wantWaiting = held // each attempt counts as a failed login
				}
				if waiting != wantWaiting {
					t.Fatalf("%s: the window after %d failures is %s while callers wait, want %s", c.name, n+1, waiting, wantWaiting)
				}
				waits[held] = true
			}
			if len(waits) < len(last)/2 {
				t.Errorf("%s: %d names have %d windows after %d failures", c.name, len(last), len(waits), n+1)
			}
		}
	}
}

// Names with the same Retry-After must not retry together.
func TestAttemptsAfterARetryAfterAreSpread(t *testing.T) {
	now := time.Now()
	const told = 90 * time.Second
	waits := map[time.Duration]bool{}
	for range 100 {
		var none *failure
		wait := none.next("as.example.com", &grant.UnavailableError{Status: 429, RetryAfter: told}, now).end(true).Sub(now)
		if wait < told || wait > told*11/10 {
			t.Fatalf("next attempt in %s, want %s and up to a tenth", wait, told)
		}
		waits[wait] = true
	}
	if len(waits) < 50 {
		t.Errorf("100 names come back at %d times", len(waits))
	}
	var none *failure
	absurd := none.next("as.example.com", &grant.UnavailableError{Status: 429, RetryAfter: 100 * time.Hour}, now)
	if wait := absurd.end(true).Sub(now); wait > retryAfterMost*11/10 {
		t.Errorf("next attempt in %s: an absurd Retry-After must be capped", wait)
	}
}

// If every failure has a Retry-After of one second, the server is still not called every second.
func TestShortRetryAfterDoesNotShortenTheWindow(t *testing.T) {
	now := time.Now()
	soon := &grant.UnavailableError{Status: 503, RetryAfter: time.Second}
	var f *failure
	for range 10 {
		f = f.next("as.example.com", soon, now)
	}
	if wait := f.end(true).Sub(now); wait < unavailableMost*3/4 {
		t.Errorf("next attempt in %s after %d failures", wait, f.count)
	}
}
