package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// world is what is around an engine on its own: storage that holds a token of every name, and
// authorization servers. Both take their time and keep nothing, so that what memory grows by is the
// engine's.
type world struct {
	names    []tokens.Name
	hosts    []string // of authorization servers; the names are spread over them
	lifetime time.Duration
	due      time.Time // when all tokens are to be refreshed
	end      time.Time // when all tokens expire
	hanging  bool      // no token request is answered

	loads, fetched, saved, late atomic.Int64
}

// newWorld stores tokens of the lifetime that are all due after the given time, and expire a quarter of
// the lifetime later.
func newWorld(names, hosts int, untilDue, lifetime time.Duration) *world {
	w := &world{
		names:    make([]tokens.Name, names),
		lifetime: lifetime,
		due:      time.Now().Add(untilDue),
	}
	w.end = w.due.Add(lifetime / 4)
	for i := range w.names {
		w.names[i] = tokens.Name{Server: server(i)}
	}
	for i := range hosts {
		w.hosts = append(w.hosts, fmt.Sprintf("as-%d.example.com", i))
	}
	return w
}

// roundTrip is one to storage. A sleep of less than a millisecond takes one, so this does not sleep.
func roundTrip(ctx context.Context) error {
	for begun := time.Now(); time.Since(begun) < storageLatency; {
		runtime.Gosched()
	}
	return ctx.Err()
}

// Terms implements tokens.Store.
func (w *world) Terms(ctx context.Context, name tokens.Name) (*tokens.Terms, error) {
	number, err := strconv.Atoi(strings.TrimPrefix(name.Server, serverPrefix))
	if err != nil {
		return nil, tokens.ErrNotConfigured
	}
	return &tokens.Terms{
		Shape:       "shape",
		Host:        w.hosts[number%len(w.hosts)],
		DefaultTTL:  w.lifetime,
		IdleTimeout: 24 * time.Hour,
		Fetch:       w.fetch,
	}, roundTrip(ctx)
}

// fetch is a token request.
func (w *world) fetch(ctx context.Context) (*grant.Token, error) {
	begun := time.Now()
	n := w.fetched.Add(1)
	if w.hanging {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := pause(ctx, fetchLatency); err != nil {
		return nil, err
	}
	return &grant.Token{AccessToken: accessToken(n), RequestedAt: begun, ExpiresIn: w.lifetime}, nil
}

func accessToken(n int64) string { return fmt.Sprintf("%0*d", tokenSize, n) }

// Load implements tokens.Store.
func (w *world) Load(ctx context.Context, _ tokens.Name) (*tokens.Token, error) {
	return &tokens.Token{
		AccessToken: accessToken(-w.loads.Add(1)),
		Shape:       strings.Clone("shape"),
		Issued:      w.end.Add(-w.lifetime),
		Expires:     w.end,
		RefreshAt:   w.due,
	}, roundTrip(ctx)
}

// Save implements tokens.Store.
func (w *world) Save(ctx context.Context, _ tokens.Name, _ *tokens.Token) error {
	if time.Now().After(w.end) {
		w.late.Add(1)
	}
	w.saved.Add(1)
	return roundTrip(ctx)
}

// Delete implements tokens.Store.
func (w *world) Delete(ctx context.Context, _ tokens.Name) error { return roundTrip(ctx) }

// Names implements tokens.Store.
func (w *world) Names(ctx context.Context) ([]tokens.Name, error) { return w.names, roundTrip(ctx) }
