package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// promQL parses expressions as Prometheus does without feature flags.
var promQL = parser.NewParser(parser.Options{})

func alerts(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile("../examples/prometheus/alerts.yml", false, model.UTF8Validation,
		promQL, slog.New(slog.DiscardHandler))
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

// Prometheus accepts the rules, their expressions and templates. Each has a severity, a summary and a description.
func TestAlertRulesAreValid(t *testing.T) {
	t.Parallel()
	for name, rule := range alerts(t) {
		if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s lacks a severity, a summary or a description", name)
		}
	}
}

// dashboard holds the fields of the example dashboard that tests check.
type dashboard struct {
	Panels []struct {
		Title       string `json:"title"`
		Description string `json:"description"`
		Targets     []struct {
			RefID string `json:"refId"`
			Expr  string `json:"expr"`
		} `json:"targets"`
		Transformations []struct {
			ID string `json:"id"`
		} `json:"transformations"`
	} `json:"panels"`
}

func exampleDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	bed.OK(t, json.Unmarshal([]byte(example(t, "grafana/mcp-oauth.json")), &d))
	if len(d.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	return d
}

// ofGrafana replaces Grafana's variables by values for all mounts.
var ofGrafana = strings.NewReplacer("$__rate_interval", "2m", "$job", "mcp-oauth", "$mount", ".*")

// Prometheus accepts every query of the dashboard, and each panel has one.
func TestDashboardQueriesAreValid(t *testing.T) {
	t.Parallel()
	for _, panel := range exampleDashboard(t).Panels {
		if panel.Title == "" || panel.Description == "" || len(panel.Targets) == 0 {
			t.Errorf("the panel %q has the description %q and %d queries", panel.Title, panel.Description, len(panel.Targets))
		}
		for _, target := range panel.Targets {
			if _, err := promQL.ParseExpr(ofGrafana.Replace(target.Expr)); err != nil {
				t.Errorf("%s: %v", panel.Title, err)
			}
		}
	}
}

// The merged table has one row per token. Grafana joins rows if all their common columns agree. Prometheus drops an
// empty role label, so a config's row would be joined to the rows of all its roles. A column with the metric's name
// would keep the rows of one token apart.
func TestMergedTablesHaveARowForEachToken(t *testing.T) {
	t.Parallel()
	const failures, refusals, expiry, next = "consecutive_failures", "consecutive_refusals", "expiry_timestamp_seconds", "next_attempt_timestamp_seconds"
	var descriptions []string
	for token, series := range map[string]map[string]string{
		`mount="m",server="weather"`:              {failures: "2", refusals: "0", expiry: "3600", next: "100"},
		`mount="m",server="weather",role="rain"`:  {failures: "7", refusals: "3", next: "200"},
		`mount="m",server="weather",role="snow"`:  {expiry: "1800"},
		`mount="m",server="files"`:                {expiry: "900"},
		`mount="m",server="files",role="reader"`:  {failures: "4", refusals: "4", expiry: "1200"},
		`mount="other",server="weather"`:          {failures: "1", refusals: "1", next: "30"},
		`mount="other",server="n",role="weather"`: {failures: "5", refusals: "0"},
	} {
		for name, value := range series {
			descriptions = append(descriptions, fmt.Sprintf(`mcp_oauth_token_%s{job="mcp-oauth",instance="v:8200",%s} %s`, name, token, value))
		}
	}
	history, merged := newHistory(t, descriptions), 0
	for _, panel := range exampleDashboard(t).Panels {
		if len(panel.Transformations) == 0 || panel.Transformations[0].ID != "merge" {
			continue
		}
		merged++
		columns, rows := map[string]bool{}, map[string]map[string]float64{}
		for _, target := range panel.Targets {
			for _, sample := range history.vector(t, ofGrafana.Replace(target.Expr), 0) {
				var names []string
				sample.Metric.Range(func(l labels.Label) { names = append(names, l.Name) })
				columns[strings.Join(names, " ")] = true
				row := sample.Metric.Get("mount") + ": " + sample.Metric.Get("token")
				if rows[row] == nil {
					rows[row] = map[string]float64{}
				}
				rows[row][target.RefID] = sample.F
			}
		}
		if len(columns) != 1 || !columns["mount token"] {
			t.Errorf("%s: the queries' labels are %q, want the mount and the token of all", panel.Title, slices.Sorted(maps.Keys(columns)))
		}
		want := map[string]map[string]float64{
			"m: weather":       {"A": 2, "B": 100, "C": 3600},
			"m: weather/rain":  {"A": 7, "B": 200, "D": 3},
			"m: files/reader":  {"A": 4, "C": 1200, "D": 4},
			"other: weather":   {"A": 1, "B": 30, "D": 1},
			"other: n/weather": {"A": 5},
		}
		if !maps.EqualFunc(rows, want, maps.Equal) {
			t.Errorf("%s: the rows are %v, want %v", panel.Title, rows, want)
		}
	}
	if merged != 1 {
		t.Errorf("%d tables are merged, want the one that this test knows", merged)
	}
}

