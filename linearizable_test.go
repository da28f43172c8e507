package mcpoauth

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A register is one value that can be written, deleted and read, such as the scopes of a config. Its history is the
// events of all clients.
//
// A history is linearizable (Herlihy and Wing) if each event can have happened at one instant between its beginning
// and its end, so that every read returns the last value written before it.
//
// Every value is written at most once, which makes the check easy (Gibbons and Korach, "Testing shared memories",
// 1997). The events of a value are its write and its reads. If the first of their ends is before the last of their
// beginnings, the register must have held the value between the two: the value's reign. A history is linearizable if
// and only if
//
//  1. every value read was written, by a write that began before the read ended;
//  2. reigns do not overlap;
//  3. for a value without a reign, the time in which it may have been held is not all within one reign.
//
// Clients may also read a deleted register, and may delete it several times. Each delete counts as a value without
// reads. Each read of a deleted register must satisfy
//
//  4. it does not lie within a reign;
//  5. the register was deleted, at the start or by a delete that began before the read's end, and no write lies
//     between that delete's end and the read's beginning.
type event struct {
	began, ended int64  // in ticks of a clock that never repeats, from 1
	write        bool   // false: a read
	value        string // written or read; empty: deleted, or missing
}

func (e event) String() string {
	verb := "a read of"
	if e.write {
		verb = "the write of"
	}
	value := e.value
	if value == "" {
		value = "nothing"
	}
	return fmt.Sprintf("%s %s (%d to %d)", verb, value, e.began, e.ended)
}

// tenure is the time in which a register must, or may, have held a value.
type tenure struct {
	value    string
	from, to int64
}

// violations returns a sentence for each violation of the rules in a history.
func violations(history []event) []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	written := map[string]event{}
	ended, began := map[string]int64{}, map[string]int64{} // by value: the first end, the last beginning
	deletes := []event{{write: true}}                      // initially deleted
	for _, e := range history {
		switch {
		case e.write && e.value == "":
			deletes = append(deletes, e)
		case e.write:
			if other, twice := written[e.value]; twice {
				report("%s and %s write the same", other, e)
			}
			written[e.value], ended[e.value], began[e.value] = e, e.ended, e.began
		}
	}
	for _, e := range history {
		if e.write || e.value == "" {
			continue
		}
		write, ok := written[e.value]
		if !ok || e.ended < write.began {
			report("%s came before its write, or without", e)
			continue
		}
		ended[e.value], began[e.value] = min(ended[e.value], e.ended), max(began[e.value], e.began)
	}

	var reigns, moments []tenure
	for value := range written {
		if ended[value] < began[value] {
			reigns = append(reigns, tenure{value, ended[value], began[value]})
		} else {
			moments = append(moments, tenure{value, began[value], ended[value]})
		}
	}
	for _, e := range deletes[1:] {
		moments = append(moments, tenure{"nothing", e.began, e.ended})
	}
	slices.SortFunc(reigns, func(a, b tenure) int { return int(a.from - b.from) })
	for i, next := range reigns {
		if i > 0 && next.from < reigns[i-1].to {
			report("%s was still there at %d, and %s already at %d", reigns[i-1].value, reigns[i-1].to, next.value, next.from)
		}
	}
	for _, e := range history {
		if e.write || e.value != "" {
			continue
		}
		moments = append(moments, tenure{"nothing", e.began, e.ended})
		if !slices.ContainsFunc(deletes, func(d event) bool { return d.began < e.ended && !overwritten(written, d, e) }) {
			report("%s, with no delete since the latest write", e)
		}
	}
	for _, m := range moments {
		for _, r := range reigns {
			if r.from < m.from && m.to < r.to {
				report("%s was there from %d to %d, and %s at some time from %d to %d", r.value, r.from, r.to, m.value, m.from, m.to)
			}
		}
	}
	return found
}

// overwritten reports whether a write lies between a delete and a read.
func overwritten(written map[string]event, d, read event) bool {
	for _, w := range written {
		if d.ended < w.began && w.ended < read.began {
			return true
		}
	}
	return false
}

// chronicle records the histories of many registers on one clock.
type chronicle struct {
	clock atomic.Int64

	mu        sync.Mutex // guards histories
	histories map[string][]event
}

// tick advances the clock and returns its time.
func (c *chronicle) tick() int64 { return c.clock.Add(1) }

// note records an event of a register.
func (c *chronicle) note(register string, e event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.histories == nil {
		c.histories = map[string][]event{}
	}
	c.histories[register] = append(c.histories[register], e)
}

// check fails the test for every register whose history is not linearizable.
func (c *chronicle) check(t *testing.T, seed uint64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for register, history := range c.histories {
		found := violations(history)
		if n := len(found); n > 0 {
			t.Errorf("seed %d: %s, of %d events: %d violations, the first are:\n%s",
				seed, register, len(history), n, strings.Join(found[:min(n, 5)], "\n"))
		}
	}
}

