package main

import "testing"

// A machine that grows slower all the time is no stall: each time is compared with both its neighbours.
func TestRatiosLeaveOutDriftAndTellStalls(t *testing.T) {
	of := func(p99 ...float64) []figures {
		all := make([]figures, len(p99))
		for i, v := range p99 {
			all[i].P99 = v
		}
		return all
	}
	r := &results{Cases: []*stallCase{{
		Refreshing: readers{Before: of(1, 1), Control: of(2, 2), Between: of(4, 4), During: of(8, 8), After: of(16, 16)},
		Others:     readers{Before: of(4, 5), Control: of(5, 4), Between: of(4, 5), During: of(9, 10), After: of(4, 5)},
	}}}
	r.compare()
	c := r.Cases[0]
	if c.Refreshing.Ratio != 1 || c.Refreshing.CalmRatio != 1 || !r.Noise.covers(c.Refreshing.Ratio) {
		t.Errorf("ratios of %.2f and %.2f where p99 doubles each time, noise %v", c.Refreshing.Ratio, c.Refreshing.CalmRatio, r.Noise)
	}
	if c.Others.Ratio < 2 || r.Noise.covers(c.Others.Ratio) {
		t.Errorf("p99 is twice as long in a stall, and the ratio %.2f, noise %v", c.Others.Ratio, r.Noise)
	}
	if r.Noise.Most != 1.25 || r.Noise.Least != 0.8 {
		t.Errorf("noise %v, want 4/5 to 5/4", r.Noise)
	}
}
