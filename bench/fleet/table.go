package fleet

import (
	"fmt"
	"io"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// Tables prints results: reads for each way to start, and what the first of these costs. Each way has
// the same results in the same order.
func Tables(w io.Writer, starts [][]Result) {
	if len(starts) == 0 {
		return
	}
	of := func(seconds float64) time.Duration { return time.Duration(seconds) * time.Second }
	readHeader := []string{"token", "scheme", "average"}
	for _, results := range starts {
		readHeader = append(readHeader, Fleet{Spread: of(results[0].Spread), Before: of(results[0].Before)}.start())
	}
	var reads, costs [][]string
	for i, r := range starts[0] {
		token := ""
		if i == 0 || starts[0][i-1].Lifetime != r.Lifetime {
			token = short(of(r.Lifetime))
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
			measure.Count(3600 * r.Fetches.Average), measure.Count(r.Fetches.Start), measure.Count(r.Copies), expired,
		})
	}
	fmt.Fprintln(w, "\nReads a second: the average, and the peaks in the first token lifetime after the start and later, by how the agents start")
	measure.Table(w, readHeader, reads...)
	fmt.Fprintf(w, "\nWhat these cost, where all start %s\n", Fleet{Spread: of(starts[0][0].Spread), Before: of(starts[0][0].Before)}.start())
	measure.Table(w, []string{
		"token", "scheme", "storage writes an hour", "most in a second, after the start",
		"AS requests an hour", "most in a second, at the start", "copies of tokens in storage", "expired token held",
	}, costs...)
}
