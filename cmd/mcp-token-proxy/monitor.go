package main

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// metrics are the metrics at /metrics.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec // by route and code
	open     *prometheus.GaugeVec   // by route
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mcp_token_proxy_requests_total",
			Help: "Requests by route and the status of the answer.",
		}, []string{"route", "code"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mcp_token_proxy_open_requests",
			Help: "Requests being served, including open streams.",
		}, []string{"route"}),
	}
	m.registry.MustRegister(m.requests, m.open)
	return m
}

// monitor serves /metrics, and /healthz with 200 until the proxy drains.
func monitor(draining context.Context, m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if draining.Err() != nil {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		families, err := m.registry.Gather()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		format := expfmt.NewFormat(expfmt.TypeTextPlain)
		w.Header().Set("Content-Type", string(format))
		encoder := expfmt.NewEncoder(w, format)
		for _, family := range families {
			if err := encoder.Encode(family); err != nil {
				return // the client closed the connection
			}
		}
	})
	return mux
}