// The mount has each series, label and label value in the queries of alerts and dashboard. A query without a match is
// valid, but its alert never fires.
func TestAlertsAndDashboardQueryExistingSeries(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	u.token(t, "token/"+u.name)
	u.write(t, "role/"+u.name+"/held", map[string]any{"scopes": "tools:list"})
	u.token(t, "token/"+u.name+"/held")
	u.write(t, "role/"+u.name+"/refused", map[string]any{"resource": "https://nowhere.example.com", "verify": false})
	wantStatus(t, u.root, "token/"+u.name+"/refused", http.StatusBadRequest)
	there := scrapedLabels(t, u.root)
	there = append(there, labels.FromStrings(model.MetricNameLabel, "up", "job", exampleJob(t).JobName))

	exprs := map[string][]string{}
	for name, rule := range alerts(t) {
		exprs[name] = append(exprs[name], rule.Expr)
	}
	for _, panel := range exampleDashboard(t).Panels {
		for _, target := range panel.Targets {
			exprs["the panel "+panel.Title] = append(exprs["the panel "+panel.Title], ofGrafana.Replace(target.Expr))
		}
	}
	for name, all := range exprs {
		for _, text := range all {
			expr := bed.Must(promQL.ParseExpr(text))(t)
			for _, missing := range missingIn(expr, there) {
				t.Errorf("%s: no series has %s", name, missing)
			}
		}
	}
}

// The check above finds missing series.
func TestMissingSeriesAreFound(t *testing.T) {
	t.Parallel()
	there := []labels.Labels{
		labels.FromStrings(model.MetricNameLabel, "a", "state", "up"), labels.FromStrings(model.MetricNameLabel, "a", "state", "down"),
		labels.FromStrings(model.MetricNameLabel, "b"),
	}
	for text, want := range map[string]int{
		`a > 0 unless on (mount) b`:                               0,
		`sum by (mount, state) (rate(a{job="x",state="up"}[5m]))`: 0,
		`a{state=~"up|down", mount=~"$mount"}`:                    0,
		`a{state="gone"}`:                                         1,
		`b and rate(c[5m])`:                                       1,
		`a{state=~"up|gone"}`:                                     1,
		`b{state="up"}`:                                           1,
		`b{state!="up"}`:                                          0,
		`sum by (other) (a)`:                                      1,
		`sum without (other) (a)`:                                 0,
		`sum by (other) (label_join(a, "other", "/", "state"))`:   0,
		`sum by (other) (label_join(a, "other", "/", "gone"))`:    1,
		`sum by (other) (label_join(a, "third", "/", "state"))`:   1,
		`sum by (other) (label_replace(label_join(a, "other", "/", "state", "gone"), "other", "$1", "other", "(.+)/"))`: 1,
	} {
		expr := bed.Must(promQL.ParseExpr(text))(t)
		if got := missingIn(expr, there); len(got) != want {
			t.Errorf("of %s is missing: %q; want %d", text, got, want)
		}
	}
}

