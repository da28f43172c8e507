package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// outageLifetime is that of tokens that fall due in an outage: they are refreshed 30 s ahead of their
// end, a tenth of that sooner by jitter, and so fall due 87 to 90 s after they were asked for.
const outageLifetime = 2 * time.Minute

const (
	fetchLatency = 100 * time.Millisecond // of a token request
	// The engine's bounds on concurrent background refreshes.
	placesPerHost = 6
	placesOverAll = 192
)

// bound returns how many tokens a second the engine's bounds allow so many hosts to replace.
func bound(hosts int) float64 {
	return float64(min(placesPerHost*hosts, placesOverAll)) / fetchLatency.Seconds()
}

// outageHosts are the numbers of authorization servers that tokens come from.
var outageHosts = []int{10, 100}

// An outage is one of Vault, in which all tokens fall due: how they are replaced once it is over.
type outage struct {
	Hosts   int            `json:"hosts"`
	Names   int            `json:"names"`
	Margin  float64        `json:"valid_for_at_least"` // at the outage's end
	Most    float64        `json:"valid_for_at_most"`
	Late    int            `json:"too_late"`   // answered by the authorization server after the old token's end
	Left    float64        `json:"least_left"` // of an old token's life, when the server answered
	Seconds float64        `json:"seconds"`    // from the outage's end to the last answer
	Rate    float64        `json:"refreshes_per_second"`
	Bound   float64        `json:"bound_per_second"` // see bound
	Memory  measure.Memory `json:"memory"`           // just after

	done map[string]bool // clients whose token was replaced
	last time.Time
}

// outages measures how tokens are replaced that all fell due while Vault was sealed.
func (m *mount) outages(ctx context.Context) (all []*outage, err error) {
	for _, hosts := range outageHosts {
		fmt.Fprintf(os.Stderr, "scale: an outage of Vault in which %d tokens of %d hosts fall due\n", m.configs, hosts)
		o, err := m.outage(ctx, hosts)
		if err != nil {
			return nil, fmt.Errorf("outage with %d hosts: %w", hosts, err)
		}
		all = append(all, o)
	}
	return all, nil
}

func (m *mount) outage(ctx context.Context, hosts int) (*outage, error) {
	o := &outage{
		Hosts: hosts, Names: m.configs, Left: math.Inf(1), done: make(map[string]bool),
		Bound: bound(hosts),
	}
	addresses, err := m.issuer.listen(ctx, hosts)
	if err != nil {
		return nil, err
	}
	m.issuer.setLifetimes(outageLifetime, outageLifetime)
	// A config with another token_url drops its token, and the first reader obtains another.
	if err := m.all(ctx, func(ctx context.Context, i int) error {
		return m.writeTo(ctx, server(i), addresses[i%hosts])
	}); err != nil {
		return nil, err
	}
	if err := m.all(ctx, func(ctx context.Context, i int) error { return m.fetch(ctx, server(i)) }); err != nil {
		return nil, err
	}
	if _, err := m.do(ctx, http.MethodPut, "sys/seal", nil); err != nil {
		return nil, err
	}
	first, last := m.issuer.ends()
	if time.Until(last) > outageLifetime {
		return nil, fmt.Errorf("a token is valid for %s: it was not replaced", time.Until(last))
	}
	const margin = outageLifetime / 4
	if err := bed.Sleep(ctx, time.Until(last.Add(-margin))); err != nil {
		return nil, err
	}
	m.issuer.latency.Store(int64(fetchLatency))
	defer m.issuer.latency.Store(0)
	m.issuer.setLifetimes(restLifetime, restLifetime)
	m.issuer.watch(o)
	begun := time.Now()
	o.Margin, o.Most = first.Sub(begun).Seconds(), last.Sub(begun).Seconds()
	if err := m.node.Unseal(ctx); err != nil {
		return nil, err
	}
	for m.issuer.left(o) > 0 {
		if time.Since(begun) > 10*time.Minute {
			return nil, fmt.Errorf("%d tokens were not replaced in %s", m.issuer.left(o), time.Since(begun))
		}
		if err := bed.Sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
	m.issuer.watch(nil)
	o.Seconds = o.last.Sub(begun).Seconds()
	o.Rate = float64(o.Names) / o.Seconds
	o.Memory, err = m.memory()
	return o, err
}

// ends are when the first and the last of the tokens held end.
func (i *issuer) ends() (first, last time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, end := range i.held {
		if first.IsZero() || end.Before(first) {
			first = end
		}
		if end.After(last) {
			last = end
		}
	}
	return first, last
}

// watch counts tokens that are replaced from now on for an outage; nil stops counting.
func (i *issuer) watch(o *outage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.outage = o
}

// left is how many tokens are still to be replaced.
func (i *issuer) left(o *outage) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return o.Names - len(o.done)
}

// all does f for all configs.
func (m *mount) all(ctx context.Context, f func(context.Context, int) error) error {
	group, ctx := limited(ctx)
	for i := range m.configs {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}

// writeTo writes a config whose tokens come from an authorization server at the given address.
func (m *mount) writeTo(ctx context.Context, server, address string) error {
	_, err := m.do(ctx, http.MethodPost, bed.Mount+"/config/"+server, map[string]any{
		"server_url":    "https://" + server + ".example.com/mcp",
		"token_url":     "http://" + address + "/token",
		"client_id":     "client-of-" + server,
		"client_secret": "secret-of-" + server + "-0123456789abcdef",
		"scopes":        "tools:read tools:call",
		"verify":        false,
	})
	return err
}
