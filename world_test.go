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
	"slices"
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

// with is base with changes.
func with(base, changes fields) fields {
	all := maps.Clone(base)
	maps.Copy(all, changes)
	return all
}

// mount is one mount of the secrets engine on one node, with what Vault has around it.
// It asks as Vault does, and checks of every answer what holds for all of them.
type mount struct {
	t       *testing.T
	b       logical.Backend
	storage *testStorage
	system  *testSystem

	afterCheck func() // happens once, after the next write's existence check; nil for nothing

	mu   sync.Mutex // guards said
	said bytes.Buffer
}

// newMount mounts the secrets engine on empty storage. The test's end unmounts it and
// looks through all that it said for secrets.
func newMount(t *testing.T) *mount {
	t.Helper()
	return newNode(t, &testStorage{}, 0)
}

// newNode mounts the secrets engine on storage that it may share with other nodes.
func newNode(t *testing.T, storage *testStorage, state consts.ReplicationState) *mount {
	t.Helper()
	return newMountOn(t, storage, inState(state))
}

// newMountOn mounts the secrets engine on storage, and on what it is told of the node.
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

// start is what Vault does to mount: at first, after a restart, on a node that becomes
// active.
func (m *mount) start() {
	m.t.Helper()
	b, err := Factory(m.t.Context(), &logical.BackendConfig{
		StorageView: m.storage,
		Logger:      hclog.New(&hclog.LoggerOptions{Output: m, Level: hclog.Trace}),
		System:      m.system,
		BackendUUID: "mount",
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := b.Initialize(m.t.Context(), &logical.InitializationRequest{Storage: m.storage}); err != nil {
		m.t.Fatal(err)
	}
	m.b = b
}

// stop is what Vault does to unmount. Twice does no harm.
func (m *mount) stop() { m.b.Cleanup(m.t.Context()) }

// store gives the mount's storage in the plugin's own types.
func (m *mount) store() store { return store{storage: m.storage, proofs: &proofs{}} }

// Write keeps what was said, for the mount's end. It is the log's output.
func (m *mount) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.said.Write(p)
}

// do asks as Vault does: a write is preceded by the existence check, which makes it a
// create or an update.
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
			m.t.Errorf("%s %s: a response beside the error, which Vault makes a 400 of: %v", op, path, resp)
		}
		return nil, m.noted(err)
	}
	if resp.IsError() { // the framework's own, of a field's type
		return nil, m.noted(logical.CodedError(http.StatusBadRequest, resp.Error().Error()))
	}
	m.check(req, resp)
	return resp, nil
}

// existenceError is what Vault makes of an error of the existence check.
func existenceError(err error) error {
	if _, isUser := errors.AsType[errutil.UserError](err); isUser {
		return logical.CodedError(http.StatusBadRequest, err.Error())
	}
	return logical.CodedError(http.StatusInternalServerError, err.Error())
}

// noted keeps an error's text for the mount's end.
func (m *mount) noted(err error) error {
	_, _ = m.Write([]byte(err.Error() + "\n"))
	return err
}

// check checks what holds for every successful answer.
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
	// Of a raw body see jwks.
	if !strings.HasPrefix(req.Path, tokenPrefix) && !isPublic(req.Path) {
		all, err := json.Marshal(resp)
		if err != nil {
			m.t.Fatal(err)
		}
		checkSecretFree(m.t, "the answer to "+req.Path, string(all))
	}
}

// write writes, and gives the warnings.
func (m *mount) write(path string, data fields) []string {
	m.t.Helper()
	resp, err := m.do(logical.UpdateOperation, path, data)
	if err != nil {
		m.t.Fatalf("write %s: %v", path, err)
	}
	if resp == nil {
		return nil
	}
	return resp.Warnings
}

// read reads.
func (m *mount) read(path string) fields {
	m.t.Helper()
	return m.data(logical.ReadOperation, path, nil)
}

// refresh writes to refresh/, and gives the answer.
func (m *mount) refresh(name string, data fields) fields {
	m.t.Helper()
	return m.data(logical.UpdateOperation, "refresh/"+name, data)
}

func (m *mount) data(op logical.Operation, path string, data fields) fields {
	m.t.Helper()
	resp, err := m.do(op, path, data)
	if err != nil || resp == nil {
		m.t.Fatalf("%s %s: %v, %v", op, path, resp, err)
	}
	return resp.Data
}

// list lists; an empty list is nil.
func (m *mount) list(path string) []string {
	m.t.Helper()
	keys, _ := m.data(logical.ListOperation, path, nil)["keys"].([]string)
	return keys
}

