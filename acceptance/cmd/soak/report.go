package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// report prints the events, and checks tokens and token requests.
func (s *soak) report() {
	elapsed := time.Since(s.begun)
	fmt.Printf("\nSummary of %s with seed %d\n\n", elapsed.Round(time.Second), s.seed)
	s.mu.Lock()
	budget, calms, calmsHeld := s.budget, strings.Join(s.calms, ", "), s.calmsHeld
	for _, kind := range slices.Sorted(maps.Keys(s.events)) {
		fmt.Printf("  %-34s %6d\n", kind, s.events[kind])
	}
	s.mu.Unlock()
	reads, tokens := s.brokers.counts()
	s.brokers.print()
	requests := s.requests()
	fmt.Printf("  %-34s %6d\n\n", "token requests", requests)

	s.brokers.mu.Lock()
	violations := s.brokers.violations
	s.brokers.mu.Unlock()
	troubled := s.brokers.firstTrouble()
	s.check(violations == 0, "tokens handed out that had expired, were of an old shape or of a deleted config: %d", violations)
	s.check(tokens > 0, "of %d reads %d brought a token", reads, tokens)
	s.check(troubled == nil, "while nothing was out of order every read brought a token%s", because(troubled))
	refreshes := names * refreshesIn(elapsed)
	s.check(requests <= refreshes+budget,
		"%d token requests, at most %d: %d for refreshes of %d tokens every %s, %d for the events",
		requests, refreshes+budget, refreshes, names, interval, budget)
	s.check(calmsHeld, "token requests in each %s without an event: %s", calmTime, calms)
}

// checkProcess checks that the plugin's resources did not grow.
func (s *soak) checkProcess(before, after count, soaked, fresh goroutines) {
	fmt.Println()
	s.check(before.pid == after.pid, "the plugin's process lived through the last third: %d, %d", before.pid, after.pid)
	s.check(after.Descriptors <= before.Descriptors+5, "file descriptors: %d before the last third, %d after", before.Descriptors, after.Descriptors)
	s.check(after.Memory <= before.Memory*3/2, "memory: %d MiB before, %d MiB after", before.Memory>>20, after.Memory>>20)
	s.check(soaked.others <= fresh.others+5, "goroutines: %d of the soaked process, %d of a fresh one", soaked.others, fresh.others)
	s.check(soaked.refreshing <= underWay, "goroutines of refreshes under way: %d of at most %d", soaked.refreshing, underWay)
}

// underWay is the largest number of goroutines of refreshes: eight refreshes, each with those of its connection.
const underWay = 8 * 5

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

func (s *soak) check(holds bool, format string, args ...any) {
	verdict := "ok"
	if !holds {
		verdict = "FAILED"
		s.failed++
	}
	fmt.Printf("  [%s] %s\n", verdict, fmt.Sprintf(format, args...))
}
