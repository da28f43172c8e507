package mcpoauth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// A token without readers has no refresh due.
func TestMetricsOfAnIdleToken(t *testing.T) {
	for state, due := range map[tokens.State]bool{tokens.StateOK: true, tokens.StateFailing: true, tokens.StateIdle: false} {
		m := newMetrics()
		m.show(func(f func(tokens.Name, tokens.Status)) {
			f(weather, tokens.Status{State: state, Token: &tokens.Token{Expires: time.Now(), RefreshAt: time.Now()}})
		}, func() bool { return false })
		names := map[string]bool{}
		for _, family := range must(m.registries().Gather())(t) {
			names[family.GetName()] = true
		}
		equal(t, fmt.Sprint(state, ": an expiry"), names["mcp_oauth_token_expiry_timestamp_seconds"], true)
		equal(t, fmt.Sprint(state, ": a time of refresh"), names["mcp_oauth_token_refresh_due_timestamp_seconds"], due)
	}
}

// The page gives the number of series for each token, by which operators size Prometheus.
func TestDocumentedNumberOfSeries(t *testing.T) {
	token, failure := new(tokens.Token), new(tokens.FailureStatus)
	least, most := len(tokenGauges), 0
	for _, status := range []tokens.Status{
		{State: tokens.StateEmpty},
		{State: tokens.StateIdle, Token: token},
		{State: tokens.StateDown, Failure: failure},
		{State: tokens.StateOK, Token: token},
		{State: tokens.StateFailing, Token: token, Failure: failure},
	} {
		series := 0
		for _, gauge := range tokenGauges {
			if _, ok := gauge.value(status); ok {
				series++
			}
		}
		least, most = min(least, series), max(most, series)
	}
	page := readText(t, "docs/metrics.md")
	if want := fmt.Sprintf("%d to %d series for each token", least, most); !strings.Contains(page, want) {
		t.Errorf("the page does not say %q", want)
	}
}
