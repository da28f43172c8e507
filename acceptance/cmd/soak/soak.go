package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

const (
	serverCount = 12
	proxyCount  = 3 // addresses of the authorization server, each with its own faults
	// names is the number of tokens: each server's, and its role's.
	names = 2 * serverCount
)

// A soak is one run.
type soak struct {
	bed      *bed.Bed
	root     *api.Client
	seed     uint64
	proxies  []*bed.FaultProxy
	servers  []*server
	brokers  *brokers
	cancel   context.CancelFunc
	watching sync.WaitGroup
	begun    time.Time
	failed   int // number of claims that did not hold

	mu        sync.Mutex // guards the fields below
	events    map[string]int
	budget    int      // largest number of token requests that the events may have caused besides the refreshes
	calms     []string // the token requests of each calm
	calmsHeld bool     // whether all were at most the refreshes
}

func newSoak(ctx context.Context, b *bed.Bed, seed uint64) (*soak, error) {
	s := &soak{bed: b, seed: seed, events: make(map[string]int), calmsHeld: true, begun: time.Now()}
	var err error
	if s.root, err = b.Vault.Root(); err != nil {
		return nil, err
	}
	s.brokers = &brokers{client: s.root, log: s.log, reads: make(map[string]int), reasons: make(map[string]map[string]int)}
	for range proxyCount {
		proxy, err := b.NewFaultProxy()
		if err != nil {
			return nil, err
		}
		s.proxies = append(s.proxies, proxy)
	}
	for i := range serverCount {
		srv := &server{name: fmt.Sprintf("soak-%d", i+1), bed: b, root: s.root, proxy: s.proxies[i%proxyCount]}
		srv.mcp, err = b.NewMCPServer(ctx, bed.Resource{Scope: "tools:list tools:call", TTL: lifetime}, bed.MCPOptions{})
		if err != nil {
			return nil, err
		}
		writes, err := srv.rewrite(ctx, true)
		s.allow(writes)
		if err == nil {
			_, err = srv.rewriteRole(ctx)
		}
		if err != nil {
			return nil, err
		}
		s.servers = append(s.servers, srv)
	}
	return s, nil
}

// run makes trouble of every kind for two thirds of the time. Then it makes only trouble that keeps the plugin's
// process alive, to check its resources.
func (s *soak) run(ctx context.Context, duration time.Duration) error {
	ctx, s.cancel = context.WithCancel(ctx)
	s.brokers.start(ctx, s.seed, s.servers)
	s.watching.Go(func() { s.watch(ctx) })
	s.log("%d brokers read %d tokens of %s", brokerCount, names, lifetime)
	if err := s.trouble(ctx, duration*2/3, s.authorizationServer(1), s.operators(10), s.vault(2)); err != nil {
		return err
	}
	var before, after count
	for n := range uint64(3) {
		var err error
		if before, err = s.census(ctx); err != nil {
			return err
		}
		if err := s.trouble(ctx, duration/3, s.authorizationServer(100+n), s.operators(110+10*n)); err != nil {
			return err
		}
		if after, err = s.census(ctx); err != nil {
			return err
		}
		if after.reign == before.reign {
			break
		}
		s.log("%s has become active by itself: once more", after.node.ID)
	}
	soaked, err := s.goroutines(ctx)
	if err != nil {
		return err
	}
	// The process is compared with a fresh one.
	if err := s.calm(ctx); err != nil {
		return err
	}
	fresh, err := s.goroutines(ctx)
	if err != nil {
		return err
	}
	s.checkProcess(before, after, soaked, fresh)
	return nil
}

// watch logs changes of the active node and process.
func (s *soak) watch(ctx context.Context) {
	node, plugin := "", 0
	for {
		if bed.Sleep(ctx, 500*time.Millisecond) != nil {
			return
		}
		active, err := s.bed.Active(ctx)
		if err != nil {
			continue
		}
		if pid, err := active.PluginPID(); err == nil && pid != 0 && (node != active.ID || plugin != pid) {
			node, plugin = active.ID, pid
			s.log("%s is active, with the plugin's process %d", node, plugin)
		}
	}
}

func (s *soak) stop() {
	if s.cancel != nil {
		s.cancel()
	}
	s.brokers.done.Wait()
	s.watching.Wait()
}

