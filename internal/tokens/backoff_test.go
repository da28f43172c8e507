package tokens

import (
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Names that failed together must not come back together, nor before their window allows.
func TestWindowsDoubleUpToTheirMostAndAreSpread(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name  string
		cause error
		first time.Duration
		most  time.Duration
	}{
		{"unavailable", &grant.UnavailableError{Status: 503}, time.Second, time.Minute},
		{"refused", &grant.RefusedError{Status: 401, Code: "invalid_client"}, 30 * time.Second, 15 * time.Minute},
	} {
		last := make([]*failure, 100)
		want := c.first
		for n := range 20 {
			waits := map[time.Duration]bool{}
			for i := range last {
				last[i] = last[i].next("as.example.com", c.cause, now)
				wait := last[i].until.Sub(now)
				if wait <= want*3/4 || wait > want {
					t.Fatalf("%s: the window after %d failures is %s, want %s less up to a quarter", c.name, n+1, wait, want)
				}
				waits[wait] = true
			}
			if len(waits) < len(last)/2 {
				t.Errorf("%s: %d names have %d windows after %d failures", c.name, len(last), len(waits), n+1)
			}
			want = min(2*want, c.most)
		}
	}
}

// A Retry-After is the same for all who were told it.
func TestAttemptsAfterARetryAfterAreSpread(t *testing.T) {
	now := time.Now()
	const told = 90 * time.Second
	waits := map[time.Duration]bool{}
	for range 100 {
		var none *failure
		wait := none.next("as.example.com", &grant.UnavailableError{Status: 429, RetryAfter: told}, now).until.Sub(now)
		if wait < told || wait > told*11/10 {
			t.Fatalf("next attempt in %s, want %s and up to a tenth", wait, told)
		}
		waits[wait] = true
	}
	if len(waits) < 50 {
		t.Errorf("100 names come back at %d times", len(waits))
	}
}
