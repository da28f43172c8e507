package acceptance

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// alerts are the example's rules, by name.
func alerts(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile("../examples/prometheus/alerts.yml", false, model.UTF8Validation)
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil {
		t.FailNow()
	}
	all := map[string]rulefmt.Rule{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			all[rule.Alert] = rule
		}
	}
	return all
}

// Prometheus takes the rules, their expressions and templates; each has a severity, and says what it is.
func TestAlertRulesAreValid(t *testing.T) {
	t.Parallel()
	for name, rule := range alerts(t) {
		if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s lacks a severity, a summary or a description", name)
		}
	}
}

// Every query of the dashboard is one that Prometheus takes, and no panel is without.
func TestDashboardQueriesAreValid(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../examples/grafana/mcp-oauth.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title       string `json:"title"`
			Description string `json:"description"`
			Targets     []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) == 0 {
		t.Error("the dashboard has no panels")
	}
	variables := strings.NewReplacer("$__rate_interval", "2m")
	for _, panel := range dashboard.Panels {
		if panel.Title == "" || panel.Description == "" || len(panel.Targets) == 0 {
			t.Errorf("the panel %q has the description %q and %d queries", panel.Title, panel.Description, len(panel.Targets))
		}
		for _, target := range panel.Targets {
			if _, err := parser.ParseExpr(variables.Replace(target.Expr)); err != nil {
				t.Errorf("%s: %v", panel.Title, err)
			}
		}
	}
}

// What the alerts are of, and what they are not of: a value a minute, from minute 0 on, and the
// alerts that are firing at the last. Times are in seconds from the start.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	t.Parallel()
	const (
		failures = `mcp_oauth_token_consecutive_failures{mount="m",server="weather"} `
		expiry   = `mcp_oauth_token_expiry_timestamp_seconds{mount="m",server="weather"} `
		due      = `mcp_oauth_token_refresh_due_timestamp_seconds{mount="m",server="weather"} `
		next     = `mcp_oauth_token_next_attempt_timestamp_seconds{mount="m",server="weather"} `
		refusals = `mcp_oauth_token_consecutive_refusals{mount="m",server="weather"} `
		replaced = `mcp_oauth_token_refreshes_total{mount="m",outcome="replaced"} `
		stored   = `mcp_oauth_storage_errors_total{operation="put"} `
		unsaved  = `mcp_oauth_unsaved_tokens `
		up       = `up{job="mcp-oauth",mount="m"} `
		upOther  = `up{job="mcp-oauth",mount="other"} `
	)
	all := alerts(t)
	fired := map[string]bool{}
	for _, test := range []struct {
		name   string
		series []string
		want   []string
	}{
		{"all is well", []string{failures + "0x20", expiry + "3600x20", due + "2700x20", refusals + "0x20", stored + "0x20", replaced + "0x20", unsaved + "0x20", up + "1x20"}, nil},
		{"no token since the start", []string{failures + "1 2 3 4", next + "30+60x3"}, []string{"McpOauthTokenDown"}},
		{"a first failure just now", []string{failures + "0 0 0 1", next + "_x3 190"}, nil},
		{"the token has expired, of an outage", []string{failures + "0x5 1+1x5", next + "_x6 390+60x5", expiry + "360x6 _x5"}, []string{"McpOauthTokenDown"}},
		{"down, and asked for until five minutes ago", []string{failures + "1x10", next + "300x10"}, []string{"McpOauthTokenDown"}},
		{"down, and nobody has asked for a quarter of an hour", []string{failures + "5x20", refusals + "5x20", next + "240x20"}, nil},
		{"down, and asked for again after a while", []string{failures + "1x60 2 3", next + "60x60 3720+60x1"}, []string{"McpOauthTokenDown"}},
		{"down, with the longest backoff", []string{failures + "8x20", next + "2200x20"}, []string{"McpOauthTokenDown"}},
		{"failing for a quarter of an hour", []string{failures + "0x5 1+1x15", expiry + "36000x21", due + "300x21"}, []string{"McpOauthTokenFailing"}},
		{"failing for five minutes", []string{failures + "0x5 1+1x5", expiry + "36000x11", due + "300x11"}, nil},
		{"failing, and about to expire", []string{failures + "0x5 1+1x15", expiry + "1500x21", due + "300x21"}, []string{"McpOauthTokenExpiring", "McpOauthTokenFailing"}},
		{"left to expire as nobody reads", []string{failures + "0x20", expiry + "1210x20"}, nil},
		{"due for three minutes, and nothing happens", []string{failures + "0x10", expiry + "36000x10", due + "400x10"}, []string{"McpOauthRefreshOverdue"}},
		{"due for a moment", []string{failures + "0x10", expiry + "36000x10", due + "590x10"}, nil},
		{"a short token, replaced in time", []string{failures + "0x10", expiry + "60+60x10", due + "30+60x10"}, nil},
		{"a short token, half a minute late each time", []string{failures + "0x10", expiry + "60+60x10", due + "-30+60x10"}, nil},
		{"the same token again, to be replaced at its end", []string{failures + "0x10", expiry + "620x10", due + "620x10"}, nil},
		{"refused again, and nothing held", []string{failures + "0x5 1 2 2", refusals + "0x5 1 2 2", next + "_x6 390 480 480"}, []string{"McpOauthClientRefused", "McpOauthTokenDown"}},
		{"refused again, and a token held", []string{failures + "0x5 1 2 2", refusals + "0x5 1 2 2", next + "_x6 390 480 480", expiry + "36000x8", due + "300x8"}, []string{"McpOauthClientRefused"}},
		{"refused once", []string{failures + "0x5 1x2", refusals + "0x5 1x2", next + "_x6 390x2", expiry + "36000x8", due + "300x8"}, nil},
		{"refused once after an outage", []string{failures + "0x5 1 2 3", refusals + "0x5 0 0 1", next + "_x6 390x2", expiry + "36000x8", due + "300x8"}, nil},
		{"tokens are replaced again and again", []string{replaced + "0x5 1x3 2x7 3x14 4x14 5x14 6x14 7x14"}, []string{"McpOauthTokensRefused"}},
		{"many brokers see one token refused", []string{replaced + "0x5 50x90"}, nil},
		{"a token is refused each half hour", []string{replaced + "0x5 1x29 2x29 3x29 4x10"}, nil},
		{"storage fails once", []string{stored + "0x20 1x5"}, []string{"McpOauthStorageErrors"}},
		{"storage failed an hour ago", []string{stored + "0x20 1x60"}, nil},
		{"not stored for ten minutes", []string{unsaved + "0x5 2x10"}, []string{"McpOauthTokensUnsaved"}},
		{"not stored for a minute", []string{unsaved + "0x5 2x1"}, nil},
		{"no scrape succeeds", []string{up + "1x5 0x10"}, []string{"McpOauthMetricsMissing"}},
		{"one mount of two is not scraped", []string{up + "1x15", upOther + "1x5 0x10"}, []string{"McpOauthMetricsMissing of other"}},
		{"two mounts are not scraped", []string{up + "1x5 0x10", upOther + "1x5 0x10"}, []string{"McpOauthMetricsMissing", "McpOauthMetricsMissing of other"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			history := newHistory(t, test.series)
			var got []string
			for name, rule := range all {
				for _, mount := range history.firing(t, rule) {
					fired[name] = true
					if mount == "other" {
						got = append(got, name+" of "+mount)
					} else {
						got = append(got, name)
					}
				}
			}
			if slices.Sort(got); !slices.Equal(got, test.want) {
				t.Errorf("firing: %q, want %q", got, test.want)
			}
		})
	}
	for name := range maps.Keys(all) {
		if !fired[name] {
			t.Errorf("no case has %s fire", name)
		}
	}
}

