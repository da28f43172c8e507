package mcpoauth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
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
