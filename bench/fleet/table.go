package fleet

import (
	"fmt"
	"io"
	"time"
)

// Table prints results of one way to start.
func Table(w io.Writer, results []Result) {
	of := func(seconds float64) time.Duration { return time.Duration(seconds) * time.Second }
	fmt.Fprintf(w, "All agents start %s\n", Fleet{Spread: of(results[0].Spread), Before: of(results[0].Before)}.start())
	fmt.Fprintf(w, "%20s %23s  %22s  %29s\n", "", "reads a second    ", "storage writes     ", "AS requests          ")
	fmt.Fprintf(w, "%-14s %5s %7s %7s %7s  %8s %6s %6s  %8s %7s %6s %6s  %6s %7s\n", "", "token",
		"average", "1st", "later", "an hour", "1st/s", "lat./s", "an hour", "start/s", "1st/s", "lat./s", "copies", "expired")
	for _, r := range results {
		fmt.Fprintf(w, "%-14s %5s %7.1f %7d %7d  %8.0f %6d %6d  %8.0f %7d %6d %6d  %6d %6.1f%%\n",
			r.Scheme, short(of(r.Lifetime)),
			r.Reads.Average, r.Reads.FirstInterval, r.Reads.Later,
			3600*r.Writes.Average, r.Writes.FirstInterval, r.Writes.Later,
			3600*r.Fetches.Average, r.Fetches.Start, r.Fetches.FirstInterval, r.Fetches.Later,
			r.Copies, 100*r.Expired)
	}
}
