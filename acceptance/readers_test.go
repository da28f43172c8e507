package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A read is one read of a token, as a broker saw it.
type read struct {
	reader       string
	path         string
	begun, ended time.Time
	token        *bed.Token // nil if the read failed
	status       int
	err          error // of the read, or because the token was invalid when the read began
}

func readOnce(ctx context.Context, u *upstream, client *api.Client, path string) read {
	r := read{path: path, begun: time.Now(), status: http.StatusOK}
	r.token, r.err = u.bed.ReadToken(ctx, client, path)
	r.ended = time.Now()
	if r.err != nil {
		r.status = status(nil, r.err)
		return r
	}
	_, r.err = u.mcp.CheckAt(r.token.AccessToken, r.begun) // checked at the read's start, as the token may expire on its way
	if r.err == nil && !r.begun.Before(r.token.ExpiresAt) {
		r.err = fmt.Errorf("token at %s had expired at %s", path, r.token.ExpiresAt)
	}
	return r
}

// readers read tokens repeatedly, as brokers do, and keep every read.
type readers struct {
	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex // guards reads
	reads []read     // in order for each reader
}

// newReaders returns a group without readers. They stop after the limit, or at the end of the test.
func newReaders(t *testing.T, limit time.Duration) *readers {
	t.Helper()
	r := &readers{}
	r.ctx, r.stop = context.WithTimeout(t.Context(), limit)
	t.Cleanup(r.finish)
	return r
}

func (r *readers) start(reader string, u *upstream, client *api.Client, path string, interval time.Duration) {
	r.done.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for r.ctx.Err() == nil {
			done := readOnce(r.ctx, u, client, path)
			if r.ctx.Err() != nil {
				return
			}
			done.reader = reader
			r.mu.Lock()
			r.reads = append(r.reads, done)
			r.mu.Unlock()
			select {
			case <-r.ctx.Done():
			case <-tick.C:
			}
		}
	})
}

// startReaders starts two readers for each path, and returns when each path has been read.
func startReaders(t *testing.T, u *upstream, paths ...string) *readers {
	t.Helper()
	r := newReaders(t, time.Hour)
	for _, path := range paths {
		for i := range 2 {
			r.start(fmt.Sprint(path, i), u, u.root, path, 50*time.Millisecond)
		}
	}
	for _, path := range paths {
		bed.Until(t, time.Minute, path+" has been read", func() bool { return r.tokenID(path) != "" })
	}
	return r
}

func (r *readers) finish() {
	r.stop()
	r.done.Wait()
}

func (r *readers) all() []read {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.reads)
}

// last returns the latest read, or a read with an error.
func (r *readers) last() read {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.reads) == 0 {
		return read{err: errors.New("nothing has been read")}
	}
	return r.reads[len(r.reads)-1]
}

// tokenID returns the id of the last valid token read at path, or "".
func (r *readers) tokenID(path string) string {
	for _, read := range slices.Backward(r.all()) {
		if read.path == path && read.err == nil {
			return read.token.TokenID
		}
	}
	return ""
}

// check stops the readers and fails the test if any read failed or returned an invalid token.
func (r *readers) check(t *testing.T) {
	t.Helper()
	r.finish()
	r.checkSoFar(t)
}

func (r *readers) checkSoFar(t *testing.T) {
	t.Helper()
	reads := r.all()
	failed := slices.DeleteFunc(slices.Clone(reads), func(read read) bool { return read.err == nil })
	if len(failed) > 0 {
		t.Errorf("%d of %d reads failed, the first by %s: %v", len(failed), len(reads), failed[0].reader, failed[0].err)
	}
	t.Logf("%d reads", len(reads))
}

// forgive drops reads that failed while the authorization server was down, or later until the reader got a token
// issued after its return. Invalid tokens are kept.
func (r *readers) forgive(t *testing.T, down, up time.Time) {
	t.Helper()
	const backSoon = 30 * time.Second  // a server that has just started answers slowly
	obtained := map[string]time.Time{} // by reader: the time of its last token
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.reads)
	r.reads = slices.DeleteFunc(r.reads, func(read read) bool {
		if read.err == nil {
			obtained[read.reader] = read.token.LastVaultRotation
		}
		return read.token == nil && read.ended.After(down) && read.begun.Before(up.Add(backSoon)) && !obtained[read.reader].After(up)
	})
	t.Logf("%d of %d reads failed while the server was down for %s", before-len(r.reads), before, round(up.Sub(down)))
}

// changes returns, by reader, the time left of each token when its successor was read.
func (r *readers) changes() map[string][]time.Duration {
	held, left := map[string]*bed.Token{}, map[string][]time.Duration{}
	for _, read := range r.all() {
		if read.err != nil {
			continue
		}
		if last := held[read.reader]; last != nil && last.TokenID != read.token.TokenID {
			left[read.reader] = append(left[read.reader], last.ExpiresAt.Sub(read.ended))
		}
		held[read.reader] = read.token
	}
	return left
}
