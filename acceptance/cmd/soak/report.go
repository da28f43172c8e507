package main

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// interval is the shortest time between two refreshes: half of the lifetime is the margin, and up
// to a tenth of that is taken off by jitter.
const interval = lifetime/2 - lifetime/20

// report prints what happened and what held.
func (s *soak) report(before, after count, soaked, fresh int) {
	elapsed := time.Since(s.begun)
	fmt.Printf("\nSummary of %s with seed %d\n\n", elapsed.Round(time.Second), s.seed)
	s.mu.Lock()
	budget := s.budget
	for _, kind := range slices.Sorted(maps.Keys(s.events)) {
		fmt.Printf("  %-34s %6d\n", kind, s.events[kind])
	}
	s.mu.Unlock()
	reads, tokens := s.brokers.counts()
	s.brokers.print()
	requests := 0
	for _, proxy := range s.proxies {
		requests += len(proxy.Attempts())
	}
	refreshes := names * (int(elapsed/interval) + 1)
	fmt.Printf("  %-34s %6d\n\n", "token requests", requests)

	s.brokers.mu.Lock()
	violations, troubled := s.brokers.violations, s.brokers.troubled
	s.brokers.mu.Unlock()
	s.check(violations == 0, "tokens handed out that had expired, were of an old shape or of a deleted config: %d", violations)
	s.check(tokens > 0, "of %d reads %d brought a token", reads, tokens)
	s.check(troubled == nil, "while nothing was out of order every read brought a token%s", because(troubled))
	s.check(requests <= refreshes+budget,
		"%d token requests, at most %d: %d for refreshes of %d tokens every %s, %d for the events",
		requests, refreshes+budget, refreshes, names, interval, budget)
	s.check(before.pid == after.pid, "the process of the last third lived through it: %d, %d", before.pid, after.pid)
	s.check(after.Descriptors <= before.Descriptors+5, "file descriptors: %d before the last third, %d after", before.Descriptors, after.Descriptors)
	s.check(after.Memory <= before.Memory*3/2, "memory: %d MiB before, %d MiB after", before.Memory>>20, after.Memory>>20)
	s.check(soaked <= fresh+5, "goroutines: %d of the soaked process, %d of a fresh one", soaked, fresh)
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// check tells whether a claim holds.
func (s *soak) check(holds bool, format string, args ...any) {
	verdict := "ok"
	if !holds {
		verdict = "FAILED"
		s.failed++
	}
	fmt.Printf("  [%s] %s\n", verdict, fmt.Sprintf(format, args...))
}