// missingIn returns the selectors of an expression that match no series, with a separate selector for each
// alternative of a regular expression, and the labels in sums that all series lack. Labels of Prometheus and Grafana
// are left out.
func missingIn(expr parser.Expr, there []labels.Labels) []string {
	var wanted [][]*labels.Matcher
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		wanted = append(wanted, alternatives(selector)...)
		for i, above := range path {
			sum, ok := above.(*parser.AggregateExpr)
			if !ok || sum.Without {
				continue
			}
			for _, label := range madeOf(sum.Grouping, path[i+1:]) {
				if !filledIn(selector, label) {
					wanted = append(wanted, []*labels.Matcher{
						labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, selector.Name),
						labels.MustNewMatcher(labels.MatchNotEqual, label, ""),
					})
				}
			}
		}
		return nil
	})
	var missing []string
	for _, matchers := range wanted {
		matched := slices.ContainsFunc(there, func(series labels.Labels) bool {
			return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(series.Get(m.Name)) })
		})
		if !matched {
			missing = append(missing, fmt.Sprint(matchers))
		}
	}
	return missing
}

// madeOf replaces labels that label_join and label_replace on the path have made by their source labels.
func madeOf(wanted []string, path []parser.Node) []string {
	wanted = slices.Clone(wanted)
	for _, above := range path {
		call, ok := above.(*parser.Call)
		if !ok || call.Func.Name != "label_join" && call.Func.Name != "label_replace" {
			continue
		}
		var texts []string
		for _, arg := range call.Args[1:] {
			if text, ok := arg.(*parser.StringLiteral); ok {
				texts = append(texts, text.Val)
			}
		}
		made, of := texts[0], texts[2:] // after the separator
		if call.Func.Name == "label_replace" {
			of = texts[2:3] // between the replacement and the expression
		}
		if i := slices.Index(wanted, made); i >= 0 {
			wanted = slices.Replace(wanted, i, i+1, of...)
		}
	}
	return wanted
}

// alternatives returns the ways for a series to match the selector: one for each alternative of a regular expression.
func alternatives(selector *parser.VectorSelector) [][]*labels.Matcher {
	ways := [][]*labels.Matcher{nil}
	for _, m := range selector.LabelMatchers {
		if filledIn(selector, m.Name) || strings.Contains(m.Value, "$") {
			continue
		}
		choices := []*labels.Matcher{m}
		if values := m.SetMatches(); m.Type == labels.MatchRegexp && len(values) > 0 {
			choices = nil
			for _, value := range values {
				choices = append(choices, labels.MustNewMatcher(labels.MatchEqual, m.Name, value))
			}
		}
		var longer [][]*labels.Matcher
		for _, way := range ways {
			for _, choice := range choices {
				longer = append(longer, append(slices.Clone(way), choice))
			}
		}
		ways = longer
	}
	return ways
}

// filledIn reports whether Prometheus adds the label. The job is checked only for up, which does not come from the
// mount.
func filledIn(selector *parser.VectorSelector, label string) bool {
	return label == "instance" || label == "mount" || label == "job" && selector.Name != "up"
}

// scrapedLabels returns the labels of the mount's series.
func scrapedLabels(t *testing.T, client *api.Client) []labels.Labels {
	t.Helper()
	resp := bed.Must(client.Logical().ReadRawWithContext(t.Context(), bed.Mount+"/metrics"))(t)
	defer resp.Body.Close()
	var all []labels.Labels
	for _, sample := range bed.Must(samples(resp.Body))(t) {
		series := map[string]string{}
		for name, value := range sample.Metric {
			series[string(name)] = string(value)
		}
		all = append(all, labels.FromMap(series))
	}
	return all
}