func TestTheCheckerOfHistories(t *testing.T) {
	w := func(value string, began, ended int64) event { return event{began, ended, true, value} }
	r := func(value string, began, ended int64) event { return event{began, ended, false, value} }
	for _, test := range []struct {
		name    string
		history []event
		says    string // empty: no violation
	}{
		{"nothing happened", nil, ""},
		{"one after the other", []event{r("", 1, 2), w("a", 3, 4), r("a", 5, 6), w("b", 7, 8), r("b", 9, 10), w("", 11, 12), r("", 13, 14)}, ""},
		{"a write under way is seen or not", []event{w("a", 1, 2), w("b", 3, 10), r("a", 4, 5), r("b", 6, 7), r("b", 8, 9)}, ""},
		{"writes at once in either order", []event{w("a", 1, 4), w("b", 2, 3), r("a", 5, 6)}, ""},
		{"a delete under way", []event{w("a", 1, 2), w("", 3, 8), r("", 4, 5), r("", 6, 7)}, ""},
		{"created again", []event{w("a", 1, 2), w("", 3, 4), w("b", 5, 6), r("b", 7, 8)}, ""},

		{"a token of the old shape", []event{w("a", 1, 2), w("b", 3, 4), r("a", 5, 6)}, "b at some time from 3 to 4"},
		{"the same, of writes that no client read", []event{w("a", 1, 2), w("b", 4, 5), w("c", 6, 7), r("a", 3, 8), r("b", 9, 10)}, "c at some time from 6 to 7"},
		{"a lost update", []event{w("a", 1, 3), w("b", 2, 4), r("b", 5, 6), r("a", 7, 8)}, "b already at 4"},
		{"back and forth", []event{w("a", 1, 2), w("b", 3, 10), r("b", 4, 5), r("a", 6, 7)}, "b at some time from 4 to 5"},
		{"before its write", []event{r("a", 1, 2), w("a", 3, 4)}, "before its write"},
		{"of a write that failed", []event{r("a", 1, 2)}, "or without"},
		{"after a delete", []event{w("a", 1, 2), w("", 3, 4), r("a", 5, 6)}, "nothing at some time from 3 to 4"},
		{"nothing where something is", []event{w("a", 1, 2), r("", 3, 4)}, "no delete since"},
		{"nothing among reads", []event{w("a", 1, 8), r("a", 2, 3), r("", 4, 5), r("a", 6, 7)}, "nothing at some time from 4 to 5"},
		{"nothing before the delete", []event{w("a", 1, 2), r("", 3, 4), w("", 5, 6)}, "no delete since"},
		{"nothing after the next create", []event{w("a", 1, 2), w("", 3, 4), w("b", 5, 6), r("", 7, 8)}, "no delete since"},
		{"the same written twice", []event{w("a", 1, 2), w("a", 3, 4)}, "write the same"},
	} {
		found := strings.Join(violations(test.history), "\n")
		if (found == "") != (test.says == "") || !strings.Contains(found, test.says) {
			t.Errorf("%s: the checker reports %q; want %q", test.name, found, test.says)
		}
	}
}

// The checker agrees with a search through all orders of the events, except that it may miss an impossible read of a
// deleted register.
func TestTheCheckerAgreesWithASearch(t *testing.T) {
	good, bad := 0, 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 0))
		history := make([]event, 2+r.IntN(5))
		times := r.Perm(2 * len(history))
		nothingRead := false
		for i := range history {
			a, b := int64(times[2*i])+1, int64(times[2*i+1])+1
			e := event{began: min(a, b), ended: max(a, b), write: i < len(history)/2}
			if e.write && r.IntN(4) > 0 {
				e.value = fmt.Sprint("v", i)
			}
			if !e.write {
				e.value = history[r.IntN(len(history)/2)].value
			}
			nothingRead = nothingRead || !e.write && e.value == ""
			history[i] = e
		}
		found, explained := violations(history), explicable(history, "")
		if len(found) > 0 && explained {
			t.Fatalf("seed %d: %v is linearizable, and the checker reports %q", seed, history, found)
		}
		if len(found) == 0 && !explained && !nothingRead {
			t.Fatalf("seed %d: %v is not linearizable, and the checker reports no violation", seed, history)
		}
		if explained {
			good++
		} else {
			bad++
		}
	}
	if min(good, bad) < 1000 {
		t.Errorf("%d linearizable histories and %d others; want many of both", good, bad)
	}
}

// explicable reports whether some order of the events is possible from a state.
func explicable(events []event, state string) bool {
	for i, e := range events {
		// All events that ended before e began must come before it.
		if slices.ContainsFunc(events, func(o event) bool { return o.ended < e.began }) || !e.write && e.value != state {
			continue
		}
		next := state
		if e.write {
			next = e.value
		}
		if explicable(slices.Delete(slices.Clone(events), i, i+1), next) {
			return true
		}
	}
	return len(events) == 0
}
