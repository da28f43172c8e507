package mcpoauth

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// authServer is an authorization server on loopback.
type authServer struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex // guards the fields below
	arrived  *sync.Cond // signals a request
	requests []tokenRequest
	answer   func(tokenRequest) (status int, body fields)
	gate     chan struct{} // if set, requests wait until it is closed
	metadata fields        // RFC 8414; nil: not found
	looks    int           // requests for metadata
}

type tokenRequest struct {
	n            int // counts from 1
	method       string
	path         string
	clientID     string // from the Authorization header
	clientSecret string
	header       http.Header
	form         url.Values
	certificates []*x509.Certificate // the client's
}

// newAuthServer starts an authorization server whose tokens last an hour.
func newAuthServer(t *testing.T) *authServer {
	t.Helper()
	as := unstarted(t)
	as.Start()
	return as
}

func unstarted(t *testing.T) *authServer {
	t.Helper()
	as := &authServer{t: t, answer: granting(nil)}
	as.arrived = sync.NewCond(&as.mu)
	as.Server = httptest.NewUnstartedServer(as)
	as.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes expected to fail
	t.Cleanup(func() {
		as.release()
		as.Close()
	})
	return as
}

// granting returns an answer with a token of an hour. more overrides its members.
func granting(more fields) func(tokenRequest) (int, fields) {
	return func(r tokenRequest) (int, fields) {
		return http.StatusOK, with(fields{
			"access_token": fmt.Sprintf("%s-%d", tokenMark, r.n),
			"token_type":   "Bearer",
			"expires_in":   3600,
		}, more)
	}
}

// refusing returns an answer with an OAuth error.
func refusing(status int, code string) func(tokenRequest) (int, fields) {
	return func(tokenRequest) (int, fields) {
		return status, fields{"error": code, "error_description": "said the server"}
	}
}

func (as *authServer) answers(answer func(tokenRequest) (int, fields)) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.answer = answer
}

func (as *authServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		as.serveMetadata(w, r)
		return
	}
	_ = r.ParseForm()
	clientID, clientSecret, _ := r.BasicAuth()
	as.mu.Lock()
	request := tokenRequest{
		n: len(as.requests) + 1, method: r.Method, path: r.URL.Path,
		clientID: clientID, clientSecret: clientSecret, header: r.Header, form: r.PostForm,
	}
	if r.TLS != nil {
		request.certificates = r.TLS.PeerCertificates
	}
	as.requests = append(as.requests, request)
	as.arrived.Broadcast()
	gate := as.gate
	as.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
	}
	as.mu.Lock()
	answer := as.answer
	as.mu.Unlock()
	status, body := answer(request)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// hold makes requests wait until release.
func (as *authServer) hold() {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.gate = make(chan struct{})
}

func (as *authServer) release() {
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.gate != nil {
		close(as.gate)
		as.gate = nil
	}
}

// count returns the number of token requests.
func (as *authServer) count() int {
	as.mu.Lock()
	defer as.mu.Unlock()
	return len(as.requests)
}

// await waits for the nth token request and returns it.
func (as *authServer) await(n int) tokenRequest {
	as.t.Helper()
	late := false
	timer := time.AfterFunc(10*time.Second, func() {
		as.mu.Lock()
		defer as.mu.Unlock()
		late = true
		as.arrived.Broadcast()
	})
	defer timer.Stop()
	as.mu.Lock()
	defer as.mu.Unlock()
	for len(as.requests) < n {
		if late {
			as.t.Fatalf("request %d did not arrive", n)
		}
		as.arrived.Wait()
	}
	return as.requests[n-1]
}

// holds checks some parameters of a request's form. A client secret in the header counts as the parameter secret.
func (r tokenRequest) holds(t *testing.T, want map[string]string) {
	t.Helper()
	for param, value := range want {
		got := r.form.Get(param)
		if param == "secret" {
			got = r.clientSecret
		}
		equal(t, fmt.Sprintf("%s of request %d", param, r.n), got, value)
	}
}

// asked checks the number of token requests so far.
func (as *authServer) asked(t *testing.T, times int, when string) {
	t.Helper()
	equal(t, "token requests "+when, as.count(), times)
}

// client is the shortest config of a client of the server.
func (as *authServer) client() fields { return with(as.endpoint(), fields{"client_secret": secret}) }

// endpoint is a client's config without its credentials.
func (as *authServer) endpoint() fields {
	return fields{"token_url": as.URL + "/token", "client_id": "vault"}
}

// describes makes the server discoverable. more overrides members of its metadata; a nil value removes one.
func (as *authServer) describes(more fields) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.metadata = with(fields{"issuer": as.URL, "token_endpoint": as.URL + "/token"}, more)
	maps.DeleteFunc(as.metadata, func(_ string, value any) bool { return value == nil })
}

// looked returns the number of requests for metadata.
func (as *authServer) looked() int {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.looks
}

// serveMetadata answers requests at the well-known URL of RFC 8414, but not at OpenID's.
func (as *authServer) serveMetadata(w http.ResponseWriter, r *http.Request) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.looks++
	if as.metadata == nil || r.URL.Path != "/.well-known/oauth-authorization-server" {
		http.NotFound(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(as.metadata)
}
