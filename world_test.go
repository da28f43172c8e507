package mcpoauth

import (
	"bytes"
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

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	apischema "github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// fields are the data of a request or a response.
type fields = map[string]any

// with returns base with changes applied.
func with(base, changes fields) fields {
	all := maps.Clone(base)
	maps.Copy(all, changes)
	return all
}

// mount is one mount of the secrets engine on one node, with its storage and system view. Requests take Vault's
// steps, and every answer is checked.
type mount struct {
	t       *testing.T
	b       logical.Backend
	storage *testStorage
	system  *testSystem

	afterCheck func() // called once, after the next write's existence check; may be nil

	mu   sync.Mutex // guards said
	said bytes.Buffer
}

// newMount mounts the secrets engine on empty storage. When the test ends, it unmounts and searches errors and logs
// for secrets.
func newMount(t *testing.T) *mount {
	t.Helper()
	return newNode(t, &testStorage{}, 0)
}

// newNode mounts the secrets engine on storage, which other nodes may share.
func newNode(t *testing.T, storage *testStorage, state consts.ReplicationState) *mount {
	t.Helper()
	return newMountOn(t, storage, inState(state))
}

func newMountOn(t *testing.T, storage *testStorage, system *testSystem) *mount {
	t.Helper()
	m := &mount{t: t, storage: storage, system: system}
	m.start()
	t.Cleanup(func() {
		m.stop()
		m.mu.Lock()
		defer m.mu.Unlock()
		checkSecretFree(t, "an error, a log line or a help text", m.said.String())
	})
	return m
}

// start mounts as Vault does when a mount is new, after a restart, and on a node that becomes active.
func (m *mount) start() {
	m.t.Helper()
	m.b = must(Factory(m.t.Context(), &logical.BackendConfig{
		StorageView: m.storage, System: m.system, BackendUUID: "mount",
		Logger: hclog.New(&hclog.LoggerOptions{Output: m, Level: hclog.Trace}),
	}))(m.t)
	noError(m.t, m.b.Initialize(m.t.Context(), &logical.InitializationRequest{Storage: m.storage}))
}

// stop unmounts. A second call does nothing.
func (m *mount) stop() { m.b.Cleanup(m.t.Context()) }

func (m *mount) restart() {
	m.t.Helper()
	m.stop()
	m.start()
}

// store returns the mount's storage in the plugin's own types.
func (m *mount) store() store { return store{storage: m.storage, proofs: &proofs{}} }

// Write keeps the log, which is searched for secrets at the end.
func (m *mount) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.said.Write(p)
}

// do makes a request as Vault does: the existence check before a write makes it a create or an update.
func (m *mount) do(op logical.Operation, path string, data fields) (*logical.Response, error) {
	m.t.Helper()
	req := &logical.Request{Operation: op, Path: path, Data: overHTTP(m.t, data), Storage: m.storage}
	if op == logical.UpdateOperation {
		found, exists, err := m.b.HandleExistenceCheck(m.t.Context(), req)
		if err != nil {
			return nil, m.noted(existenceError(err))
		}
		if found && !exists {
			req.Operation = logical.CreateOperation
		}
		if happen := m.afterCheck; happen != nil {
			m.afterCheck = nil
			happen()
		}
	}
	resp, err := m.b.HandleRequest(m.t.Context(), req)
	if err != nil {
		if resp != nil {
			m.t.Errorf("%s %s: a response together with an error, which Vault turns into a 400: %v", op, path, resp)
		}
		return nil, m.noted(err)
	}
	if resp.IsError() { // the framework's own error about a field's type
		return nil, m.noted(logical.CodedError(http.StatusBadRequest, resp.Error().Error()))
	}
	m.check(req, resp)
	return resp, nil
}

// existenceError gives an error of the existence check the status that Vault would give it.
func existenceError(err error) error {
	if _, isUser := errors.AsType[errutil.UserError](err); isUser {
		return logical.CodedError(http.StatusBadRequest, err.Error())
	}
	return logical.CodedError(http.StatusInternalServerError, err.Error())
}

// noted keeps an error's text, which is searched for secrets at the end.
func (m *mount) noted(err error) error {
	_, _ = m.Write([]byte(err.Error() + "\n"))
	return err
}