// history is what Prometheus has scraped, once a minute.
type history struct {
	series []promql.Series
	end    time.Duration // since the start
}

// newHistory takes series in the notation of Prometheus's own tests of rules.
func newHistory(t *testing.T, descriptions []string) *history {
	t.Helper()
	h := &history{}
	for _, description := range descriptions {
		name, values, err := parser.ParseSeriesDesc(description)
		if err != nil {
			t.Fatalf("%s: %v", description, err)
		}
		series := promql.Series{Metric: name}
		for minute, sample := range values {
			at := time.Duration(minute) * time.Minute
			h.end = max(h.end, at)
			if sample.Omitted { // no longer there at a scrape
				sample.Value = math.Float64frombits(value.StaleNaN)
			}
			series.Floats = append(series.Floats, promql.FPoint{T: at.Milliseconds(), F: sample.Value})
		}
		h.series = append(h.series, series)
	}
	return h
}

// firing gives the mounts of the series that have met the rule's condition for as long as the rule wants.
func (h *history) firing(t *testing.T, rule rulefmt.Rule) []string {
	t.Helper()
	var met map[string]string // since the start of the rule's time, with their mounts
	for at := max(0, h.end-time.Duration(rule.For)); at <= h.end; at += time.Minute {
		now := h.query(t, rule.Expr, at)
		if met == nil {
			met = now
		}
		maps.DeleteFunc(met, func(series, _ string) bool { _, still := now[series]; return !still })
	}
	if h.end < time.Duration(rule.For) {
		return nil
	}
	return slices.Collect(maps.Values(met))
}

// query gives the series that an expression has at a time, and their mounts.
func (h *history) query(t *testing.T, expr string, at time.Duration) map[string]string {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute})
	queryable := &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			return h.selected(matchers)
		},
	}}
	query, err := engine.NewInstantQuery(t.Context(), queryable, nil, expr, time.Unix(0, 0).Add(at))
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	vector, err := query.Exec(context.WithoutCancel(t.Context())).Vector()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]string{}
	for _, sample := range vector {
		series[sample.Metric.String()] = sample.Metric.Get("mount")
	}
	return series
}

func (h *history) selected(matchers []*labels.Matcher) *seriesSet {
	var set seriesSet
	for _, series := range h.series {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(series.Metric.Get(m.Name)) }) {
			set.left = append(set.left, series)
		}
	}
	return &set
}

// seriesSet is a storage.SeriesSet of a few series.
type seriesSet struct {
	now  promql.Series
	left []promql.Series
}

func (s *seriesSet) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.now, s.left = s.left[0], s.left[1:]
	return true
}

func (s *seriesSet) At() storage.Series                { return promql.NewStorageSeries(s.now) }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }
