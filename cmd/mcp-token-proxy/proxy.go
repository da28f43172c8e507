package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// drainTimeout bounds requests in flight after the first signal.
const drainTimeout = 30 * time.Second

// A proxy holds the listener, the routes and the login of the process.
type proxy struct {
	config *config
	log    *slog.Logger
	tls    *tls.Config // nil without TLS
	guard  *guard
	tokens vaultToken // nil if the client has a token of its own, or needs none
	routes []*route
	metric *metrics
}

// newProxy returns the proxy for a valid configuration. It neither opens sockets nor contacts servers.
func newProxy(c *config, log *slog.Logger) (*proxy, error) {
	p := &proxy{config: c, log: log, metric: newMetrics()}
	l := &c.Listeners[0]
	var err error
	if p.tls, err = l.tlsConfig(); err != nil {
		return nil, fmt.Errorf("listener: %w", err)
	}
	p.guard = &guard{unix: l.Type == "unix", hosts: l.Hosts}
	if p.tls != nil {
		if p.guard.certificate, err = x509.ParseCertificate(p.tls.Certificates[0].Certificate[0]); err != nil {
			return nil, fmt.Errorf("listener: %w", err)
		}
	}
	vault, tokens, err := c.vaultClient(log)
	if err != nil {
		return nil, err
	}
	p.tokens = tokens
	for i := range c.Routes {
		r, err := newRoute(&c.Routes[i], vault, p.metric, log)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", c.Routes[i].Name, err)
		}
		p.metric.watch(r)
		p.routes = append(p.routes, r)
	}
	return p, nil
}

// handler serves the routes. When drain is done it ends the streams that would not end by themselves.
func (p *proxy) handler(drain context.Context) http.Handler {
	mux := http.NewServeMux()
	for _, r := range p.routes {
		mux.Handle("/"+r.name, r)
		mux.Handle("/"+r.name+"/{$}", r)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, nil, "there is no such route")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := p.guard.refuse(r); why != "" {
			refuse(w, http.StatusForbidden, nil, why)
			return
		}
		if r.Method == http.MethodGet {
			// A GET is the stream of the server's own messages. Clients open it again.
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(drain, cancel)()
			r = r.WithContext(ctx)
		}
		mux.ServeHTTP(w, r)
	})
}

// serve serves until drain is done and requests in flight have ended, or until now is done.
func (p *proxy) serve(drain, now context.Context) error {
	listening, err := p.config.Listeners[0].listen(drain)
	if err != nil {
		return err
	}
	defer listening.Close()
	var monitoring net.Listener
	if address := p.config.Monitoring.Address; address != "" {
		if monitoring, err = (&net.ListenConfig{}).Listen(drain, "tcp", address); err != nil {
			return fmt.Errorf("monitoring: %w", err)
		}
		defer monitoring.Close()
	}
	if p.tls != nil {
		listening = tls.NewListener(listening, p.tls)
	}
	var background sync.WaitGroup
	defer background.Wait()
	running, stop := context.WithCancel(now)
	defer stop()
	if p.tokens != nil {
		background.Go(func() { p.tokens.run(running) })
	}
	if monitoring != nil {
		server := p.server(monitor(drain, p.metric))
		background.Go(func() { _ = server.Serve(monitoring) })
		defer server.Close()
	}
	server := p.server(p.handler(drain))
	served := make(chan error, 1)
	background.Go(func() { served <- server.Serve(listening) })
	p.log.Info("listening", "address", listening.Addr().String(), "routes", len(p.routes))

	select {
	case err := <-served:
		return err
	case <-drain.Done():
	}
	p.log.Info("draining: requests under way go on, a second signal ends them", "timeout", drainTimeout)
	ctx, cancel := context.WithTimeout(now, drainTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		server.Close()
		if now.Err() != nil {
			return errors.New("ended by a second signal")
		}
		return fmt.Errorf("requests were still under way after %s", drainTimeout)
	}
	return nil
}

// server returns an HTTP server for a handler. It sets no limit on the duration of answers.
func (p *proxy) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
}