// check checks a successful answer.
func (m *mount) check(req *logical.Request, resp *logical.Response) {
	m.t.Helper()
	path := m.b.(*backend).Route(req.Path)
	apischema.ValidateResponse(m.t, apischema.GetResponseSchema(m.t, path, req.Operation), resp, true)
	if resp == nil {
		return
	}
	if resp.Secret != nil || resp.Auth != nil {
		m.t.Errorf("%s %s answers with a lease", req.Operation, req.Path)
	}
	// jwks checks raw bodies.
	if !strings.HasPrefix(req.Path, tokenPrefix) && !isPublic(req.Path) {
		text, err := json.Marshal(resp)
		if err != nil {
			m.t.Error(err)
		}
		checkSecretFree(m.t, "the answer to "+req.Path, string(text))
	}
}

// write returns the warnings.
func (m *mount) write(path string, data fields) []string {
	m.t.Helper()
	resp, err := m.do(logical.UpdateOperation, path, data)
	if err != nil {
		m.t.Fatalf("write %s: %v", path, err)
	}
	return cmp.Or(resp, &logical.Response{}).Warnings
}

func (m *mount) read(path string) fields {
	m.t.Helper()
	return m.data(logical.ReadOperation, path, nil)
}

func (m *mount) refresh(name string, data fields) fields {
	m.t.Helper()
	return m.data(logical.UpdateOperation, "refresh/"+name, data)
}

// data is succeeds on the test's goroutine: if the request fails, the test ends.
func (m *mount) data(op logical.Operation, path string, data fields) fields {
	m.t.Helper()
	data, ok := m.succeeds(op, path, data)
	if !ok {
		m.t.FailNow()
	}
	return data
}

// succeeds checks that a request succeeds, and returns the data of its response. If it fails, the test goes on, so it may
// be called in the background.
func (m *mount) succeeds(op logical.Operation, path string, data fields) (_ fields, ok bool) {
	m.t.Helper()
	resp, err := m.do(op, path, data)
	if err != nil || resp == nil {
		m.t.Errorf("%s %s: %v, %v", op, path, resp, err)
		return nil, false
	}
	return resp.Data, true
}

// raw reads a document of this content type, and returns its body and Cache-Control.
func (m *mount) raw(path, contentType string) (body []byte, cache any) {
	m.t.Helper()
	data := m.data(logical.ReadOperation, path, nil)
	body, _ = data[logical.HTTPRawBody].([]byte)
	cache = data[logical.HTTPCacheControlHeader]
	sameFields(m.t, data, fields{
		logical.HTTPContentType: contentType, logical.HTTPStatusCode: http.StatusOK,
		logical.HTTPRawBody: body, logical.HTTPCacheControlHeader: cache,
	})
	checkSecretFree(m.t, path, string(body))
	return body, cache
}

// list returns nil for an empty list.
func (m *mount) list(path string) []string {
	m.t.Helper()
	keys, _ := m.data(logical.ListOperation, path, nil)["keys"].([]string)
	return keys
}

func (m *mount) delete(path string) {
	m.t.Helper()
	if _, err := m.do(logical.DeleteOperation, path, nil); err != nil {
		m.t.Fatalf("delete %s: %v", path, err)
	}
}

// token reads an access token.
func (m *mount) token(name string) string {
	m.t.Helper()
	return m.read("token/" + name)["access_token"].(string)
}

func (m *mount) holds(name, want string) {
	m.t.Helper()
	equal(m.t, "the token of "+name, m.token(name), want)
}

func (m *mount) config(server string) *config {
	m.t.Helper()
	return must(m.store().config(m.t.Context(), server))(m.t)
}

// refused checks that a request fails with an HTTP status and a text that holds each of says. The error must be
// unwrapped: a wrapped one crosses the plugin boundary as a 500.
func (m *mount) refused(status int, op logical.Operation, path string, data fields, says ...string) string {
	m.t.Helper()
	_, err := m.do(op, path, data)
	coded, ok := err.(logical.HTTPCodedError)
	if !ok {
		m.t.Errorf("%s %s: %v; want status %d", op, path, err, status)
		return ""
	}
	if coded.Code() != status {
		m.t.Errorf("%s %s: status %d: %v; want %d", op, path, coded.Code(), err, status)
	}
	contains(m.t, fmt.Sprintf("%s %s", op, path), err.Error(), says...)
	return err.Error()
}

