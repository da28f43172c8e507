package fleet

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

var schemes = []Scheme{Engine, LeasePerRead, Polling}

func sum(series []int32) int {
	total := 0
	for _, n := range series {
		total += int(n)
	}
	return total
}

func TestSameSeedGivesSameLoad(t *testing.T) {
	f := Fleet{Brokers: 20, Servers: 5, Lifetime: 5 * time.Minute, Spread: time.Minute, Horizon: time.Hour, Seed: 7}
	for _, scheme := range schemes {
		once, again := Simulate(f, scheme), Simulate(f, scheme)
		if !reflect.DeepEqual(once, again) {
			t.Errorf("%s: two runs with one seed differ", scheme)
		}
		other := f
		other.Seed++
		if reflect.DeepEqual(once.Reads, Simulate(other, scheme).Reads) {
			t.Errorf("%s: another seed gives the same reads", scheme)
		}
	}
}

// The numbers of token requests and storage writes must not depend on the number of brokers, except with a lease per
// read.
func TestLoadOfEachScheme(t *testing.T) {
	f := Fleet{Brokers: 30, Servers: 4, Lifetime: 5 * time.Minute, Horizon: 2 * time.Hour, Latency: 200 * time.Millisecond}
	pairs := f.Brokers * f.Servers
	// A token is refreshed 217.5 to 225 s after its request.
	leastTokens, mostTokens := f.Servers*(7200/225), f.Servers*(7200/217+1)
	for _, scheme := range schemes {
		t.Run(scheme.String(), func(t *testing.T) {
			l := Simulate(f, scheme)
			r := l.Result()
			reads, fetches, writes := sum(l.Reads), sum(l.Fetches), sum(l.Writes)
			if scheme == LeasePerRead {
				// Each lease that has not ended lacks its last two writes.
				if open := 4*fetches - writes; fetches != reads || open < 0 || open > 2*2*pairs {
					t.Errorf("%d requests and %d writes for %d reads, want one and four for each", fetches, writes, reads)
				}
				if r.Copies < pairs || r.Copies > 2*pairs {
					t.Errorf("%d copies of tokens, want one or two for each pair of broker and server, %d", r.Copies, pairs)
				}
			} else {
				if fetches < leastTokens || fetches > mostTokens || fetches-writes > f.Servers || writes > fetches {
					t.Errorf("%d requests and %d writes, want both %d to %d", fetches, writes, leastTokens, mostTokens)
				}
				if r.Copies != f.Servers {
					t.Errorf("%d copies of tokens, want one for each server", r.Copies)
				}
			}
			if least := pairs * (7200/286 + 1); reads < least {
				t.Errorf("%d reads, want at least %d", reads, least)
			}
			// Polling holds tokens for 255 to 285 s although they have only 75 to 300 s to live.
			if expired := r.Expired > 0; expired != (scheme == Polling) {
				t.Errorf("brokers hold expired tokens for %.1f%% of the time", 100*r.Expired)
			}
			if r.Reads.Start != int32(pairs) || int(r.Reads.FirstInterval) >= pairs {
				t.Errorf("peaks of %d and %d reads, want all %d at the start only", r.Reads.Start, r.Reads.FirstInterval, pairs)
			}
		})
	}
}

func TestTablesShowEachWayToStart(t *testing.T) {
	of := func(scheme string, average float64, peak int32, spread float64) Result {
		return Result{
			Scheme: scheme, Lifetime: 300, Spread: spread,
			Reads: Figures{Average: average, FirstInterval: peak, Later: 5}, Writes: Figures{Average: 2, Later: 9}, Fetches: Figures{Average: 1, Start: 100},
			Expired: average / 1000,
		}
	}
	var out strings.Builder
	Tables(&out, [][]Result{
		{of("this engine", 0, 4143, 0), of("polling", 370, 10, 0)},
		{of("this engine", 0, 20, 600), of("polling", 370, 30, 600)},
	})
	for _, want := range []string{
		"| token | scheme | average | peaks, started at once | started within 10 min |\n",
		"| 5 min | this engine | 0.0 | 4,143 / 5 | 20 / 5 |\n| | polling | 370 | 10 / 5 | 30 / 5 |\n",
		"| 5 min | this engine | 7,200 | 9 | 3,600 | 100 | 0 |\n| | polling | 7,200 | 9 | 3,600 | 100 | 37 % of the time |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nis not in\n%s", want, out.String())
		}
	}
}
