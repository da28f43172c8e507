package main

import (
	"testing"
	"time"
)

// If a machine slows down steadily, this is not a stall: each period is compared with both its neighbours.
func TestRatiosLeaveOutDriftAndTellStalls(t *testing.T) {
	of := func(p99 ...float64) []figures {
		all := make([]figures, len(p99))
		for i, v := range p99 {
			all[i].P99 = v
		}
		return all
	}
	r := &results{Cases: []*stallCase{{
		Refreshing: readers{
			Before: of(1, 1), Control: of(2, 2), Between: of(4, 4), During: of(8, 8), After: of(16, 16),
			LongBefore: of(1), LongStall: of(2), LongAfter: of(4),
		},
		Others: readers{
			Before: of(4, 5), Control: of(5, 4), Between: of(4, 5), During: of(9, 10), After: of(4, 5),
			LongBefore: of(1), LongStall: of(4), LongAfter: of(4),
		},
	}}}
	r.compare()
	c := r.Cases[0]
	if c.Refreshing.Ratio != 1 || c.Refreshing.CalmRatio != 1 || c.Refreshing.LongRatio != 1 || !r.Noise.covers(c.Refreshing.Ratio) {
		t.Errorf("ratios of %.2f, %.2f and %.2f although p99 doubles each time, noise %v",
			c.Refreshing.Ratio, c.Refreshing.CalmRatio, c.Refreshing.LongRatio, r.Noise)
	}
	if c.Others.Ratio < 2 || r.Noise.covers(c.Others.Ratio) {
		t.Errorf("p99 is twice as long in a stall, and the ratio %.2f, noise %v", c.Others.Ratio, r.Noise)
	}
	if c.Others.LongRatio != 2 {
		t.Errorf("the ratio of a long stall is %.2f to the mean of before and after, want 2", c.Others.LongRatio)
	}
}

// The noise is the largest deviation among all judged medians. It is smaller than the deviation of one ratio, and
// larger than the deviation of one median.
func TestNoiseIsThatOfMedians(t *testing.T) {
	var control []float64
	for i := range 96 {
		control = append(control, 0.8+0.45*float64(i)/95) // 0.8 to 1.25
	}
	one, all := newNoise(control, 8, 1), newNoise(control, 8, 12)
	if one.Wide < 1.05 || all.Wide <= one.Wide || all.Wide >= 1.25 {
		t.Errorf("noise of one median %.3f, of twelve %.3f, of ratios from 0.8 to 1.25", one.Wide, all.Wide)
	}
	if more := newNoise(control, 80, 12); more.Wide >= all.Wide {
		t.Errorf("noise of medians of 80 is %.3f, of 8 %.3f", more.Wide, all.Wide)
	}
	if !all.covers(all.Wide) || !all.covers(1/all.Wide) || all.covers(1.01*all.Wide) || all.covers(0.99/all.Wide) {
		t.Error("the noise is not the same on both sides")
	}
}

func TestVerdict(t *testing.T) {
	v := verdict{noise: noise{Wide: 1.1}}
	if got := v.of(1.05); got != "1.05" || v.String() != "met" {
		t.Errorf("1.05 is %q, the target %s", got, v)
	}
	if got := v.of(0.8); got != "0.80, below the noise" || v.String() != "met" {
		t.Errorf("0.8 is %q, the target %s", got, v)
	}
	if got := v.of(1.2); got != "1.20, beyond the noise" || v.String() != "NOT met by 1" || v.judged != 3 {
		t.Errorf("1.2 is %q, the target %s", got, v)
	}
}

// A due token, even if jitter makes it due early, stays valid for longer than the readers read it.
func TestTokensOutlastTheStall(t *testing.T) {
	for _, read := range []time.Duration{time.Millisecond, 600 * time.Millisecond, 12 * time.Second, 40 * time.Second} {
		lifetime := lifetimeFor(read)
		margin := max(lifetime/4, min(30*time.Second, lifetime/2))
		if margin < read+spare || lifetime%time.Second != 0 {
			t.Errorf("tokens of %s are valid for %s when they become due, and are read for %s", lifetime, margin, read)
		}
	}
}
