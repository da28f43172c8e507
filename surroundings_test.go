package mcpoauth

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// TestMain sends what is not at loopback to a proxy that is not there, whatever URL a test
// writes. The environment is read once, so this comes before all tests.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		if err := os.Setenv(name, "http://127.0.0.1:1"); err != nil {
			panic(err)
		}
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	m.Run()
}

// testStorage is a mount's storage that counts and can fail.
type testStorage struct {
	logical.InmemStorage

	calls   atomic.Int64
	trouble atomic.Pointer[trouble] // that storage is in; nil: none
	// before is called before each call, if it is set before the mount starts, with what is
	// called, as fail takes it.
	before func(call string)

	mu sync.Mutex // guards the fields below
	// failing are the calls that fail: "put token/" fails those puts whose key
	// starts so, "get" all gets.
	failing []string
	// afterGet is called after the next get; nil is not.
	afterGet func()
	// late are the puts and deletes that failed and are still to take effect.
	late []func()
}

// errStorage is what a failing call returns: storage errors cross the plugin boundary
// as plain text.
var errStorage = errors.New("storage is out of order")

// errUnheard is that of a put or a delete that took effect all the same.
var errUnheard = fmt.Errorf("%w, after it was done", errStorage)

// errLate is that of a put or a delete that takes effect later, before all that come after it.
var errLate = fmt.Errorf("%w, and is done late", errStorage)

// trouble is which calls of a storage fail, counted from 1 when it begins, and how.
type trouble struct {
	at      int64 // the call that fails
	lasting bool  // and all after it
	done    bool  // puts and deletes take effect all the same, as when the answer is lost
	hanging bool  // the call goes on until its context ends; one that is done is done later

	calls, struck atomic.Int64
}

func (t *trouble) call(ctx context.Context) error {
	n := t.calls.Add(1)
	if n < t.at || n > t.at && !t.lasting {
		return nil
	}
	t.struck.Add(1)
	switch {
	case t.hanging:
		<-ctx.Done()
		if t.done {
			return fmt.Errorf("%w: %w", errLate, ctx.Err())
		}
		return fmt.Errorf("%w: %w", errStorage, ctx.Err())
	case t.done:
		return errUnheard
	default:
		return errStorage
	}
}

// fail makes the calls fail from now on; none makes all work again.
func (s *testStorage) fail(calls ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = calls
}

func (s *testStorage) call(ctx context.Context, method, key string) error {
	s.calls.Add(1)
	call := method + " " + key
	if s.before != nil {
		s.before(call)
	}
	if trouble := s.trouble.Load(); trouble != nil {
		return trouble.call(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.failing {
		if strings.HasPrefix(call, f) {
			return errStorage
		}
	}
	return nil
}

func (s *testStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.call(ctx, "get", key); err != nil {
		return nil, err
	}
	entry, err := s.InmemStorage.Get(ctx, key)
	s.mu.Lock()
	after := s.afterGet
	s.afterGet = nil
	s.mu.Unlock()
	if after != nil {
		after()
	}
	return entry, err
}

// meanwhile makes something happen between the next get and what its caller does then.
func (s *testStorage) meanwhile(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.afterGet = do
}

func (s *testStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return s.write(ctx, "put", entry.Key, func(ctx context.Context) error { return s.InmemStorage.Put(ctx, entry) })
}

func (s *testStorage) Delete(ctx context.Context, key string) error {
	return s.write(ctx, "delete", key, func(ctx context.Context) error { return s.InmemStorage.Delete(ctx, key) })
}

// write does a put or a delete, or fails, or both.
func (s *testStorage) write(ctx context.Context, method, key string, do func(context.Context) error) error {
	err := s.call(ctx, method, key)
	if errors.Is(err, errLate) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = append(s.late, func() { _ = do(context.WithoutCancel(ctx)) })
		time.AfterFunc(tokens.LateCommit-time.Second, s.doLate)
		return err
	}
	if err != nil && err != errUnheard {
		return err
	}
	s.doLate()
	return cmp.Or(do(ctx), err)
}

// doLate does what is still to take effect.
func (s *testStorage) doLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, do := range s.late {
		do()
	}
	s.late = nil
}

func (s *testStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.call(ctx, "list", prefix); err != nil {
		return nil, err
	}
	return s.InmemStorage.List(ctx, prefix)
}

