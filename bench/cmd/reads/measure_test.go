package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

// made returns a load of two rounds with the given figures of each series.
func made(throughputs, cpus [seriesCount][2]float64) *load {
	l := &load{Readers: 1}
	for i := range l.Series {
		s := &l.Series[i]
		for n := range throughputs[i] {
			s.Rounds = append(s.Rounds, round{Throughput: throughputs[i][n], CPU: cpus[i][n]})
		}
		s.latencies = []time.Duration{time.Millisecond, 3 * time.Millisecond}
		s.cpu = 10 * time.Microsecond
		s.sum()
	}
	l.compare()
	return l
}

// Series are compared round by round: a machine twice as fast in the second round changes no ratio.
func TestRatiosAreWithinARound(t *testing.T) {
	l := made(
		[seriesCount][2]float64{seriesFloor: {100, 200}, seriesFloorAgain: {60, 120}, seriesKV: {200, 400}, seriesToken: {80, 160}},
		[seriesCount][2]float64{seriesFloor: {10, 20}, seriesFloorAgain: {10, 20}, seriesKV: {5, 10}, seriesToken: {20, 40}},
	)
	for name, want := range map[string]float64{
		tokenToFloor: 0.8, tokenToFloors: 1, floorToFloor: 0.6, tokenToKV: 0.4, floorToKV: 0.5,
	} {
		r := l.Ratios[name]
		for what, got := range map[string]float64{"median": r.Median, "quartile": r.Q1, "upper quartile": r.Q3, "low": r.Low, "high": r.High} {
			if math.Abs(got-want) > 1e-9 {
				t.Errorf("%s of %s is %v, want %v", what, name, got, want)
			}
		}
	}
	if got := l.CPURatios[tokenToFloor].Median; got != 2 {
		t.Errorf("the token path takes %v times the floor plugin's CPU, want 2", got)
	}
	if math.Abs(l.Share-0.8) > 1e-9 {
		t.Errorf("the token path reaches %v of what the floor plugin reaches of KV v2, want 0.8", l.Share)
	}
}

func TestSeriesSumsUpItsRounds(t *testing.T) {
	s := made([seriesCount][2]float64{seriesToken: {80, 160}}, [seriesCount][2]float64{}).Series[seriesToken]
	if s.Reads != 2 || s.Throughput != 120 || s.P50 != 1 || s.P99 != 3 || s.CPU != 5 {
		t.Errorf("%d reads, %v a second, p50 %v and p99 %v ms, %v µs of CPU each", s.Reads, s.Throughput, s.P50, s.P99, s.CPU)
	}
}

// Each series comes equally often in each position, and equally often right after each other series.
func TestOrdersAreBalanced(t *testing.T) {
	var places [seriesCount][seriesCount]int
	var after [seriesCount][seriesCount]int
	for _, order := range orders {
		for turn, series := range order {
			places[series][turn]++
			if turn > 0 {
				after[order[turn-1]][series]++
			}
		}
	}
	for series := range seriesCount {
		for other := range seriesCount {
			if places[series][other] != 1 || series != other && after[series][other] != 1 {
				t.Errorf("%s comes in turn %d %d times, and %s after it %d times",
					seriesNames[series], other, places[series][other], seriesNames[other], after[series][other])
			}
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, row := range []struct {
		ratio ratio
		want  string
	}{
		{ratio{Median: 0.99, Low: 0.98, High: 1}, "met: 0.990 (0.980-1.000)"},
		{ratio{Median: 0.98, Low: 0.96, High: 1}, "met, within what this run can tell: 0.980 (0.960-1.000)"},
		{ratio{Median: 0.96, Low: 0.95, High: 0.98}, "NOT met, within what this run can tell: 0.960 (0.950-0.980)"},
		{ratio{Median: 0.9, Low: 0.89, High: 0.91}, "NOT met: 0.900 (0.890-0.910)"},
	} {
		if got := row.ratio.verdict(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}

// Answers that differ are not compared.
func TestAnswersMustBeAlike(t *testing.T) {
	like := func(bytes int, change func(fields map[string]any)) answer {
		fields := map[string]any{"access_token": "x", "ttl": 1.0}
		if change != nil {
			change(fields)
		}
		return answer{FieldBytes: bytes, fields: fields}
	}
	for _, row := range []struct {
		name  string
		other answer
		want  string
	}{
		{"same", like(1000, nil), ""},
		{"about the same size", like(1015, nil), ""},
		{"larger", like(1025, nil), "2.5 % larger"},
		{"smaller", like(975, nil), "-2.5 % larger"},
		{"a field more", like(1000, func(f map[string]any) { f["scope"] = "" }), "answers 3 fields"},
		{"another field", like(1000, func(f map[string]any) { delete(f, "ttl"); f["scope"] = "" }), "for ttl"},
		{"another type", like(1000, func(f map[string]any) { f["ttl"] = "1" }), "string for ttl"},
	} {
		answers := make([]answer, seriesCount)
		for i := range answers {
			answers[i] = like(1000, nil)
		}
		answers[seriesKV] = row.other
		err := alike(answers)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: error %v, want %q", row.name, err, row.want)
		}
	}
}