// rejects checks that a write is answered with status 400.
func (m *mount) rejects(path string, data fields, says ...string) string {
	m.t.Helper()
	return m.refused(http.StatusBadRequest, logical.UpdateOperation, path, data, says...)
}

// missing checks that a read is answered with status 404.
func (m *mount) missing(path string, says ...string) string {
	m.t.Helper()
	return m.refused(http.StatusNotFound, logical.ReadOperation, path, nil, says...)
}

// readOnly checks that a node leaves a request to the active node.
func (m *mount) readOnly(op logical.Operation, path string, data fields) {
	m.t.Helper()
	if _, err := m.do(op, path, data); err != logical.ErrReadOnly {
		m.t.Errorf("%s %s: %v; want logical.ErrReadOnly, bare", op, path, err)
	}
}

// configure writes config/weather for a client of as, without a request to as.
func (m *mount) configure(as *authServer, changes fields) {
	m.t.Helper()
	m.write("config/weather", with(with(as.client(), fields{"verify": false}), changes))
}

// newConfigured mounts, and configures weather.
func newConfigured(t *testing.T) (*authServer, *mount) {
	t.Helper()
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	return as, m
}

// edit changes the stored config of a server while the mount is stopped.
func (m *mount) edit(server string, change func(*config)) {
	m.t.Helper()
	m.stop()
	c := m.config(server)
	change(c)
	noError(m.t, m.store().putConfig(m.t.Context(), server, c))
	m.start()
}

// stash stores a token of this age, so that tests need not wait for a token to age.
func (m *mount) stash(name tokens.Name, accessToken string, age, lifetime time.Duration) {
	m.t.Helper()
	issued := time.Now().Add(-age)
	m.stashToken(name, &tokens.Token{
		AccessToken: accessToken, Issued: issued, Expires: issued.Add(lifetime), RefreshAt: issued.Add(lifetime / 2),
	})
}

// stashToken stores a token with the shape of the name's config and role.
func (m *mount) stashToken(name tokens.Name, token *tokens.Token) {
	m.t.Helper()
	token.Shape = must(m.store().Terms(m.t.Context(), name))(m.t).Shape
	noError(m.t, m.store().Save(m.t.Context(), name, token))
}

// overHTTP returns data as JSON delivers it: numbers are json.Number, and lists and maps are untyped.
func overHTTP(t *testing.T, data fields) fields {
	t.Helper()
	var arrived fields
	text, err := json.Marshal(data)
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		err = decoder.Decode(&arrived)
	}
	if err != nil {
		t.Error(err)
	}
	return arrived
}

// Each secret and access token in the tests holds a mark. Keys and JWTs are recognized by their first characters.
const (
	secretMark = "s3cret"
	tokenMark  = "t0ken"
	keyMark    = "PRIVATE KEY-----\n" // as plain text
	jsonMark   = `PRIVATE KEY-----\n` // as a JSON string
	jwtMark    = "eyJhbGciOi"         // {"alg":
	secret     = "the-" + secretMark + "-of-the-client"
)

func checkSecretFree(t *testing.T, what, text string) {
	t.Helper()
	for _, mark := range []string{secretMark, tokenMark, keyMark, jsonMark, jwtMark} {
		if at := strings.Index(text, mark); at >= 0 {
			t.Errorf("%s holds a secret: ...%s...", what, text[max(0, at-100):min(len(text), at+100)])
		}
	}
}

func tokensOf(server, role string) tokens.Name { return tokens.Name{Server: server, Role: role} }

// TestMain sets a proxy that does not exist, so that requests cannot leave loopback. Go reads these variables once.
func TestMain(m *testing.M) {
	const none = "http://127.0.0.1:1"
	for name, value := range map[string]string{"HTTP_PROXY": none, "HTTPS_PROXY": none, "NO_PROXY": "", "no_proxy": ""} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	m.Run()
}

// testStorage is a mount's storage that counts and can fail.
type testStorage struct {
	logical.InmemStorage

	calls   atomic.Int64
	trouble atomic.Pointer[trouble]
	// before is called with each call, in the form of fail's arguments. It is set before the mount starts.
	before func(call string)

	mu       sync.Mutex // guards the fields below
	failing  []string   // calls to fail: "put token/" is each put of a key with this prefix, "get" is each get
	afterGet func()     // called after the next get
	late     []func()   // puts and deletes that failed and take effect later
}

// errStorage is the error of a failing call. Storage errors cross the plugin boundary as plain text.
var errStorage = errors.New("storage is out of order")

// errUnheard is the error of a put or a delete that took effect although it failed.
var errUnheard = fmt.Errorf("%w, after it was done", errStorage)

// errLate is the error of a put or a delete that takes effect later, before all calls after it.
var errLate = fmt.Errorf("%w, and is done late", errStorage)

// trouble selects the failing calls, counted from 1, and how they fail.
type trouble struct {
	at      int64 // the failing call
	lasting bool  // every later call fails too
	done    bool  // puts and deletes take effect, and only the answer is lost
	hanging bool  // the call lasts until its context ends; with done it takes effect later

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

// fail makes exactly these calls fail from now on.
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

// meanwhile calls do after the next get, before the get returns.
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

// entries returns the stored entries by key.
func (s *testStorage) entries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, key := range must(logical.CollectKeys(t.Context(), &s.InmemStorage))(t) {
		all[key] = string(must(s.InmemStorage.Get(t.Context(), key))(t).Value)
	}
	return all
}

// unchanged checks that the stored entries are as before.
func (s *testStorage) unchanged(t *testing.T, was map[string]string) {
	t.Helper()
	if is := s.entries(t); !maps.Equal(is, was) {
		t.Errorf("storage changed:\nit was %q\nit is  %q", was, is)
	}
}

// testSystem counts the calls to Vault's system view. Methods that are not defined here panic.
type testSystem struct {
	logical.SystemView

	state atomic.Uint32 // holds a consts.ReplicationState
	calls atomic.Int64
	// before is called with the name of each called method. It is set before the mount starts.
	before func(call string)
}

func inState(state consts.ReplicationState) *testSystem {
	s := &testSystem{}
	s.becomes(state)
	return s
}

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

// Setup calls GetConsumptionBillingManager once.
func (s *testSystem) GetConsumptionBillingManager() logical.ConsumptionBillingManager {
	s.call("GetConsumptionBillingManager")
	return nil
}

// The OpenAPI document needs PluginEnv.
func (s *testSystem) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	s.call("PluginEnv")
	return &logical.PluginEnvironment{VaultVersion: "1.21.1"}, nil
}

func (s *testSystem) LocalMount() bool {
	s.call("LocalMount")
	return false
}

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

// mcpServer is an MCP server on loopback whose metadata (RFC 9728) names its authorization servers.
type mcpServer struct {
	*httptest.Server

	mu      sync.Mutex // guards the fields below
	issuers []string   // authorization_servers
	more    fields     // of its metadata
	calls   int
}

// newMCPServer starts an MCP server that accepts tokens of as, and makes as discoverable.
func newMCPServer(t *testing.T, as *authServer, metadata fields) *mcpServer {
	t.Helper()
	as.describes(metadata)
	s := &mcpServer{issuers: []string{as.URL}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// wants makes the metadata name another authorization server instead.
func (s *mcpServer) wants(as *authServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuers = []string{as.URL}
}

// says adds to the server's metadata.
func (s *mcpServer) says(more fields) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more = more
}

func (s *mcpServer) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *mcpServer) url() string { return s.URL + "/mcp" }

func (s *mcpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	const wellKnown = "/.well-known/oauth-protected-resource"
	if !strings.HasPrefix(r.URL.Path, wellKnown) {
		w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="`+s.URL+wellKnown+`/mcp"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_ = json.NewEncoder(w).Encode(with(fields{"resource": s.url(), "authorization_servers": s.issuers}, s.more))
}

// client is the shortest config of a client for the server.
func (s *mcpServer) client() fields {
	return fields{"server_url": s.url(), "client_id": "vault", "client_secret": secret}
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
