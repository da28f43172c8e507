package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// These are the token requests that an event may cause besides the regular refreshes.
const (
	// perOutage is for each name of a failing authorization server. Attempts come after windows of 0.75, 1.5, 3 s and
	// more instead of every 2.25 s, so they are two more.
	perOutage = 2
	// perEnd is for each name when the process ends, which loses the request under way and the backoff windows.
	perEnd = 1 + perOutage
	// perWrite is for each name of a write, which repeats the request under way and replaces the token of old
	// settings.
	perWrite = 2
)

// An event is a kind of trouble, ready to be made.
type event struct {
	kind string
	do   func(ctx context.Context) error
}

// every makes events until a time, at random intervals. Each round has all events in random order.
func every(ctx context.Context, until time.Time, r *rand.Rand, least, spread time.Duration, events []event) error {
	for {
		for _, i := range r.Perm(len(events)) {
			pause := least + upTo(r, spread)
			if time.Now().Add(pause).After(until) {
				return nil
			}
			if err := bed.Sleep(ctx, pause); err != nil {
				return err
			}
			if err := events[i].do(ctx); err != nil {
				return fmt.Errorf("%s: %w", events[i].kind, err)
			}
		}
	}
}

// authorizationServer injects faults of the authorization server, and restarts it.
func (s *soak) authorizationServer(n uint64) func(context.Context, time.Time) error {
	r := s.source(n)
	return func(ctx context.Context, until time.Time) error {
		var outages sync.WaitGroup
		defer outages.Wait()
		over := make([]chan struct{}, proxyCount) // by proxy: closed when its fault has ended
		begin := func(fault bed.Fault) error {
			i, lasts := r.IntN(proxyCount), time.Second+upTo(r, 9*time.Second)
			if over[i] != nil {
				select {
				case <-over[i]:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			s.event("fault", "address %d: %s, for %s", i+1, fault, round(lasts))
			s.allow(names / proxyCount * perOutage)
			if err := s.proxies[i].Set(fault); err != nil {
				return err
			}
			done := make(chan struct{})
			over[i] = done
			outages.Go(func() {
				defer close(done)
				_ = bed.Sleep(ctx, lasts)
				if err := s.proxies[i].Set(bed.NoFault); err != nil {
					s.log("address %d stays out of order: %v", i+1, err)
				}
			})
			return nil
		}
		events := []event{{"restart of the authorization server", func(ctx context.Context) error {
			pause := upTo(r, 3*time.Second)
			s.event("authorization server restarted", "away for %s and more", round(pause))
			s.allow(names * perOutage)
			return s.bed.AS.Restart(ctx, pause)
		}}}
		for _, fault := range append([]bed.Fault{bed.Repeat}, bed.Outages...) {
			events = append(events, event{string(fault), func(context.Context) error { return begin(fault) }})
		}
		return every(ctx, until, r, time.Second, 3*time.Second, events)
	}
}

// operatorCount is the number of operators who write concurrently.
const operatorCount = 3

// operators write configs and roles.
func (s *soak) operators(n uint64) func(context.Context, time.Time) error {
	return func(ctx context.Context, until time.Time) error {
		group, ctx := errgroup.WithContext(ctx)
		for i := range uint64(operatorCount) {
			group.Go(func() error { return s.operator(ctx, until, s.source(n+i)) })
		}
		return group.Wait()
	}
}

func (s *soak) operator(ctx context.Context, until time.Time, r *rand.Rand) error {
	// write writes to one of the servers. A write affects both names of the server, or only the role's.
	write := func(kind string, names int, do func(ctx context.Context, srv *server) (detail string, writes int, err error)) event {
		return event{kind, func(ctx context.Context) error {
			srv := s.servers[r.IntN(serverCount)]
			begun := time.Now()
			detail, writes, err := do(ctx, srv)
			s.event(kind, "%s%s, by %d writes in %s", srv.name, detail, writes, round(time.Since(begun)))
			s.allow(writes * (1 + names*perWrite)) // each write may also get a token to verify itself
			return err
		}}
	}
	return every(ctx, until, r, time.Second, 4*time.Second, []event{
		write("secret rotated", 2, func(ctx context.Context, srv *server) (string, int, error) {
			writes, err := srv.rotate(ctx)
			return "", writes, err
		}),
		write("config recreated", 2, func(ctx context.Context, srv *server) (string, int, error) {
			away := upTo(r, 3*time.Second)
			writes, err := srv.recreate(ctx, away)
			return fmt.Sprintf(", away for %s", round(away)), writes, err
		}),
		write("role rewritten", 1, func(ctx context.Context, srv *server) (string, int, error) {
			writes, err := srv.rewriteRole(ctx)
			return "", writes, err
		}),
		write("config rewritten", 2, func(ctx context.Context, srv *server) (string, int, error) {
			verify := r.IntN(2) == 0
			writes, err := srv.rewrite(ctx, verify)
			return fmt.Sprintf(", verify=%t", verify), writes, err
		}),
	})
}

// vault kills the plugin, and makes Vault fail over.
func (s *soak) vault(n uint64) func(context.Context, time.Time) error {
	r := s.source(n)
	// on does something to the active node, and waits until all nodes are healthy.
	on := func(kind string, do func(ctx context.Context, node *bed.Node) error) event {
		return event{kind, func(ctx context.Context) error {
			if err := s.bed.WaitHealthy(ctx); err != nil {
				return err
			}
			node, err := s.bed.Active(ctx)
			if err != nil {
				return err
			}
			s.event(kind, "%s", node.ID)
			s.allow(names * perEnd)
			if err := do(ctx, node); err != nil {
				return err
			}
			return s.bed.WaitHealthy(ctx)
		}}
	}
	events := []event{
		on("plugin killed", func(_ context.Context, node *bed.Node) error {
			_, err := node.KillPlugin()
			return err
		}),
		on("step-down", func(ctx context.Context, node *bed.Node) error {
			client, err := node.Root()
			if err == nil {
				err = client.Sys().StepDownWithContext(ctx)
			}
			return err
		}),
		on("leader killed", func(ctx context.Context, node *bed.Node) error {
			node.Kill()
			return node.Start(ctx)
		}),
	}
	return func(ctx context.Context, until time.Time) error {
		return every(ctx, until, r, 5*time.Second, 8*time.Second, events)
	}
}

func upTo(r *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(limit)))
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
