package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// After the first signal, the proxy accepts no connection, ends the streams for messages of the servers, and lets
// other requests finish.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	goOn, begun := make(chan struct{}), make(chan struct{}, 2)
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).Flush()
		begun <- struct{}{}
		select {
		case <-goOn:
			_, _ = io.WriteString(rw, "done")
		case <-r.Context().Done():
		}
	}
	c := w.config()
	c.Monitoring.Address = freeAddress(t)
	r := w.serve(c)
	call := post(t, "http://"+r.address+"/files", message)
	stream := do(t, request(t, http.MethodGet, "http://"+r.address+"/files", nil))
	<-begun
	<-begun
	health := "http://" + c.Monitoring.Address + "/healthz"
	if response := do(t, request(t, http.MethodGet, health, nil)); response.StatusCode != http.StatusOK {
		t.Errorf("before the signal, healthz is %d", response.StatusCode)
	}
	metrics := text(t, do(t, request(t, http.MethodGet, "http://"+c.Monitoring.Address+"/metrics", nil)))
	for _, want := range []string{
		`mcp_token_proxy_open_requests{route="files"} 2`,
		`mcp_token_proxy_requests_total{code="200",route="files"} 2`,
		`mcp_token_proxy_vault_failing{route="files"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}

	r.drain()
	if rest, err := io.ReadAll(stream.Body); err == nil {
		t.Errorf("the stream ended with %q and without an error", rest)
	}
	if response := do(t, request(t, http.MethodGet, health, nil)); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("healthz is %d while draining", response.StatusCode)
	}
	waitFor(t, func() bool {
		_, err := http.DefaultTransport.RoundTrip(request(t, http.MethodGet, "http://"+r.address+"/", nil))
		return err != nil
	})
	select {
	case err := <-r.ended:
		t.Fatalf("the proxy ended before the request: %v", err)
	default:
	}
	close(goOn)
	if got := text(t, call); got != "done" {
		t.Errorf("the request under way ended with %q", got)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

// A second signal ends the proxy at once, even during requests.
func TestSecondSignalEnds(t *testing.T) {
	w := newWorld(t)
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}
	r := w.serve(w.config())
	call := post(t, "http://"+r.address+"/files", message)
	r.drain()
	r.now()
	if err := <-r.ended; err == nil || !strings.Contains(err.Error(), "second signal") {
		t.Errorf("the proxy ended with %v", err)
	}
	if _, err := io.ReadAll(call.Body); err == nil {
		t.Error("the request ended without an error")
	}
}

// A proxy that cannot listen ends with an error.
func TestAddressInUse(t *testing.T) {
	w := newWorld(t)
	r := w.serve(w.config())
	c := w.config()
	c.Listeners[0].Address = r.address
	p, err := newProxy(c, w.logger())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.serve(context.Background(), context.Background()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v, want an error that the address is in use", err)
	}
}
