package mcpoauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// metricsText returns the metrics as Prometheus reads them.
func (m *mount) metricsText() []byte {
	m.t.Helper()
	body, cache := m.raw("metrics", "text/plain; version=0.0.4; charset=utf-8")
	equal(m.t, "Cache-Control of the metrics", cache, nil)
	return body
}

// metrics returns the values of all series by name and labels. The value of a histogram is its count.
func (m *mount) metrics() map[string]float64 {
	m.t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families := must(parser.TextToMetricFamilies(bytes.NewReader(m.metricsText())))(m.t)
	values := map[string]float64{}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			values[series(name, metric)] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() +
				float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func series(name string, metric *dto.Metric) string {
	var labels []string
	for _, label := range metric.GetLabel() {
		labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
	}
	return strings.TrimPrefix(name, "mcp_oauth_") + "{" + strings.Join(labels, ",") + "}"
}

// counts checks the values of some series. A missing series has the value 0.
func (m *mount) counts(want map[string]float64) {
	m.t.Helper()
	got := m.metrics()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		equal(m.t, name, got[name], want[name])
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	_, m := newConfigured(t)
	m.token("weather")
	equal(t, "the linter's problems", must(promlint.New(bytes.NewReader(m.metricsText())).Lint())(t), nil)
}

func TestMetricsOfReadsAndRequests(t *testing.T) {
	as, m := newConfigured(t)
	m.write("role/weather/reader", fields{"verify": false})
	m.token("weather")
	m.token("weather")
	m.missing("token/nowhere")
	m.counts(map[string]float64{
		`token_reads_total{outcome="success"}`:                           2,
		`token_reads_total{outcome="not_configured"}`:                    1,
		`token_reads_total{outcome="refused"}`:                           0,
		`token_requests_total{error="",outcome="success"}`:               1,
		`token_request_duration_seconds{outcome="success"}`:              1,
		`shared_requests_total{}`:                                        0,
		`tokens{state="ok"}`:                                             1,
		`tokens{state="down"}`:                                           0,
		`token_consecutive_failures{role="",server="weather"}`:           0,
		`token_consecutive_refusals{role="",server="weather"}`:           0,
		`token_next_attempt_timestamp_seconds{role="",server="weather"}`: 0,
	})
	status := m.read("status/weather")
	expires := float64(instant(t, status, "expires_at").Unix())
	m.counts(map[string]float64{`token_expiry_timestamp_seconds{role="",server="weather"}`: expires})
	due := m.metrics()[`token_refresh_due_timestamp_seconds{role="",server="weather"}`]
	equal(t, "the time of the refresh", int64(due), instant(t, status, "next_rotation").Unix())

	as.answers(refusing(401, "invalid_client"))
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather/reader", nil)
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather/reader", nil)
	m.counts(map[string]float64{
		`token_requests_total{error="invalid_client",outcome="refused"}`: 1,
		`token_reads_total{outcome="refused"}`:                           2,
		`tokens{state="ok"}`:                                             1,
		`tokens{state="down"}`:                                           1,
		`token_consecutive_failures{role="reader",server="weather"}`:     1,
		`token_consecutive_refusals{role="reader",server="weather"}`:     1,
	})
	next := m.metrics()[`token_next_attempt_timestamp_seconds{role="reader",server="weather"}`]
	equal(t, "the next attempt", int64(next), instant(t, m.read("status/weather/reader"), "next_attempt").Unix())
}

func TestMetricsOfReplacements(t *testing.T) {
	as, m := newConfigured(t)
	outcomes := func(replaced, kept, failed float64) {
		t.Helper()
		m.counts(map[string]float64{
			`token_refreshes_total{outcome="replaced"}`: replaced,
			`token_refreshes_total{outcome="kept"}`:     kept,
			`token_refreshes_total{outcome="failed"}`:   failed,
		})
	}
	outcomes(0, 0, 0)
	m.stash(weather, "t0ken-rejected", time.Minute, time.Hour)
	rejected := fields{"token_id": m.read("token/weather")["token_id"]}
	outcomes(0, 0, 0)
	m.refresh("weather", rejected)
	outcomes(1, 0, 0)
	m.refresh("weather", rejected) // already replaced
	m.refresh("weather", nil)      // its successor is too young
	outcomes(1, 2, 0)

	m.write("role/weather/reader", fields{"verify": false})
	as.answers(refusing(401, "invalid_client"))
	m.rejects("refresh/weather/reader", nil)
	m.refused(http.StatusNotFound, logical.UpdateOperation, "refresh/nowhere", nil)
	outcomes(1, 2, 2)
	m.rejects("refresh/weather", fields{"token_id": "no id"})
	outcomes(1, 2, 2)
}

// A refused write stores nothing, and does not count as a refusal of the current token.
func TestMetricsOfAVerificationThatIsRefused(t *testing.T) {
	as, m := newConfigured(t)
	m.token("weather")
	as.answers(refusing(401, "invalid_client"))
	for range 2 {
		m.rejects("config/weather", fields{"client_secret": "mistyped"})
	}
	m.counts(map[string]float64{
		`token_requests_total{error="invalid_client",outcome="refused"}`: 2,
		`token_consecutive_failures{role="",server="weather"}`:           0,
		`token_consecutive_refusals{role="",server="weather"}`:           0,
	})
}

// Error codes come from authorization servers, so the number of labels must be bounded.
func TestErrorCodesOfMetricsAreBounded(t *testing.T) {
	m := newMetrics()
	for i := range 1000 {
		m.Fetched(time.Second, &grant.RefusedError{Code: fmt.Sprintf("made_up_%d", i)})
	}
	for _, family := range must(m.registry.Gather())(t) {
		if n := len(family.GetMetric()); n > 20 {
			t.Errorf("%s has %d series", family.GetName(), n)
		}
	}
}

func TestMetricsOfOutages(t *testing.T) {
	as, m := newConfigured(t)
	as.answers(refusing(503, ""))
	m.refused(http.StatusBadGateway, logical.ReadOperation, "token/weather", nil)
	m.counts(map[string]float64{
		`token_reads_total{outcome="unavailable"}`:              1,
		`token_requests_total{error="",outcome="unavailable"}`:  1,
		`token_request_duration_seconds{outcome="unavailable"}`: 1,
		`token_consecutive_failures{role="",server="weather"}`:  1,
		`token_consecutive_refusals{role="",server="weather"}`:  0,
	})
}

func TestMetricsOfSharedRequests(t *testing.T) {
	as, m := newConfigured(t)
	as.hold()
	const readers = 10
	var group sync.WaitGroup
	read := func() { m.succeeds(logical.ReadOperation, "token/weather", nil) }
	group.Go(read)
	as.await(1)
	for range readers - 1 {
		group.Go(read)
	}
	for m.metrics()[`shared_requests_total{}`] < readers-1 {
		if t.Context().Err() != nil {
			t.Fatal("the readers do not wait")
		}
	}
	as.release()
	group.Wait()
	m.counts(map[string]float64{
		`shared_requests_total{}`:                          readers - 1,
		`token_requests_total{error="",outcome="success"}`: 1,
		`token_reads_total{outcome="success"}`:             readers,
	})
}

func TestMetricsOfStorage(t *testing.T) {
	as := newAuthServer(t)
	synctest.Test(t, func(t *testing.T) { // the save of the token is retried in a second
		m := newMount(t)
		m.configure(as, nil)
		m.storage.fail("put")
		m.token("weather")
		m.counts(map[string]float64{
			`storage_errors_total{operation="put"}`: 1,
			`storage_errors_total{operation="get"}`: 0,
			`unsaved_tokens{}`:                      1,
		})
	})
}

// A call that the caller or the mount cancels is not a storage error.
func TestMetricsOfStorageCallsThatWereGivenUp(t *testing.T) {
	m := newMount(t)
	m.storage.trouble.Store(&trouble{at: 1, lasting: true, hanging: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.b.(*backend).store.config(ctx, "weather"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m.counts(map[string]float64{`storage_errors_total{operation="get"}`: 0})
}

// A passive node does not refresh, so it only has metrics of its own requests.
func TestMetricsOfAPassiveNode(t *testing.T) {
	as := newAuthServer(t)
	m := newNode(t, replicated(t, as), consts.ReplicationPerformanceStandby)
	m.token("weather")
	all := m.metrics()
	for series := range all {
		if strings.HasPrefix(series, "tokens{") || strings.HasPrefix(series, "unsaved_tokens") || strings.Contains(series, "server=") {
			t.Errorf("there is %s", series)
		}
	}
	if active, there := all["active{}"]; !there || active != 0 {
		t.Error("the metrics do not say that the node is not active")
	}
	m.counts(map[string]float64{`token_reads_total{outcome="success"}`: 1})

	_, active := newConfigured(t)
	active.token("weather")
	active.counts(map[string]float64{`active{}`: 1, `tokens{state="ok"}`: 1})
}

// Concurrent scrapes get the same complete answer.
func TestScrapesAtOneTime(t *testing.T) {
	_, m := newConfigured(t)
	m.token("weather")
	metrics, format := m.b.(*backend).metrics, expfmt.NewFormat(expfmt.TypeTextPlain)
	want, err := metrics.scrape(format)
	if err != nil || len(want) == 0 {
		t.Fatalf("a scrape of %d bytes: %v", len(want), err)
	}
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			if got, err := metrics.scrape(format); err != nil || !bytes.Equal(got, want) {
				t.Errorf("another answer, of %d bytes and not %d: %v", len(got), len(want), err)
			}
		})
	}
	work.Wait()
}

// Two mounts in one process have separate metrics.
func TestMetricsOfTwoMounts(t *testing.T) {
	as := newAuthServer(t)
	one, two := newMount(t), newMount(t)
	one.configure(as, nil)
	two.configure(as, nil)
	one.token("weather")
	one.counts(map[string]float64{`token_reads_total{outcome="success"}`: 1, `tokens{state="ok"}`: 1})
	two.counts(map[string]float64{`token_reads_total{outcome="success"}`: 0, `tokens{state="ok"}`: 0})
}

// checkDocumentedValues checks that the page has the values of the labels outcome, error and operation, and that its
// table of outcomes has no other rows.
func checkDocumentedValues(t *testing.T, families []*dto.MetricFamily, page string) {
	t.Helper()
	outcomes := map[string]bool{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				value := label.GetValue()
				switch label.GetName() {
				case "outcome":
					outcomes[value] = true
				case "error", "operation":
				default:
					continue
				}
				if value != "" && !strings.Contains(page, "`"+value+"`") {
					t.Errorf("the page lacks the value %s of %s, a label of %s", value, label.GetName(), family.GetName())
				}
			}
		}
	}
	_, table, _ := strings.Cut(page, "\n`outcome`")
	table, _, _ = strings.Cut(table, "\n\n`error`")
	rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1)
	for _, row := range rows {
		if !outcomes[row[1]] {
			t.Errorf("the page has the outcome %s, which does not exist", row[1])
		}
	}
	if len(rows) == 0 {
		t.Error("the page has no table of outcomes")
	}
}