// Each case has a value a minute, from minute 0, and the alerts firing at the end. Times are in seconds from the
// start.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	t.Parallel()
	const (
		failures = `mcp_oauth_token_consecutive_failures{mount="m",server="weather"} `
		expiry   = `mcp_oauth_token_expiry_timestamp_seconds{mount="m",server="weather"} `
		due      = `mcp_oauth_token_refresh_due_timestamp_seconds{mount="m",server="weather"} `
		next     = `mcp_oauth_token_next_attempt_timestamp_seconds{mount="m",server="weather"} `
		refusals = `mcp_oauth_token_consecutive_refusals{mount="m",server="weather"} `
		replaced = `mcp_oauth_token_refreshes_total{mount="m",outcome="replaced"} `
		other    = `mcp_oauth_token_refreshes_total{mount="other",outcome="replaced"} `
		kept     = `mcp_oauth_token_refreshes_total{mount="m",outcome="kept"} `
		stored   = `mcp_oauth_storage_errors_total{operation="put"} `
		unsaved  = `mcp_oauth_unsaved_tokens `
		active   = `mcp_oauth_active{mount="m"} `
		standby  = `mcp_oauth_active{mount="m",instance="standby"} `
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
		{"all is well", []string{failures + "_x21", expiry + "3600x20", due + "2700x20", refusals + "_x21", stored + "0x20", replaced + "0x20", unsaved + "0x20", active + "1x20", standby + "0x20", up + "1x20"}, nil},
		{"no token since the start", []string{failures + "1 2 3 4", next + "30+60x3"}, []string{"McpOauthTokenDown"}},
		{"a first failure just now", []string{failures + "_x3 1", next + "_x3 190"}, nil},
		{"the token has expired, of an outage", []string{failures + "_x6 1+1x5", next + "_x6 390+60x5", expiry + "360x6 _x5"}, []string{"McpOauthTokenDown"}},
		{"down, and asked for until five minutes ago", []string{failures + "1x10", next + "300x10"}, []string{"McpOauthTokenDown"}},
		{"down, without a read for a quarter of an hour", []string{failures + "5x20", refusals + "5x20", next + "240x20"}, nil},
		{"down, and asked for again after a while", []string{failures + "1x60 2 3", next + "60x60 3720+60x1"}, []string{"McpOauthTokenDown"}},
		{"down, with the longest backoff", []string{failures + "8x20", next + "2200x20"}, []string{"McpOauthTokenDown"}},
		{"failing for a quarter of an hour", []string{failures + "_x6 1+1x15", expiry + "36000x21", due + "300x21"}, []string{"McpOauthTokenFailing"}},
		{"failing for five minutes", []string{failures + "_x6 1+1x5", expiry + "36000x11", due + "300x11"}, nil},
		{"failing, and about to expire", []string{failures + "_x6 1+1x15", expiry + "1500x21", due + "300x21"}, []string{"McpOauthTokenExpiring", "McpOauthTokenFailing"}},
		{"left to expire without reads", []string{failures + "_x21", expiry + "1210x20"}, nil},
		{"due for three minutes, and nothing happens", []string{failures + "_x11", expiry + "36000x10", due + "400x10"}, []string{"McpOauthRefreshOverdue"}},
		{"due for a moment", []string{failures + "_x11", expiry + "36000x10", due + "590x10"}, nil},
		{"a short token, replaced in time", []string{failures + "_x11", expiry + "60+60x10", due + "30+60x10"}, nil},
		{"a short token, half a minute late each time", []string{failures + "_x11", expiry + "60+60x10", due + "-30+60x10"}, nil},
		{"the same token again, to be replaced at its end", []string{failures + "_x11", expiry + "620x10", due + "620x10"}, nil},
		{"refused again, and nothing held", []string{failures + "_x6 1 2 2", refusals + "_x6 1 2 2", next + "_x6 390 480 480"}, []string{"McpOauthClientRefused", "McpOauthTokenDown"}},
		{"refused again, and a token held", []string{failures + "_x6 1 2 2", refusals + "_x6 1 2 2", next + "_x6 390 480 480", expiry + "36000x8", due + "300x8"}, []string{"McpOauthClientRefused"}},
		{"refused once", []string{failures + "_x6 1x2", refusals + "_x6 1x2", next + "_x6 390x2", expiry + "36000x8", due + "300x8"}, nil},
		{"refused once after an outage", []string{failures + "_x6 1 2 3", refusals + "_x6 0 0 1", next + "_x6 390x2", expiry + "36000x8", due + "300x8"}, nil},
		{"tokens are replaced again and again", []string{replaced + "0x5 1x3 2x7 3x14 4x14 5x14 6x14 7x14"}, []string{"McpOauthTokensRefused"}},
		{"many brokers see one token refused", []string{replaced + "0x5 50x90"}, nil},
		{"a token is refused each half hour", []string{replaced + "0x5 1x29 2x29 3x29 4x10"}, nil},
		// The mount's count does not distinguish tokens, so this looks like one token refused again and again.
		{"one token after the other is refused, of many servers", []string{replaced + "0x5 1x14 2x14 3x14 4x14 5x14 6x14 7x5"}, []string{"McpOauthTokensRefused"}},
		{"tokens of two mounts are refused each half hour, in turn", []string{replaced + "0x5 1x29 2x29 3x29 4x10", other + "0x20 1x29 2x29 3x24"}, nil},
		{"tokens of another mount are replaced again and again", []string{replaced + "0x105", other + "0x5 1x14 2x14 3x14 4x14 5x14 6x14 7x10"}, []string{"McpOauthTokensRefused of other"}},
		{"tokens that are held no more are reported again and again", []string{kept + "0+1x105"}, nil},
		{"storage fails once", []string{stored + "0x20 1x5"}, []string{"McpOauthStorageErrors"}},
		{"storage failed an hour ago", []string{stored + "0x20 1x60"}, nil},
		{"not stored for ten minutes", []string{unsaved + "0x5 2x10"}, []string{"McpOauthTokensUnsaved"}},
		{"not stored for a minute", []string{unsaved + "0x5 2x1"}, nil},
		{"only standbys are scraped", []string{standby + "0x20"}, []string{"McpOauthNoActiveNode"}},
		{"an address of several nodes is scraped", []string{active + "1 0 1 0 0 1 0 1 1 0 0 1"}, []string{"McpOauthNoActiveNode"}},
		{"a standby becomes active", []string{active + "1x10 0x10", standby + "0x11 1x9"}, nil},
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

// history holds scrapes, one a minute.
type history struct {
	series []promql.Series
	end    time.Duration // since the start
}

// newHistory reads series in the notation of Prometheus's rule tests.
func newHistory(t *testing.T, descriptions []string) *history {
	t.Helper()
	h := &history{}
	for _, description := range descriptions {
		name, values, err := promQL.ParseSeriesDesc(description)
		if err != nil {
			t.Fatalf("%s: %v", description, err)
		}
		series := promql.Series{Metric: name}
		for minute, sample := range values {
			at := time.Duration(minute) * time.Minute
			h.end = max(h.end, at)
			if sample.Omitted { // the series ended
				sample.Value = math.Float64frombits(value.StaleNaN)
			}
			series.Floats = append(series.Floats, promql.FPoint{T: at.Milliseconds(), F: sample.Value})
		}
		h.series = append(h.series, series)
	}
	return h
}

// firing returns the mounts of the series that have met the rule's condition for its whole duration.
func (h *history) firing(t *testing.T, rule rulefmt.Rule) []string {
	t.Helper()
	var met map[string]string // series that have met it since the start of the rule's duration, with their mounts
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

// query returns the series of an expression at a time, with their mounts.
func (h *history) query(t *testing.T, expr string, at time.Duration) map[string]string {
	t.Helper()
	series := map[string]string{}
	for _, sample := range h.vector(t, expr, at) {
		series[sample.Metric.String()] = sample.Metric.Get("mount")
	}
	return series
}

// vector evaluates an expression at a time.
func (h *history) vector(t *testing.T, expr string, at time.Duration) promql.Vector {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute})
	queryable := &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			return h.selected(matchers)
		},
	}}
	query := bed.Must(engine.NewInstantQuery(t.Context(), queryable, nil, expr, time.Unix(0, 0).Add(at)))(t)
	defer query.Close()
	vector := bed.Must(query.Exec(context.WithoutCancel(t.Context())).Vector())(t)
	return slices.Clone(vector) // the query reuses the slice
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
