package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

const (
	// restLifetime is so long that no token becomes due during the measurement.
	restLifetime = 24 * time.Hour
	// busyLifetime is so short that, with many tokens, some are always becoming due.
	busyLifetime = time.Hour
	// leastLifetime is the lifetime of the tokens that become due first, a quarter ahead of their end.
	leastLifetime = 2 * time.Minute
)

// tokenSize is the length of a signed JWT with a usual set of claims.
const tokenSize = 1024

// An issuer is an authorization server that answers every token request with a different token, unless it is set to
// fail.
type issuer struct {
	*httptest.Server
	lifetimes atomic.Pointer[[2]time.Duration] // shortest and longest
	latency   atomic.Int64                     // of each answer, in nanoseconds
	issued    atomic.Int64
	failing   atomic.Bool // answers 503

	mu     sync.Mutex // guards the fields below
	held   map[string]time.Time
	outage *outage // the outage being measured
}

func startIssuer() *issuer {
	i := &issuer{held: make(map[string]time.Time)}
	i.setLifetimes(restLifetime, restLifetime)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := time.Now()
		random := make([]byte, tokenSize*3/4)
		_, _ = rand.Read(random) // never fails
		if bed.Sleep(r.Context(), time.Duration(i.latency.Load())) != nil {
			return
		}
		if i.failing.Load() {
			http.Error(w, "unavailable", http.StatusServiceUnavailable)
			return
		}
		client, _, _ := r.BasicAuth()
		if client == "" {
			client = r.FormValue("client_id")
		}
		lifetime := i.lifetime().Truncate(time.Second)
		// The plugin counts lifetimes from the whole second of its request.
		i.replaced(client, asked.Truncate(time.Second).Add(lifetime))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(map[string]any{ // a failed write makes the client's request fail
			"access_token": base64.RawURLEncoding.EncodeToString(random),
			"token_type":   "Bearer",
			"expires_in":   int64(lifetime / time.Second),
		})
	}))
	return i
}

// listen adds n addresses to the issuer. The plugin's limits treat each as a host.
func (i *issuer) listen(ctx context.Context, n int) (addresses []string, err error) {
	for range n {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, l.Addr().String())
		go func() { _ = i.Config.Serve(l) }() // returns at Close
	}
	return addresses, nil
}

// Close closes the issuer's listeners.
func (i *issuer) Close() {
	i.Server.Close()
	_ = i.Config.Close() // the test server's own Close knows only its first listener
}

// replaced records that a client's token has been replaced by one that ends at the given time.
func (i *issuer) replaced(client string, end time.Time) {
	now := time.Now()
	i.issued.Add(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	if o := i.outage; o != nil && !o.done[client] {
		o.done[client] = true
		o.Left = min(o.Left, i.held[client].Sub(now).Seconds())
		if now.After(i.held[client]) {
			o.Late++
		}
		o.last = now
	}
	i.held[client] = end
}

// setLifetimes makes each token's lifetime random, from least to most.
func (i *issuer) setLifetimes(least, most time.Duration) {
	i.lifetimes.Store(&[2]time.Duration{least, most})
}

func (i *issuer) lifetime() time.Duration {
	l := i.lifetimes.Load()
	return l[0] + mathrand.N(l[1]-l[0]+1)
}
