package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// What an event may cost in token requests, beyond the refreshes that come anyway.
const (
	// perOutage is for each name whose authorization server is out of order: while it is,
	// attempts come at windows of 0.75, 1.5, 3 s and more instead of every 2.25 s, so two more.
	perOutage = 2
	// perEnd is for each name when the process that asks ends: the request under way is lost,
	// and so is the memory of a failure and of the windows that it has gone through.
	perEnd = 1 + perOutage
	// perWrite is for each of a server's names when its config is written: the request under way
	// is thrown away and made again, and a token of an old shape is asked for anew.
	perWrite = 2
)

// every repeats an event, at random intervals, until a time.
func every(ctx context.Context, until time.Time, r *rand.Rand, least, spread time.Duration, event func() error) error {
	for {
		pause := least + upTo(r, spread)
		if time.Now().Add(pause).After(until) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if err := event(); err != nil {
			return err
		}
	}
}

// authorizationServer puts the authorization server out of order, or restarts it.
func (s *soak) authorizationServer(n uint64) func(context.Context, time.Time) error {
	r := s.source(n)
	faults := append([]bed.Fault{bed.Repeat}, bed.Outages...)
	return func(ctx context.Context, until time.Time) error {
		var outages sync.WaitGroup
		defer outages.Wait()
		busy := make([]chan struct{}, proxyCount) // closed when a proxy's fault is over
		return every(ctx, until, r, 2*time.Second, 4*time.Second, func() error {
			if r.IntN(6) == 0 {
				pause := upTo(r, 3*time.Second)
				s.event("authorization server restarted", "away for %s and more", round(pause))
				s.allow(names * perOutage)
				return s.bed.AS.Restart(ctx, pause)
			}
			i, fault, lasts := r.IntN(proxyCount), faults[r.IntN(len(faults))], time.Second+upTo(r, 9*time.Second)
			if busy[i] != nil {
				select {
				case <-busy[i]:
				default:
					return nil // it has one already
				}
			}
			s.event("fault", "address %d: %s, for %s", i+1, fault, round(lasts))
			s.allow(names / proxyCount * perOutage)
			if err := s.proxies[i].Set(fault); err != nil {
				return err
			}
			over := make(chan struct{})
			busy[i] = over
			outages.Go(func() {
				defer close(over)
				select {
				case <-ctx.Done():
				case <-time.After(lasts):
				}
				if err := s.proxies[i].Set(bed.NoFault); err != nil {
					s.log("address %d stays out of order: %v", i+1, err)
				}
			})
			return nil
		})
	}
}

// operators write configs.
func (s *soak) operators(n uint64) func(context.Context, time.Time) error {
	r := s.source(n)
	return func(ctx context.Context, until time.Time) error {
		return every(ctx, until, r, 500*time.Millisecond, 3*time.Second, func() error {
			srv := s.servers[r.IntN(serverCount)]
			var kind, detail string
			var write func() (int, error)
			switch r.IntN(4) {
			case 0:
				kind, write = "secret rotated", func() (int, error) { return srv.rotate(ctx) }
			case 1:
				away := upTo(r, 3*time.Second)
				kind, detail = "config deleted and created again", fmt.Sprintf(", away for %s", round(away))
				write = func() (int, error) { return srv.recreate(ctx, away) }
			case 2:
				kind, write = "role written", func() (int, error) { return srv.putRole(ctx) }
			default:
				verify := r.IntN(2) == 0
				kind, detail = "config rewritten", fmt.Sprintf(", verify=%t", verify)
				write = func() (int, error) { return srv.rewrite(ctx, verify) }
			}
			s.event(kind, "%s%s", srv.name, detail)
			writes, err := write()
			s.allow(2*perWrite*writes + writes) // each write may verify as well
			if writes > 2 {
				s.log("%s took %d writes to be accepted", srv.name, writes)
			}
			return err
		})
	}
}

// vault ends the plugin's process, and makes Vault fail over.
func (s *soak) vault(n uint64) func(context.Context, time.Time) error {
	r := s.source(n)
	return func(ctx context.Context, until time.Time) error {
		return every(ctx, until, r, 6*time.Second, 8*time.Second, func() error {
			node, err := s.bed.Active(ctx)
			if err != nil {
				return err
			}
			s.allow(names * perEnd)
			switch r.IntN(3) {
			case 0:
				pid, err := node.KillPlugin()
				s.event("plugin killed", "process %d of %s", pid, node.ID)
				return err
			case 1:
				s.event("step-down", "%s", node.ID)
				client, err := node.Root()
				if err == nil {
					err = client.Sys().StepDownWithContext(ctx)
				}
				if err != nil {
					return err
				}
			default:
				s.event("leader killed", "%s", node.ID)
				node.Kill()
				if err := node.Start(ctx); err != nil {
					return err
				}
			}
			return s.bed.WaitHealthy(ctx)
		})
	}
}

// upTo draws a duration below a limit.
func upTo(r *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(limit)))
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
