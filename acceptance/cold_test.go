package acceptance

import (
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// However many readers come for a token that nobody has fetched yet, the authorization server is
// asked once, and all get that token.
func TestColdReadersShareOneRequest(t *testing.T) {
	t.Parallel()
	const readers = 300
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	// The answer takes long enough for all to come before it.
	bed.OK(t, u.bed.AS.SetResource(t.Context(), bed.Resource{
		URL: u.mcp.URL, Scope: "tools:list", TTL: 5 * time.Minute, Delay: 2 * time.Second,
	}))
	u.configure(t, map[string]any{"verify": false}) // stores the config without a token
	u.wantRequests(t, 0)

	var (
		start = make(chan struct{})
		done  sync.WaitGroup
		ids   [readers]string
		errs  [readers]error
	)
	for i := range readers {
		done.Go(func() {
			<-start
			token, err := u.bed.ReadToken(t.Context(), u.root, "token/"+u.name)
			if err != nil {
				errs[i] = err
				return
			}
			ids[i] = token.TokenID
		})
	}
	close(start)
	done.Wait()

	for i := range readers {
		if errs[i] != nil {
			t.Fatalf("reader %d: %v", i, errs[i])
		}
		if ids[i] != ids[0] {
			t.Fatalf("reader %d has token %s, reader 0 has %s", i, ids[i], ids[0])
		}
	}
	u.wantRequests(t, 1)
}