// entries gives all that is stored, by key.
func (s *testStorage) entries(t *testing.T) map[string]string {
	t.Helper()
	keys, err := logical.CollectKeys(t.Context(), &s.InmemStorage)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, key := range keys {
		entry, err := s.InmemStorage.Get(t.Context(), key)
		if err != nil || entry == nil {
			t.Fatalf("%s: %v, %v", key, entry, err)
		}
		all[key] = string(entry.Value)
	}
	return all
}

// unchanged checks that what is stored is what was.
func (s *testStorage) unchanged(t *testing.T, was map[string]string) {
	t.Helper()
	if is := s.entries(t); !maps.Equal(is, was) {
		t.Errorf("storage changed:\nit was %q\nit is  %q", was, is)
	}
}

// testSystem counts the calls to Vault's system view. Those that are not here end the
// test: nothing may need them.
type testSystem struct {
	logical.SystemView

	state atomic.Uint32 // a consts.ReplicationState
	calls atomic.Int64
	// before is called before each call with the name of what is called, if it is set before the
	// mount starts.
	before func(call string)
}

// inState is a system view of a node in the state.
func inState(state consts.ReplicationState) *testSystem {
	s := &testSystem{}
	s.becomes(state)
	return s
}

// becomes sets the state of the node.
func (s *testSystem) becomes(state consts.ReplicationState) { s.state.Store(uint32(state)) }

func (s *testSystem) call(name string) {
	s.calls.Add(1)
	if s.before != nil {
		s.before(name)
	}
}

func (s *testSystem) ReplicationState() consts.ReplicationState {
	s.call("ReplicationState")
	return consts.ReplicationState(s.state.Load())
}

// GetConsumptionBillingManager is called once, by Setup.
func (s *testSystem) GetConsumptionBillingManager() logical.ConsumptionBillingManager {
	s.call("GetConsumptionBillingManager")
	return nil
}

// PluginEnv is called for the OpenAPI document.
func (s *testSystem) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	s.call("PluginEnv")
	return &logical.PluginEnvironment{VaultVersion: "1.21.1"}, nil
}

func (s *testSystem) LocalMount() bool {
	s.call("LocalMount")
	return false
}

// authServer is an authorization server on loopback that answers as the test says.
type authServer struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex // guards the fields below
	arrived  *sync.Cond // a request came
	requests []tokenRequest
	answer   func(tokenRequest) (status int, body fields)
	gate     chan struct{} // requests wait for its close; nil lets them through
	metadata fields        // of RFC 8414; nil: there is none
	looks    int           // how often the metadata was asked for
}

// tokenRequest is what came in one request.
type tokenRequest struct {
	n            int // counts from 1
	method       string
	path         string
	clientID     string // of the Authorization header
	clientSecret string
	form         url.Values
	certificates []*x509.Certificate // that the client showed
}

// newAuthServer starts an authorization server that grants tokens of an hour.
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
	as.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	t.Cleanup(func() {
		as.release()
		as.Close()
	})
	return as
}

// granting answers with a token of an hour, and with more.
func granting(more fields) func(tokenRequest) (int, fields) {
	return func(r tokenRequest) (int, fields) {
		return http.StatusOK, with(fields{
			"access_token": fmt.Sprintf("%s-%d", tokenMark, r.n),
			"token_type":   "Bearer",
			"expires_in":   3600,
		}, more)
	}
}

// refusing answers with an OAuth error.
func refusing(status int, code string) func(tokenRequest) (int, fields) {
	return func(tokenRequest) (int, fields) {
		return status, fields{"error": code, "error_description": "said the server"}
	}
}

// answers sets what the next requests are answered with.
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
		clientID: clientID, clientSecret: clientSecret, form: r.PostForm,
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

// count is the number of requests that came.
func (as *authServer) count() int {
	as.mu.Lock()
	defer as.mu.Unlock()
	return len(as.requests)
}

// await waits for the nth request, and gives it.
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
			as.t.Fatalf("request %d never came", n)
		}
		as.arrived.Wait()
	}
	return as.requests[n-1]
}

// asked checks how many requests came.
func (as *authServer) asked(t *testing.T, times int, when string) {
	t.Helper()
	if n := as.count(); n != times {
		t.Errorf("%s: %d requests to the authorization server so far; want %d", when, n, times)
	}
}

// client is the config of a client of the server, and no more than it needs.
func (as *authServer) client() fields {
	return fields{"token_url": as.URL + "/token", "client_id": "vault", "client_secret": secret}
}

// endpoint is the config of a client of the server, but for its credentials.
func (as *authServer) endpoint() fields {
	return fields{"token_url": as.URL + "/token", "client_id": "vault"}
}
