package main

import (
	"math"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// The peaks of holding tokens, of outages, and of requests for all tokens are separate.
func TestPeaksAreOfAllTimes(t *testing.T) {
	m := &mountReport{
		Steps: []step{{Memory: measure.Memory{Peak: 1}, Fetched: measure.Memory{Peak: 4}}}, WritePeak: 3, AtWork: measure.Memory{Peak: 5},
		AtRest:  measure.Memory{Resident: 2, Peak: 9},
		Outages: []*outage{{Memory: measure.Memory{Peak: 7}}, {Memory: measure.Memory{Peak: 6}}}, Requests: []asked{{Peak: 9}, {Peak: 8}},
	}
	if m.holdingPeak() != 5 || m.outagePeak() != 7 || m.peak() != 9 {
		t.Errorf("peaks of %d, %d and %d; want 5, 7 and 9", m.holdingPeak(), m.outagePeak(), m.peak())
	}
}

// A token counts once, by the end of its predecessor.
func TestOutageCountsLateReplacements(t *testing.T) {
	now := time.Now()
	i := &issuer{held: map[string]time.Time{"late": now.Add(-time.Second), "in time": now.Add(time.Hour)}}
	first, last := i.ends()
	o := &outage{Names: 2, Left: math.Inf(1), done: make(map[string]bool)}
	i.watch(o)
	if i.left(o) != 2 || !first.Equal(now.Add(-time.Second)) || !last.Equal(now.Add(time.Hour)) {
		t.Errorf("%d to be replaced, which end between %s and %s", i.left(o), first, last)
	}
	i.replaced("in time", now.Add(2*time.Hour))
	i.replaced("late", now.Add(2*time.Hour))
	i.replaced("late", now.Add(3*time.Hour))
	if i.left(o) != 0 || o.Late != 1 || o.Left > -1 || i.issued.Load() != 3 {
		t.Errorf("%d left, %d too late, least time left %v s, %d issued", i.left(o), o.Late, o.Left, i.issued.Load())
	}
}