// delete deletes.
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

// holds checks which access token is read.
func (m *mount) holds(name, want string) {
	m.t.Helper()
	if got := m.token(name); got != want {
		m.t.Errorf("the token of %s is %q; want %q", name, got, want)
	}
}

// config is the stored config of a server.
func (m *mount) config(server string) *config {
	m.t.Helper()
	c, err := m.store().config(m.t.Context(), server)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// refused asks what is to be refused with an HTTP status and words that say why. The
// error must be bare: a wrapped one crosses the plugin boundary as a 500.
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
	for _, say := range says {
		if !strings.Contains(err.Error(), say) {
			m.t.Errorf("%s %s: %q does not say %q", op, path, err, say)
		}
	}
	return err.Error()
}

// readOnly asks what this node must have forwarded.
func (m *mount) readOnly(op logical.Operation, path string, data fields) {
	m.t.Helper()
	if _, err := m.do(op, path, data); err != logical.ErrReadOnly {
		m.t.Errorf("%s %s: %v; want logical.ErrReadOnly, bare", op, path, err)
	}
}

// configure writes config/weather for a client of as, which it asks nothing.
func (m *mount) configure(as *authServer, changes fields) {
	m.t.Helper()
	m.write("config/weather", with(with(as.client(), fields{"verify": false}), changes))
}

// stash puts a token of a name into storage as if it had been obtained some time ago,
// so that no test has to wait for a token to age.
func (m *mount) stash(name tokens.Name, accessToken string, age, lifetime time.Duration) {
	m.t.Helper()
	terms, err := m.store().Terms(m.t.Context(), name)
	if err != nil {
		m.t.Fatal(err)
	}
	issued := time.Now().Add(-age)
	err = m.store().Save(m.t.Context(), name, &tokens.Token{
		AccessToken: accessToken,
		Shape:       terms.Shape,
		Issued:      issued,
		Expires:     issued.Add(lifetime),
		RefreshAt:   issued.Add(lifetime / 2),
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// overHTTP is data as it arrives after a way through JSON: numbers are json.Number, and
// lists and maps have no types.
func overHTTP(t *testing.T, data fields) fields {
	t.Helper()
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	var arrived fields
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&arrived); err != nil {
		t.Fatal(err)
	}
	return arrived
}

// Every secret and every access token of the tests holds its mark; of keys, assertions
// and tokens in the form of a JWT the form is the mark.
const (
	secretMark = "s3cret"
	tokenMark  = "t0ken"
	keyMark    = "PRIVATE KEY-----\n" // as a text
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

// equal compares two lists, of which nil is an empty one.
func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q; want %q", what, got, want)
	}
}

// tokensOf is the name of a role.
func tokensOf(server, role string) tokens.Name { return tokens.Name{Server: server, Role: role} }

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
	header       http.Header
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

// mcpServer is an MCP server on loopback that wants tokens of an authorization server,
// and says so (RFC 9728).
type mcpServer struct {
	*httptest.Server

	mu      sync.Mutex // guards the fields below
	issuers []string   // authorization_servers
	more    fields     // of its metadata
	calls   int
}

// newMCPServer starts an MCP server that wants tokens of as, which becomes
// discoverable.
func newMCPServer(t *testing.T, as *authServer, metadata fields) *mcpServer {
	t.Helper()
	as.describes(metadata)
	s := &mcpServer{issuers: []string{as.URL}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// wants makes the server want tokens of another authorization server.
func (s *mcpServer) wants(as *authServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuers = []string{as.URL}
}

// says sets more of the server's metadata.
func (s *mcpServer) says(more fields) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more = more
}

// called is the number of requests that came.
func (s *mcpServer) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// url is the server's URL, as its clients call it.
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

// client is the config of a client of the server: what an operator has at hand.
func (s *mcpServer) client() fields {
	return fields{"server_url": s.url(), "client_id": "vault", "client_secret": secret}
}

// describes makes the server discoverable: its metadata names its issuer and its token
// endpoint, and what more says; a nil there leaves a member out.
func (as *authServer) describes(more fields) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.metadata = with(fields{"issuer": as.URL, "token_endpoint": as.URL + "/token"}, more)
	maps.DeleteFunc(as.metadata, func(_ string, value any) bool { return value == nil })
}

// looked is the number of requests for the metadata.
func (as *authServer) looked() int {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.looks
}

// serveMetadata answers requests at RFC 8414's well-known URL; not OpenID's.
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
