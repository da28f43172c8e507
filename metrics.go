package mcpoauth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version"
)

// metrics are the metrics of one mount, in its own registries: mounts share the process.
type metrics struct {
	registry *prometheus.Registry
	tokens   prometheus.Gatherers // computed at scrape time
	passive  func() bool          // reports whether this node may not refresh tokens

	scraping sync.Mutex // allows one scrape at a time; guards scraped
	scraped  int        // bytes in the last scrape

	requests *prometheus.CounterVec   // outcome, error
	duration *prometheus.HistogramVec // outcome
	shared   prometheus.Counter
	lag      prometheus.Histogram
	storage  *prometheus.CounterVec // operation
	reads    map[string]prometheus.Counter
	// refreshes counts writes to refresh/; Refreshed counts due refreshes.
	refreshes *prometheus.CounterVec
}

var _ tokens.Observer = (*metrics)(nil)

// Outcomes of reads and of token requests, as labels.
const (
	outcomeSuccess       = "success"
	outcomeRefused       = "refused"
	outcomeUnavailable   = "unavailable"
	outcomeCanceled      = "canceled"
	outcomeNotConfigured = "not_configured"
	outcomeForwarded     = "forwarded"
	outcomeError         = "error"
)

// Outcomes of writes to refresh/, as labels.
const (
	refreshReplaced = "replaced"
	refreshKept     = "kept"
	refreshFailed   = "failed"
)

// errorCodes are the OAuth error codes used as labels (RFC 6749 sections 4.1.2.1 and 5.2, RFC 8707 section 2). Other
// codes share one label, so a server cannot create labels.
var errorCodes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
	"invalid_scope", "invalid_target", "access_denied", "server_error", "temporarily_unavailable",
}

// otherCode is the label of other codes, and of a refusal without a code.
const otherCode = "other"

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mcp_oauth_token_requests_total",
			Help: "Requests to authorization servers for a token, by outcome and, if they were refused, OAuth error code.",
		}, []string{"outcome", "error"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "mcp_oauth_token_request_duration_seconds",
			Help:    "How long requests to authorization servers took.",
			Buckets: []float64{0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25},
		}, []string{"outcome"}),
		shared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mcp_oauth_shared_requests_total",
			Help: "Callers that shared another caller's request for a token.",
		}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "mcp_oauth_token_refresh_lag_seconds",
			Help:    "How long after its due time a token was refreshed; without idle tokens.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600},
		}),
		storage: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mcp_oauth_storage_errors_total",
			Help: "Failed calls to Vault's storage.",
		}, []string{"operation"}),
		reads: map[string]prometheus.Counter{},
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mcp_oauth_token_refreshes_total",
			Help: "Writes to refresh/, which ask for a token to be replaced, by outcome.",
		}, []string{"outcome"}),
	}
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mcp_oauth_token_reads_total",
		Help: "Reads of tokens, by outcome.",
	}, []string{"outcome"})
	for _, outcome := range []string{
		outcomeSuccess, outcomeRefused, outcomeUnavailable, outcomeCanceled, outcomeNotConfigured, outcomeForwarded, outcomeError,
	} {
		m.reads[outcome] = reads.WithLabelValues(outcome)
	}
	// Initialise every series to 0: Prometheus sees no increase in a series that begins at 1.
	for _, outcome := range []string{outcomeSuccess, outcomeUnavailable, outcomeCanceled, outcomeError} {
		m.requests.WithLabelValues(outcome, "")
	}
	for _, code := range append([]string{otherCode}, errorCodes...) {
		m.requests.WithLabelValues(outcomeRefused, code)
	}
	for _, outcome := range []string{refreshReplaced, refreshKept, refreshFailed} {
		m.refreshes.WithLabelValues(outcome)
	}
	for _, operation := range []string{"get", "put", "delete", "list"} {
		m.storage.WithLabelValues(operation)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "mcp_oauth_build_info",
		Help:        "1, with the plugin's version and that of Go as labels.",
		ConstLabels: prometheus.Labels{"version": version.String(), "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.duration, reads, m.shared, m.lag, m.storage, m.refreshes, build)
	return m
}

// show adds the tokens held by the engine to the metrics. A passive node leaves them out: it doesn't know the outcome
// of refreshes.
func (m *metrics) show(each eachToken, passive func() bool) {
	m.passive = passive
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mcp_oauth_active",
		Help: "1 if this node refreshes tokens; other nodes only have metrics of their own requests.",
	}, func() float64 {
		if passive() {
			return 0
		}
		return 1
	}))
	m.tokens = each.registries()
}

func (m *metrics) registries() prometheus.Gatherers {
	if m.passive() {
		return prometheus.Gatherers{m.registry}
	}
	return append(prometheus.Gatherers{m.registry}, m.tokens...)
}

// scrape returns all metrics in Prometheus's text format.
func (m *metrics) scrape(format expfmt.Format) ([]byte, error) {
	m.scraping.Lock()
	defer m.scraping.Unlock()
	var body bytes.Buffer
	body.Grow(m.scraped + m.scraped/8)
	encoder := expfmt.NewEncoder(&body, format)
	for _, registry := range m.registries() {
		families, err := registry.Gather()
		if err != nil {
			return nil, fmt.Errorf("gathering the metrics: %w", err)
		}
		for _, family := range families {
			if err := encoder.Encode(family); err != nil {
				return nil, fmt.Errorf("encoding the metrics: %w", err)
			}
		}
	}
	m.scraped = body.Len()
	return body.Bytes(), nil
}

// read counts a token read that ended with err; nil is a success.
func (m *metrics) read(err error) { m.reads[outcomeOf(err)].Inc() }

// refreshed counts a write to refresh/ that replaced the token, kept it, or ended with err. A forwarded write counts
// on the active node.
func (m *metrics) refreshed(replaced bool, err error) {
	outcome := refreshKept
	switch {
	case errors.Is(err, tokens.ErrReadOnly):
		return
	case err != nil:
		outcome = refreshFailed
	case replaced:
		outcome = refreshReplaced
	}
	m.refreshes.WithLabelValues(outcome).Inc()
}

// storageFailed counts a failed storage call.
func (m *metrics) storageFailed(operation string) { m.storage.WithLabelValues(operation).Inc() }

// Fetched implements tokens.Observer.
func (m *metrics) Fetched(took time.Duration, err error) {
	outcome, code := outcomeOf(err), ""
	if refused, ok := errors.AsType[*grant.RefusedError](err); ok {
		if code = refused.Code; !slices.Contains(errorCodes, code) {
			code = otherCode
		}
	}
	m.requests.WithLabelValues(outcome, code).Inc()
	m.duration.WithLabelValues(outcome).Observe(took.Seconds())
}

// Shared implements tokens.Observer.
func (m *metrics) Shared() { m.shared.Inc() }

// Refreshed implements tokens.Observer.
func (m *metrics) Refreshed(late time.Duration) { m.lag.Observe(late.Seconds()) }

// outcomeOf returns the label for an operation that ended with err.
func outcomeOf(err error) string {
	if err == nil {
		return outcomeSuccess
	}
	if _, ok := errors.AsType[*grant.RefusedError](err); ok {
		return outcomeRefused
	}
	if _, ok := errors.AsType[*grant.UnavailableError](err); ok {
		return outcomeUnavailable
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, tokens.ErrClosed):
		return outcomeCanceled
	case errors.Is(err, tokens.ErrNotConfigured):
		return outcomeNotConfigured
	case errors.Is(err, tokens.ErrReadOnly):
		return outcomeForwarded
	default:
		return outcomeError
	}
}
