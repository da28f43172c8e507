package fleet

import (
	"fmt"
	"io"
	"time"
)

// Table prints results of one way to start.
func Table(w io.Writer, results []Result) {
	spread := time.Duration(results[0].Spread) * time.Second
	fmt.Fprintf(w, "All agents start %s\n", Fleet{Spread: spread}.start())
	fmt.Fprintf(w, "%20s %21s  %15s  %21s\n", "", "reads a second   ", "storage writes ", "AS requests      ")
	fmt.Fprintf(w, "%-14s %5s %7s %7s %5s  %8s %6s  %8s %6s %6s  %6s %7s\n", "", "token",
		"average", "1st", "last", "an hour", "peak/s", "an hour", "start", "peak/s", "copies", "expired")
	for _, r := range results {
		fmt.Fprintf(w, "%-14s %5s %7.1f %7d %5d  %8.0f %6.0f  %8.0f %6d %6.0f  %6d %6.1f%%\n",
			r.Scheme, short(time.Duration(r.Lifetime)*time.Second),
			r.Reads.Average, r.Reads.FirstInterval, r.Reads.Later,
			3600*r.Writes.Average, r.Writes.peak(),
			3600*r.Fetches.Average, r.Fetches.Start, r.Fetches.peak(),
			r.Copies, 100*r.Expired)
	}
}