// trouble runs sources of events in parallel for a time, and then waits for a calm.
func (s *soak) trouble(ctx context.Context, duration time.Duration, sources ...func(context.Context, time.Time) error) error {
	s.brokers.setCalm(false)
	until := time.Now().Add(duration)
	group, working := errgroup.WithContext(ctx)
	for _, source := range sources {
		group.Go(func() error { return source(working, until) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return s.calm(ctx)
}

// calm lets the brokers read for some lifetimes without events. If an election happens meanwhile, as on a busy
// machine, the calm is repeated.
func (s *soak) calm(ctx context.Context) error {
	troubled := s.brokers.firstTrouble()
	for range 3 {
		if err := s.recovered(ctx); err != nil {
			return err
		}
		was, err := s.reign(ctx)
		if err != nil {
			return err
		}
		s.brokers.setCalm(true)
		from, asked := time.Now(), s.requests()
		if err := bed.Sleep(ctx, calmTime); err != nil {
			return err
		}
		refreshes, most := s.requests()-asked, names*refreshesIn(time.Since(from))
		if is, err := s.reign(ctx); err != nil || is != was {
			s.log("Vault has elected a leader by itself: once more")
			s.brokers.voidCalm(troubled)
			continue
		}
		s.noteCalm(refreshes, most)
		return nil
	}
	return errors.New("the machine is too busy: leaders were elected without an event in three calm periods")
}

// noteCalm records the token requests of a calm and their limit.
func (s *soak) noteCalm(refreshes, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calms = append(s.calms, fmt.Sprintf("%d of at most %d", refreshes, most))
	s.calmsHeld = s.calmsHeld && refreshes <= most
}

// A reign is the time between two elections.
type reign struct {
	node  *bed.Node
	since time.Time
}

// reign returns the active node and its start.
func (s *soak) reign(ctx context.Context) (reign, error) {
	node, err := s.bed.Active(ctx)
	if err != nil {
		return reign{}, err
	}
	client, err := node.Client("")
	if err != nil {
		return reign{}, err
	}
	leader, err := client.Sys().LeaderWithContext(ctx)
	if err != nil {
		return reign{}, err
	}
	return reign{node, leader.ActiveTime}, nil
}

// recovered waits until every token can be read.
func (s *soak) recovered(ctx context.Context) error {
	begun := time.Now()
	if err := s.bed.WaitHealthy(ctx); err != nil {
		return err
	}
	for _, srv := range s.servers {
		for _, path := range srv.tokenPaths() {
			for {
				err := srv.read(ctx, s.root, path)
				if err == nil {
					break
				}
				if bad, ok := errors.AsType[violation](err); ok {
					return bad
				}
				// This is longer than the longest window after an outage.
				if time.Since(begun) > 2*time.Minute {
					return fmt.Errorf("%s: all has been well for %s: %w", path, time.Since(begun), err)
				}
				if err := bed.Sleep(ctx, 200*time.Millisecond); err != nil {
					return err
				}
			}
		}
	}
	s.log("all tokens can be read, %s after the last event", round(time.Since(begun)))
	return nil
}

// calmTime is the duration of a calm, which shows that all tokens are served.
const calmTime = 2 * lifetime

func (s *soak) requests() (n int) {
	for _, proxy := range s.proxies {
		n += len(proxy.Attempts())
	}
	return n
}

// interval is the shortest time between two refreshes: half of the lifetime, less a tenth of that for jitter.
const interval = lifetime/2 - lifetime/20

// refreshesIn returns the largest number of refreshes of one token in a time.
func refreshesIn(d time.Duration) int { return int(d/interval) + 1 }

func (s *soak) log(format string, args ...any) {
	fmt.Printf("%9.1fs  %s\n", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

func (s *soak) event(kind, format string, args ...any) {
	s.mu.Lock()
	s.events[kind]++
	s.mu.Unlock()
	s.log("%s: %s", kind, fmt.Sprintf(format, args...))
}

// allow adds to the number of token requests that events may cause.
func (s *soak) allow(requests int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget += requests
}

// source returns a stream of random numbers.
func (s *soak) source(n uint64) *rand.Rand {
	return rand.New(rand.NewPCG(s.seed, n))
}
