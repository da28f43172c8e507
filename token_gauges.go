package mcpoauth

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// A tokenGauge is a value of each token. Its labels hold the names of configs and roles, so operators bound the number
// of series.
type tokenGauge struct {
	desc  *prometheus.Desc
	value func(tokens.Status) (value float64, ok bool) // ok is false if the token has no value now
}

func newTokenGauge(name, help string, value func(tokens.Status) (float64, bool)) tokenGauge {
	return tokenGauge{prometheus.NewDesc(name, help, []string{"server", "role"}, nil), value}
}

// newFailureGauge returns a gauge of the tokens whose last request failed.
func newFailureGauge(name, help string, value func(*tokens.FailureStatus) float64) tokenGauge {
	return newTokenGauge(name, help, func(s tokens.Status) (float64, bool) {
		if s.Failure == nil {
			return 0, false
		}
		return value(s.Failure), true
	})
}

var tokenGauges = []tokenGauge{
	newTokenGauge("mcp_oauth_token_expiry_timestamp_seconds",
		"When the held token expires; only if it is valid.",
		func(s tokens.Status) (float64, bool) {
			if s.Token == nil {
				return 0, false
			}
			return timestamp(s.Token.Expires), true
		}),
	newTokenGauge("mcp_oauth_token_refresh_due_timestamp_seconds",
		"When the held token is due to be refreshed, in the past if the refresh is late; without idle tokens.",
		func(s tokens.Status) (float64, bool) {
			if s.Token == nil || s.State == tokens.StateIdle {
				return 0, false
			}
			return timestamp(s.Token.RefreshAt), true
		}),
	newFailureGauge("mcp_oauth_token_consecutive_failures",
		"Requests for the token that failed in a row; only if the last one failed.",
		func(f *tokens.FailureStatus) float64 { return float64(f.Count) }),
	newFailureGauge("mcp_oauth_token_consecutive_refusals",
		"Requests for the token that the authorization server refused in a row; only if the last one failed.",
		func(f *tokens.FailureStatus) float64 { return float64(f.Refusals) }),
	newFailureGauge("mcp_oauth_token_next_attempt_timestamp_seconds",
		"Earliest time of the next request; only if the last one failed.",
		func(f *tokens.FailureStatus) float64 { return timestamp(f.NextAttempt) }),
}

// timestamp returns a time in seconds since 1970, as Prometheus expects.
func timestamp(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// eachToken calls a function with the health of every token in memory, as tokens.Engine.Each does.
type eachToken func(func(tokens.Name, tokens.Status))

// registries returns a registry for the token counts and one for each token gauge. Gathering and writing them in turn
// needs a fraction of the memory.
func (each eachToken) registries() prometheus.Gatherers {
	counts := prometheus.NewRegistry()
	counts.MustRegister(tokenCounts{each})
	all := prometheus.Gatherers{counts}
	for _, gauge := range tokenGauges {
		registry := prometheus.NewRegistry()
		registry.MustRegister(tokenValues{each, gauge})
		all = append(all, registry)
	}
	return all
}

// tokenCounts counts tokens at scrape time.
type tokenCounts struct{ each eachToken }

var (
	statesDesc = prometheus.NewDesc("mcp_oauth_tokens",
		"Tokens of the mount, by state as in status/.", []string{"state"}, nil)
	unsavedDesc = prometheus.NewDesc("mcp_oauth_unsaved_tokens",
		"Tokens that could not be stored yet: they would not survive a restart.", nil, nil)
)

// Describe implements prometheus.Collector.
func (tokenCounts) Describe(descs chan<- *prometheus.Desc) { descs <- statesDesc; descs <- unsavedDesc }

// Collect implements prometheus.Collector.
func (c tokenCounts) Collect(all chan<- prometheus.Metric) {
	states := map[tokens.State]int{}
	unsaved := 0
	c.each(func(_ tokens.Name, status tokens.Status) {
		states[status.State]++
		if status.Unsaved {
			unsaved++
		}
	})
	for _, state := range tokens.States() {
		all <- prometheus.MustNewConstMetric(statesDesc, prometheus.GaugeValue, float64(states[state]), string(state))
	}
	all <- prometheus.MustNewConstMetric(unsavedDesc, prometheus.GaugeValue, float64(unsaved))
}

// tokenValues collects one gauge of every token at scrape time.
type tokenValues struct {
	each eachToken
	tokenGauge
}

// Describe implements prometheus.Collector.
func (v tokenValues) Describe(descs chan<- *prometheus.Desc) { descs <- v.desc }

// Collect implements prometheus.Collector.
func (v tokenValues) Collect(all chan<- prometheus.Metric) {
	v.each(func(name tokens.Name, status tokens.Status) {
		if value, ok := v.value(status); ok {
			all <- prometheus.MustNewConstMetric(v.desc, prometheus.GaugeValue, value, name.Server, name.Role)
		}
	})
}
