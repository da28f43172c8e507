package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/brokerauth"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// shortBody bounds the bodies that are read before the request is sent, in bytes: net/http sends a body in memory
// with the header, in one write if both fit into the transport's buffer. A stream holds such a body as long as it is
// open.
const shortBody = 4 << 10

// A route forwards one path of the proxy to one MCP server.
type route struct {
	name     string
	source   *brokerauth.Source
	forward  *httputil.ReverseProxy
	requests *prometheus.CounterVec // by code
	open     prometheus.Gauge       // requests being served
	log      *slog.Logger
	short    int64       // longest body that is read before the request is sent, in bytes
	failing  atomic.Bool // whether the last request had no token; it is logged once
}

// newRoute returns the route for a valid configuration.
func newRoute(c *routeConfig, vault *api.Client, m *metrics, log *slog.Logger) (*route, error) {
	source, err := brokerauth.NewSource(brokerauth.Config{Vault: vault, TokenPath: c.TokenPath})
	if err != nil {
		return nil, err
	}
	bearer, err := brokerauth.NewTransport(source, c.Upstream)
	if err != nil {
		return nil, err
	}
	bearer.KeptBody = c.KeptBody
	if bearer.Base, err = c.transport(); err != nil {
		return nil, err
	}
	upstream, err := url.Parse(c.Upstream)
	if err != nil {
		return nil, err
	}
	r := &route{
		name:     c.Name,
		source:   source,
		requests: m.requests.MustCurryWith(prometheus.Labels{"route": c.Name}),
		open:     m.open.WithLabelValues(c.Name),
		log:      log.With("route", c.Name),
		short:    shortBody,
	}
	if c.KeptBody != 0 {
		r.short = min(r.short, c.KeptBody)
	}
	r.forward = &httputil.ReverseProxy{
		Transport:      bearer,
		Rewrite:        func(p *httputil.ProxyRequest) { rewrite(p, upstream) },
		ModifyResponse: r.answered,
		ErrorHandler:   r.failed,
		BufferPool:     buffers,
		ErrorLog:       slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	return r, nil
}

// transport returns the connections to the MCP server.
func (c *routeConfig) transport() (*http.Transport, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // otherwise it would decompress answers that the client did not ask to have decompressed
		// Each open stream holds these buffers.
		ReadBufferSize:  2 << 10,
		WriteBufferSize: 2 << 10,
	}
	if c.CACert != "" {
		pool, err := certPool(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("ca_cert: %w", err)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return t, nil
}

// ours are the headers that the proxy does not forward. The MCP server must not get the client's credentials, nor the
// proxy's address.
var ours = []string{"Authorization", "Cookie", "Origin", "Referer", "Upgrade", "Connection"}

// rewrite changes a client's request into one to the MCP server.
func rewrite(p *httputil.ProxyRequest, upstream *url.URL) {
	query := p.In.URL.RawQuery
	*p.Out.URL, p.Out.Host = *upstream, ""
	switch {
	case upstream.RawQuery == "":
		p.Out.URL.RawQuery = query
	case query != "":
		p.Out.URL.RawQuery += "&" + query
	}
	p.Out.Trailer = p.In.Trailer
	if p.In.GetBody != nil {
		p.Out.Body, _ = p.In.GetBody() // without the ReverseProxy's wrapper net/http knows that it is in memory
		delete(p.Out.Header, "Expect") // reading the body has sent the client its 100 (Continue)
	}
	for _, name := range ours {
		delete(p.Out.Header, name)
	}
}

// ServeHTTP implements [http.Handler].
func (r *route) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch req.Method {
	case http.MethodPost, http.MethodGet, http.MethodDelete: // the methods of Streamable HTTP
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		r.refuse(w, http.StatusMethodNotAllowed, nil, "the method must be GET, POST or DELETE")
		return
	}
	r.open.Inc()
	defer r.open.Dec()
	if _, err := r.source.TokenContext(req.Context()); err != nil {
		r.withoutToken(w, req, err)
		return
	}
	if r.failing.Swap(false) {
		r.log.Info("there is an access token again")
	}
	if 0 < req.ContentLength && req.ContentLength <= r.short {
		if err := readBody(req); err != nil {
			r.refuse(w, http.StatusBadRequest, nil, "the request ended early")
			return
		}
	}
	r.forward.ServeHTTP(w, req)
}

// readBody reads the body of a request, and sets its GetBody.
func readBody(req *http.Request) error {
	body, err := io.ReadAll(req.Body)
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return err
}

// withoutToken answers a request if no token is available.
func (r *route) withoutToken(w http.ResponseWriter, req *http.Request, err error) {
	if req.Context().Err() != nil {
		return // the client closed the connection
	}
	if !r.failing.Swap(true) {
		r.log.Warn("there is no access token", "error", err)
	}
	seconds := max(1, math.Ceil(r.source.RetryAfter().Seconds()))
	w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	r.refuse(w, http.StatusServiceUnavailable, messageID(req), "no access token for the MCP server: "+err.Error())
}

// answered counts the MCP server's answer and drops its cookies.
func (r *route) answered(response *http.Response) error {
	r.requests.WithLabelValues(strconv.Itoa(response.StatusCode)).Inc()
	response.Header.Del("Set-Cookie") // the client's cookies are not forwarded
	if why := brokerauth.Refusal(response); why != nil {
		r.log.Warn("a refused token was not replaced, the client gets the 401", "error", why)
	}
	return nil
}

// failed answers a request that the MCP server did not answer.
func (r *route) failed(w http.ResponseWriter, req *http.Request, err error) {
	if _, ok := errors.AsType[*brokerauth.Error](err); ok {
		r.withoutToken(w, req, err) // the token has just expired
		return
	}
	if errors.Is(err, context.Canceled) {
		return // the client closed the connection
	}
	reason, _ := reach.Cause(err)
	r.log.Warn("the MCP server gave no answer", "error", reason)
	r.refuse(w, http.StatusBadGateway, nil, "the MCP server gave no answer: "+reason)
}

func (r *route) refuse(w http.ResponseWriter, status int, id []byte, message string) {
	r.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	refuse(w, status, id, message)
}

// watch registers the gauge that reports whether the last read of a route's token failed.
func (m *metrics) watch(r *route) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "mcp_token_proxy_vault_failing",
		Help:        "1 if the last read of the route's token in Vault failed; the held token is used until it expires.",
		ConstLabels: prometheus.Labels{"route": r.name},
	}, func() float64 {
		if r.source.Err() != nil {
			return 1
		}
		return 0
	}))
}
