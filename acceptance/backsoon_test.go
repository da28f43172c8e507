package acceptance

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
)

// After an outage of any length, readers without a valid token get one within 12 s of the server's return, and the
// other names of the client soon after. During the outage, the server gets one request in each window. A short time
// of refusals is handled the same.
func TestReadersAreServedSoonAfterAnOutage(t *testing.T) {
	t.Parallel()
	b := shared(t)
	outages := append(trouble.Outages(20*time.Second, 11*time.Second), trouble.HeldOutages()...)
	if !testing.Short() {
		for _, long := range trouble.Outages(85*time.Second, 0)[:2] {
			long.Name += ", long"
			outages = append(outages, long)
		}
	}
	// The outages mostly wait, so all run at once, whatever -parallel says.
	var kinds sync.WaitGroup
	for i, o := range outages {
		kinds.Go(func() {
			t.Run(o.Name, func(t *testing.T) {
				r := bed.Must(o.Run(t.Context(), newStage(t, b, fmt.Sprintf("outage-%d", i))))(t)
				checkOutage(t, r)
			})
		})
	}
	kinds.Wait()
}

func checkOutage(t *testing.T, r *trouble.OutageReport) {
	t.Helper()
	t.Logf("%s: %d requests; from the return %s to the first served read, %s until all %d names were, %d requests",
		r.Length, r.Down, round(r.Served), round(r.All), r.Names, r.Back)
	bound := backBound
	if r.Lost {
		bound += r.RequestTimeout() // for the lost request
	}
	if r.Served > bound {
		t.Errorf("the first read was served %s after the return, want at most %s", round(r.Served), bound)
	}
	if r.All > bound+2*time.Second {
		t.Errorf("the last name was served %s after the return, %s after the first", round(r.All), round(r.All-r.Served))
	}
	// The readers of all names start at once, before they share a failure.
	if most := r.Names - 1 + mostAttempts(r.Length, time.Second, 10*time.Second); r.Down > most {
		t.Errorf("%d requests in an outage of %s, want at most %d, one in each window of the client", r.Down, r.Length, most)
	}
	if r.Back > r.Names+1 {
		t.Errorf("%d requests from the return until all %d names were served", r.Back, r.Names)
	}
	wantAll(t, "readers in the outage", r.Reads, http.StatusBadGateway, http.StatusBadRequest, http.StatusGatewayTimeout)
}
