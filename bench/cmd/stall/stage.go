package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

const (
	// hosts is the number of authorization servers for each kind of stall. Each has its own address and one name.
	hosts = 10
	scope = "tools:list tools:call"
	// lifetime is so long that only the shortened tokens become due.
	lifetime = time.Hour
	// spare is how much longer a due token is valid than readers read it.
	spare = 5 * time.Second
	// slow is the time of a slow authorization server for an answer.
	slow = 5 * time.Second
	// requestTimeout ends unanswered requests.
	requestTimeout = 10 * time.Second
	// settled is the limit for refreshes to begin, or to succeed after a stall.
	settled = time.Minute
)

// A stage is a Vault with a config for each host.
type stage struct {
	options
	bed   *bed.Bed
	root  *api.Client
	token string    // Vault token of the readers
	hosts [][]*host // by kind of stall
}

// A host is an authorization server that can stall, and the config that gets its tokens there.
type host struct {
	name     string
	proxy    *bed.FaultProxy
	resource bed.Resource
}

func newStage(ctx context.Context, b *bed.Bed, o options) (*stage, error) {
	s := &stage{options: o, bed: b, hosts: make([][]*host, len(stalls))}
	var err error
	if s.root, err = b.Vault.Root(); err != nil {
		return nil, err
	}
	for i := range stalls {
		for j := range hosts {
			h, err := s.newHost(ctx, fmt.Sprintf("stall-%d-%d", i+1, j+1))
			if err != nil {
				return nil, err
			}
			s.hosts[i] = append(s.hosts[i], h)
		}
	}
	rules := fmt.Sprintf("path %q { capabilities = [\"read\"] }", bed.Mount+"/token/*")
	if err := b.Vault.PutPolicy(ctx, "reader", rules); err != nil {
		return nil, err
	}
	reader, err := b.Vault.NewIdentity(ctx, "reader", "reader")
	if err != nil {
		return nil, err
	}
	s.token = reader.Client.Token()
	return s, nil
}

// newHost starts a host and writes its config, which gets the token.
func (s *stage) newHost(ctx context.Context, name string) (*host, error) {
	proxy, err := s.bed.NewFaultProxy()
	if err != nil {
		return nil, err
	}
	h := &host{name: name, proxy: proxy}
	h.resource = bed.Resource{URL: "https://mcp.example.com/" + name, Scope: scope, TTL: lifetime}
	client := bed.Client{ID: name, Secret: rand.Text(), Scope: scope}
	if err := errors.Join(s.bed.AS.SetResource(ctx, h.resource), s.bed.AS.SetClient(ctx, client)); err != nil {
		return nil, err
	}
	_, err = s.root.Logical().WriteWithContext(ctx, bed.Mount+"/config/"+name, map[string]any{
		"token_url":       proxy.TokenURL(),
		"ca_cert":         proxy.CA(),
		"client_id":       client.ID,
		"client_secret":   client.Secret,
		"resource":        h.resource.URL,
		"scopes":          scope,
		"request_timeout": int(requestTimeout.Seconds()),
	})
	return h, err
}

// lifetimeFor returns a lifetime with which a token that has become due is valid for the time read, and for spare
// beyond it. A token becomes due a quarter of its lifetime ahead of its end, or half of it if that is less than 30 s.
func lifetimeFor(read time.Duration) time.Duration {
	margin := (read + spare + time.Second - 1).Truncate(time.Second)
	if margin <= 30*time.Second {
		return 2 * margin
	}
	return 4 * margin
}

// shorten replaces the hosts' tokens by tokens that become due soon and then stay valid for the time read.
func (s *stage) shorten(ctx context.Context, ill []*host, read time.Duration) error {
	group, inner := errgroup.WithContext(ctx)
	for _, h := range ill {
		h.resource.TTL = lifetimeFor(read)
		if err := s.bed.AS.SetResource(ctx, h.resource); err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error { return s.refresh(inner, h) })
	}
	return group.Wait()
}

// refresh replaces the host's token. It waits until the token is old enough to be replaced.
func (s *stage) refresh(ctx context.Context, h *host) error {
	for {
		answer, err := s.root.Logical().WriteWithContext(ctx, bed.Mount+"/refresh/"+h.name, nil)
		if err != nil || answer == nil || answer.Data["refreshed"] == true {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// stall makes a host stall, or answer again. Its later tokens do not become due.
func (s *stage) stall(ctx context.Context, h *host, how stall) error {
	h.resource.Delay, h.resource.TTL = how.delay, lifetime
	return errors.Join(h.proxy.Set(how.fault), s.bed.AS.SetResource(ctx, h.resource))
}

// refreshing counts the hosts whose token is being refreshed.
func (s *stage) refreshing(ctx context.Context, ill []*host) (n int, err error) {
	for _, h := range ill {
		status, err := s.root.Logical().ReadWithContext(ctx, bed.Mount+"/status/"+h.name)
		if err != nil {
			return n, err
		}
		if status != nil && status.Data["refreshing"] == true {
			n++
		}
	}
	return n, nil
}

// tokens returns the hosts' tokens.
func (s *stage) tokens(ctx context.Context, ill []*host) (all []*bed.Token, err error) {
	for _, h := range ill {
		token, err := s.bed.ReadToken(ctx, s.root, "token/"+h.name)
		if err != nil {
			return nil, err
		}
		all = append(all, token)
	}
	return all, nil
}

// readers connects the readers. They read the names in turn, each starting with a different name.
func (s *stage) readers(ctx context.Context, names []*host) (group []*measure.Reader, err error) {
	for i := range s.Readers {
		var paths []string
		for j := range names {
			paths = append(paths, "v1/"+bed.Mount+"/token/"+names[(i+j)%len(names)].name)
		}
		r, err := measure.NewReader(ctx, s.bed.Vault.Address, s.token, paths...)
		if err != nil {
			return group, err
		}
		group = append(group, r)
	}
	return group, nil
}