// The page lists exactly the existing metrics, and the alerts and the dashboard use no others. An acceptance test
// checks their labels and values.
func TestDocumentedMetricsExist(t *testing.T) {
	as, m := newConfigured(t)
	m.token("weather")
	m.write("role/weather/reader", fields{"verify": false})
	as.answers(refusing(401, "invalid_client"))
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather/reader", nil)
	families := must(m.b.(*backend).metrics.registries().Gather())(t)
	exist, rows := map[string]bool{}, map[string]bool{}
	for _, family := range families {
		var labels []string
		for _, label := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+label.GetName()+"`")
		}
		row := "| `" + family.GetName() + "`<br>" + strings.ToLower(family.GetType().String())
		if len(labels) > 0 {
			row += " by " + strings.Join(labels, ", ")
		}
		rows[row+" |"] = true
		exist[family.GetName()] = true
		if family.GetType() == dto.MetricType_HISTOGRAM {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				exist[family.GetName()+suffix] = true
			}
		}
	}
	page := readText(t, "docs/metrics.md")
	checkDocumentedValues(t, families, page)
	for _, row := range regexp.MustCompile("(?m)^\\| `mcp_oauth_[a-z_]+`<br>[^|]*\\|").FindAllString(page, -1) {
		if !rows[row] {
			t.Errorf("the page has %s, which is not a metric", row)
		}
		delete(rows, row)
	}
	for row := range rows {
		t.Errorf("the page lacks %s", row)
	}
	metric := regexp.MustCompile(`mcp_oauth_[a-z_]+`)
	for _, file := range []string{"docs/metrics.md", "examples/prometheus/alerts.yml", "examples/grafana/mcp-oauth.json"} {
		names := metric.FindAllString(readText(t, file), -1)
		for _, name := range names {
			if !exist[name] {
				t.Errorf("%s names %s, which is not a metric", file, name)
			}
		}
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
	}
	alerts := readText(t, "examples/prometheus/alerts.yml")
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(alerts, -1) {
		if !strings.Contains(page, "\n| `"+alert[1]+"` | ") {
			t.Errorf("the page lacks the alert %s", alert[1])
		}
	}
}
