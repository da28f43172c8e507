package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

const (
	// brokerCount is the number of brokers. Each reads its token for every use.
	brokerCount = 50
	// readTimeout is a broker's limit for a read.
	readTimeout = 5 * time.Second
)

type brokers struct {
	client *api.Client
	log    func(format string, args ...any)
	paused atomic.Bool
	busy   atomic.Int32 // reads under way
	done   sync.WaitGroup

	mu         sync.Mutex // guards the fields below
	reads      map[string]int
	reasons    map[string]map[string]int // of failed reads, by outcome
	violations int
	calm       bool  // without trouble, so every read must return a token
	troubled   error // the first failed read in a calm
}

func (b *brokers) start(ctx context.Context, seed uint64, servers []*server) {
	for i := range brokerCount {
		r := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		s := servers[i%len(servers)]
		path := s.tokenPaths()[i/len(servers)%2]
		b.done.Go(func() {
			for ctx.Err() == nil {
				if !b.paused.Load() {
					b.read(ctx, s, path)
				}
				_ = bed.Sleep(ctx, 100*time.Millisecond+upTo(r, 500*time.Millisecond))
			}
		})
	}
}

func (b *brokers) read(ctx context.Context, s *server, path string) {
	b.busy.Add(1)
	defer b.busy.Add(-1)
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	calm := b.isCalm()
	err := s.read(ctx, b.client, path)
	if errors.Is(err, context.Canceled) {
		return // the run has ended
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if bad, ok := errors.AsType[violation](err); ok {
		if b.violations++; b.violations <= 20 {
			b.log("VIOLATION: %v", bad)
		}
		return
	}
	b.reads[outcome(err)]++
	if err != nil {
		b.explain(outcome(err), err)
	}
	if err != nil && calm && b.calm && b.troubled == nil {
		b.troubled = err
	}
}

// variable matches the parts in which errors of the same kind differ.
var variable = regexp.MustCompile(`soak-\d+(/reader)?|\d+(\.\d+)?m?s\b|\b[0-9a-f]{8,}\b|\d{4}-\d\d-\d\dT[\d:]+Z|127\.0\.0\.1:\d+`)

// explain records why a read failed. mu is held.
func (b *brokers) explain(outcome string, err error) {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	reason := variable.ReplaceAllString(strings.TrimLeft(lines[len(lines)-1], "\t *"), "…")
	if b.reasons[outcome] == nil {
		b.reasons[outcome] = make(map[string]int)
	}
	b.reasons[outcome][reason]++
}

func (b *brokers) isCalm() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calm
}

func (b *brokers) setCalm(calm bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calm = calm
}

// firstTrouble returns the first read that failed during a calm.
func (b *brokers) firstTrouble() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.troubled
}

// voidCalm ends a calm that does not count, and restores the earlier failure.
func (b *brokers) voidCalm(troubled error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calm, b.troubled = false, troubled
}

// pause waits for the reads under way, and lets no read begin.
func (b *brokers) pause(ctx context.Context) error {
	b.paused.Store(true)
	for b.busy.Load() > 0 {
		if err := bed.Sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (b *brokers) resume() { b.paused.Store(false) }

func (b *brokers) counts() (reads, tokens int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.reads {
		reads += n
	}
	return reads, b.reads[outcome(nil)]
}

func (b *brokers) print() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(b.reads)) {
		fmt.Printf("  %-34s %6d\n", "reads: "+what, b.reads[what])
		reasons := b.reasons[what]
		byCount := slices.SortedFunc(maps.Keys(reasons), func(x, y string) int { return cmp.Compare(reasons[y], reasons[x]) })
		for _, reason := range byCount[:min(6, len(byCount))] {
			fmt.Printf("  %12d %.120s\n", reasons[reason], reason)
		}
	}
}
