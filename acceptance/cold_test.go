package acceptance

import (
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Many cold readers of a token share one token request and get the same token.
func TestColdReadersShareOneRequest(t *testing.T) {
	t.Parallel()
	const readers = 300
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	// The answer is slow, so all readers arrive before it.
	bed.OK(t, u.bed.AS.SetResource(t.Context(), bed.Resource{
		URL: u.mcp.URL, Scope: "tools:list", TTL: 5 * time.Minute, Delay: 2 * time.Second,
	}))
	u.configure(t, map[string]any{"verify": false}) // no token request
	u.wantRequests(t, 0)

	results := make([]read, readers)
	var done sync.WaitGroup
	for i := range results {
		done.Go(func() { results[i] = readOnce(t.Context(), u, u.root, "token/"+u.name) })
	}
	done.Wait()
	for i, r := range results {
		bed.OK(t, r.err)
		if r.token.TokenID != results[0].token.TokenID {
			t.Fatalf("reader %d has token %s, reader 0 has %s", i, r.token.TokenID, results[0].token.TokenID)
		}
	}
	u.wantRequests(t, 1)
}
