package acceptance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// readers read token paths over and over, as brokers do that read at every use, and check that
// each token is one that the MCP server takes at that moment.
type readers struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex // guards what follows
	reads    int
	failures []failedRead
	current  map[string]string // path to the token_id last read
}

// A failedRead is a read that brought no token that the MCP server takes.
type failedRead struct {
	asked, ended time.Time
	err          error
	noToken      bool      // the read itself failed
	obtained     time.Time // when Vault obtained the last token that this reader was served, in whole seconds
}

// startReaders starts two readers for each path, and returns when each path has been read. They
// stop with the test at the latest.
func startReaders(t *testing.T, u *upstream, paths ...string) *readers {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &readers{stop: cancel, current: make(map[string]string)}
	for _, path := range paths {
		for range 2 {
			r.done.Go(func() { r.run(ctx, u, path) })
		}
	}
	t.Cleanup(r.finish)
	bed.Eventually(t, time.Minute, func() error {
		for _, path := range paths {
			if r.tokenID(path) == "" {
				return fmt.Errorf("%s has not been read", path)
			}
		}
		return nil
	})
	return r
}

func (r *readers) run(ctx context.Context, u *upstream, path string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var obtained time.Time // of the last token
	for {
		asked := time.Now() // a token may expire on its way here
		token, err := u.bed.ReadToken(ctx, u.root, path)
		noToken := err != nil
		if err == nil {
			_, err = u.mcp.CheckAt(token.AccessToken, asked)
		}
		if err == nil && !asked.Before(token.ExpiresAt) {
			err = fmt.Errorf("token at %s had expired at %s", path, token.ExpiresAt)
		}
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		r.reads++
		if err != nil {
			r.failures = append(r.failures, failedRead{asked, time.Now(), err, noToken, obtained})
		} else {
			obtained = token.LastVaultRotation
			r.current[path] = token.TokenID
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tokenID is the token last read at path.
func (r *readers) tokenID(path string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current[path]
}

func (r *readers) finish() {
	r.stop()
	r.done.Wait()
}

// check stops the readers and fails the test if any read failed or brought an expired token.
func (r *readers) check(t *testing.T) {
	t.Helper()
	r.finish()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failures) > 0 {
		t.Errorf("%d of %d reads failed, the first: %v", len(r.failures), r.reads, r.failures[0].err)
	}
	t.Logf("%d reads", r.reads)
}

// forgive forgets reads that failed while the authorization server was down, or after it until the reader was served a
// token that is newer than the server's return. A token that the MCP server does not take is never forgiven.
func (r *readers) forgive(t *testing.T, down, up time.Time) {
	t.Helper()
	const backSoon = 30 * time.Second // a server that has just started answers slowly
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := len(r.failures)
	r.failures = slices.DeleteFunc(r.failures, func(f failedRead) bool {
		return f.noToken && f.ended.After(down) && f.asked.Before(up.Add(backSoon)) && !f.obtained.After(up)
	})
	t.Logf("%d of %d reads failed while the server was down for %s", failed-len(r.failures), r.reads, up.Sub(down).Round(time.Millisecond))
}
