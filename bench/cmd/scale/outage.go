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

// outageLifetime is the lifetime of the tokens that become due in an outage. They are refreshed 30 s ahead of their
// end, or up to a tenth of that earlier by jitter, and so become due 87 to 90 s after their request.
const outageLifetime = 2 * time.Minute

const (
	fetchLatency = 100 * time.Millisecond // duration of a token request
	// These are the engine's limits on concurrent background refreshes.
	placesPerHost = 6
	placesOverAll = 192
)

// bound returns the number of tokens per second that the engine's limits allow for this number of hosts.
func bound(hosts int) float64 {
	return float64(min(placesPerHost*hosts, placesOverAll)) / fetchLatency.Seconds()
}

// outageHosts are the numbers of authorization servers to measure.
var outageHosts = []int{10, 100}

// An outage of Vault lasts until all tokens are due. The figures show how they are replaced after it.
type outage struct {
	Hosts   int            `json:"hosts"`
	Names   int            `json:"names"`
	Margin  float64        `json:"valid_for_at_least"` // at the end of the outage
	Most    float64        `json:"valid_for_at_most"`
	Late    int            `json:"too_late"`   // answers of the authorization server after the old token's end
	Left    float64        `json:"least_left"` // shortest remaining lifetime of an old token at the server's answer
	Seconds float64        `json:"seconds"`    // from the end of the outage to the last answer
	Rate    float64        `json:"refreshes_per_second"`
	Bound   float64        `json:"bound_per_second"` // computed by bound
	Memory  measure.Memory `json:"memory"`           // immediately after the last answer

	done map[string]bool // clients with a replaced token
	last time.Time
}

// outages measures the replacement of tokens that all became due while Vault was sealed.
func (m *mount) outages(ctx context.Context) (all []*outage, err error) {
	for _, hosts := range outageHosts {
		fmt.Fprintf(os.Stderr, "scale: an outage of Vault in which %d tokens of %d hosts become due\n", m.configs, hosts)
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
	// A config with another token_url drops its token, and its first reader gets another.
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
		return nil, fmt.Errorf("a token is valid for %s, so it was not replaced", time.Until(last))
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

// ends returns when the first and the last of the held tokens end.
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

// watch counts tokens replaced from now on for an outage; nil stops counting.
func (i *issuer) watch(o *outage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.outage = o
}

// left returns how many tokens are yet to be replaced.
func (i *issuer) left(o *outage) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return o.Names - len(o.done)
}

// all calls f for all configs.
func (m *mount) all(ctx context.Context, f func(context.Context, int) error) error {
	group, ctx := limited(ctx)
	for i := range m.configs {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}

// writeTo writes a config whose authorization server has the given address.
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
