package mcpoauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
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
func (m *mount) store() store { return store{storage: m.storage} }

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
	if !strings.HasPrefix(req.Path, tokenPrefix) && !strings.HasPrefix(req.Path, jwksPrefix) {
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
