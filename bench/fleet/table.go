package fleet

import (
	"fmt"
	"io"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// Tables prints the reads for each way to start, and the other figures for the first way. Each way has its results in
// the same order.
func Tables(w io.Writer, starts [][]Result) {
	if len(starts) == 0 {
		return
	}
	of := func(seconds float64) time.Duration { return time.Duration(seconds) * time.Second }
	readHeader := []string{"token", "scheme", "average"}
	for i, results := range starts {
		how := "started at once"
		switch {
		case results[0].Before > 0:
			how = "tokens obtained earlier"
		case results[0].Spread > 0:
			how = "started within " + inWords(of(results[0].Spread))
		}
		if i == 0 {
			how = "peaks, " + how
		}
		readHeader = append(readHeader, how)
	}
	var reads, costs [][]string
	for i, r := range starts[0] {
		token := ""
		if i == 0 || starts[0][i-1].Lifetime != r.Lifetime {
			token = inWords(of(r.Lifetime))
		}
		decimals := 0
		if r.Reads.Average < 10 {
			decimals = 1
		}
		row := []string{token, r.Scheme, measure.Decimals(r.Reads.Average, decimals)}
		for _, results := range starts {
			peaks := results[i].Reads
			row = append(row, measure.Count(peaks.FirstInterval)+" / "+measure.Count(peaks.Later))
		}
		reads = append(reads, row)
		expired := "0"
		if r.Expired > 0 {
			expired = fmt.Sprintf("%.0f %% of the time", 100*r.Expired)
		}
		costs = append(costs, []string{
			token, r.Scheme, measure.Count(3600 * r.Writes.Average), measure.Count(max(r.Writes.FirstInterval, r.Writes.Later)),
			measure.Count(3600 * r.Fetches.Average), measure.Count(r.Fetches.Start), expired,
		})
	}
	fmt.Fprintln(w, "\nReads a second: the average, and the peaks in the first token lifetime after the start and later, by how the agents start")
	measure.Table(w, readHeader, reads...)
	fmt.Fprintf(w, "\nWhat these cost, where all start %s\n", Fleet{Spread: of(starts[0][0].Spread), Before: of(starts[0][0].Before)}.start())
	measure.Table(w, []string{
		"token", "scheme", "storage writes an hour", "most in a second, after the start",
		"AS requests an hour", "most in a second, at the start", "expired token held",
	}, costs...)
}

// inWords formats a duration for text: 5 min.
func inWords(d time.Duration) string {
	if d%time.Hour == 0 {
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%g min", d.Minutes())
}
