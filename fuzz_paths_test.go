package mcpoauth

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// FuzzPaths makes several requests: any operation at any path, with any fields of any type, while storage may fail.
// It checks that nothing panics, that only failing storage causes a 500, that errors, logs and answers hold no
// secret, that stored entries stay readable, and that a config outside the requests does not change.
func FuzzPaths(f *testing.F) {
	w := newFuzzWorld(f)
	for _, seed := range fuzzSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, mark := range []string{secretMark, tokenMark, keyMark, jwtMark, "stable"} {
			if bytes.Contains(data, []byte(mark)) {
				t.Skip("holds a mark of secrets, or the name that no request may have")
			}
		}
		m := w.mount(t)
		was := stable(t, m)
		for in := (&input{rest: data}); len(in.rest) > 0; {
			w.ask(m, in)
			storable(m)
		}
		m.storage.fail()
		if is := stable(t, m); !maps.Equal(is, was) {
			t.Errorf("a config that no request names changed:\nit was %q\nit is  %q", was, is)
		}
		for _, server := range m.list("config/") {
			m.read("config/" + server)
			m.read("status/" + server)
		}
		m.restart()
		m.holds("stable", tokenMark+"-of-stable")
	})
}

// stable returns the entries of the config outside the requests.
func stable(t *testing.T, m *mount) map[string]string {
	t.Helper()
	entries := m.storage.entries(t)
	maps.DeleteFunc(entries, func(key, _ string) bool { return !strings.Contains(key, "stable") })
	if len(entries) != 4 {
		t.Fatalf("the config outside the requests has %q", slices.Collect(maps.Keys(entries)))
	}
	return entries
}

// fuzzWorld is shared by all mounts of one run: servers on loopback, and the initial storage entries of a mount.
type fuzzWorld struct {
	plain, tls *httptest.Server
	stored     map[string]string
	fields     []string         // of all paths
	values     map[string][]any // well-formed values, by field
	bases      []fields         // the starting points of writes
}

func newFuzzWorld(f *testing.F) *fuzzWorld {
	f.Helper()
	w := &fuzzWorld{fields: apiFields()}
	w.plain = httptest.NewServer(http.HandlerFunc(serveAnything))
	f.Cleanup(w.plain.Close)
	w.tls = httptest.NewUnstartedServer(http.HandlerFunc(serveAnything))
	w.tls.Config.ErrorLog = log.New(io.Discard, "", 0) // for failing handshakes
	w.tls.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	w.tls.StartTLS()
	f.Cleanup(w.tls.Close)
	return w
}

func apiFields() []string {
	var all []string
	for _, path := range newBackend(nil, store{}).Paths {
		all = slices.AppendSeq(all, maps.Keys(path.Fields))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// serveAnything acts as an authorization server and an MCP server, depending on the path.
func serveAnything(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	user, password, _ := r.BasicAuth()
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	here := scheme + r.Host
	status, answer := http.StatusOK, fields{
		"access_token": tokenMark + "-granted", "token_type": "Bearer", "expires_in": 3600,
		// The members of both kinds of metadata.
		"issuer": here, "token_endpoint": here + "/token",
		"resource": here + "/mcp", "authorization_servers": []string{here}, "scopes_supported": []string{"a"},
	}
	switch r.URL.Path {
	case "/refused":
		status, answer = http.StatusUnauthorized, fields{"error": "invalid_client", "error_description": "who are you?"}
	case "/echo":
		status, answer = http.StatusBadRequest, fields{
			"error":             "invalid_request",
			"error_description": fmt.Sprintf("%s %s %s %s", user, password, r.Header.Get("Authorization"), body),
			"error_uri":         password,
		}
	case "/down":
		status = http.StatusServiceUnavailable
	case "/odd":
		answer = fields{"access_token": []any{nil}, "expires_in": "soon", "token_endpoint": 5, "issuer": fields{}}
	case "/short":
		answer["expires_in"] = 1
	}
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(answer)
}

// mount returns a mount with a few configs, roles and tokens.
func (w *fuzzWorld) mount(t *testing.T) *mount {
	t.Helper()
	if w.stored == nil {
		w.prepare(t)
	}
	storage := &testStorage{}
	for key, value := range w.stored {
		noError(t, storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}))
	}
	return newNode(t, storage, 0)
}

// prepare makes the entries of all mounts, and the parts of the requests.
func (w *fuzzWorld) prepare(t *testing.T) {
	t.Helper()
	certificate, key := certificateAndKey(t)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.tls.Certificate().Raw}))
	token := w.plain.URL + "/token"
	signing := fields{"token_url": token, "client_id": "vault", "private_key": key, "publish_jwks": true}
	made := fields{"token_url": token, "client_id": "vault", "key_type": "ed25519", "publish_jwks": true}
	trusting := fields{"token_url": token, "identity": "issuer", "key_type": "ec-p256", "resource": "urn:a:b"}
	w.bases = []fields{
		nil,
		{"token_url": token, "client_id": "vault", "client_secret": secret},
		{"server_url": w.plain.URL + "/mcp", "client_id": "vault", "client_secret": secret},
		{"issuer": w.plain.URL, "client_id": "vault", "client_secret": secret},
		signing,
		made,
		{"token_url": w.tls.URL + "/token", "client_id": "vault", "ca_cert": ca, "client_certificate": certificate, "client_certificate_key": key},
		trusting,
	}
	urls := []any{
		token, w.plain.URL, w.plain.URL + "/mcp", w.plain.URL + "/refused", w.plain.URL + "/echo", w.plain.URL + "/down",
		w.plain.URL + "/odd", w.plain.URL + "/short", w.tls.URL + "/token", "http://127.0.0.1:1/", "https://as.invalid/", "http://[::1]:1/", "//", "#",
	}
	w.values = map[string][]any{
		"server_url":                 urls,
		"issuer":                     urls,
		"token_url":                  urls,
		"assertion_audience":         append([]any{"issuer", "token_endpoint"}, urls...),
		"client_id":                  {"vault", "ümlaut", "a:b", "a\nb"},
		"raw_basic_auth":             {true, false},
		"token_endpoint_auth_method": {"client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth", "none"},
		"client_secret":              {secret, secret + "&=%+ \"", secret + "\n"},
		"private_key":                {key, key[:len(key)/2], key + key, key + certificate},
		"client_certificate_key":     {key, key[1:]},
		"key_type":                   {"ed25519", "ec-p256", "rsa-1"}, // an RSA key is slow to make
		"key_id":                     {"k", "ü", "thumbprint"},
		"assertion_type":             {"JWT", "client-authentication+jwt", "at+jwt"},
		"assertion_claims":           {"a=b", fields{"a": []any{1}}, fields{"iss": "x"}, []any{"a=b", "a=c"}, `{"a":1}`, `{`},
		"signing_alg":                {"ES256", "EdDSA", "RS256", "none"},
		"certificate":                {certificate, certificate + certificate, ca},
		"client_certificate":         {certificate, ca, certificate[:len(certificate)/2]},
		"ca_cert":                    {ca, certificate},
		"scopes":                     {"a b", []any{"a", "b"}, "a,b\tc", `"`, numbered(101)},
		"resource":                   {urls[0], []any{urls[1], "urn:a:b"}, "relative", numberedURLs(101)},
		"audience":                   {"a", "\x00"},
		"extra_params":               {"a=b", fields{"a": "b", "": "c"}, fields{"client_secret": "x"}, []any{"a=b", "c=d"}, "a"},
		"extra_headers":              {"x-key=" + secret, fields{"x-key": secret, "X-Key": secret}, []any{"x-key"}, fields{"host": "x"}, `{"x-key":"a","x-key":"b"}`},
		"token_id":                   {"0123456789abcdef", "0123456789ABCDEF"},
		"identity":                   {"issuer", "document", "static", "x"},
		"grant":                      {"jwt_bearer", "client_credentials", "x"},
		"assertion_subject":          {"agent", "ü", "a\nb", publicURL + "/issuer/a"},
		"public_url":                 append([]any{publicURL, publicURL + "/", publicURL + "/../x"}, urls...),
		"activate_after":             {"5m", "300", 299, "30d", "1e3"},
	}
	for _, duration := range []string{"default_ttl", "max_ttl", "idle_timeout", "request_timeout", "assertion_ttl"} {
		w.values[duration] = []any{"1s", 5, "500ms", "-1s", "0", "9223372036854775807", "1h1m"}
	}

	m := newMount(t)
	unverified := fields{"verify": false}
	m.write("config/stable", with(w.bases[1], unverified))
	m.write("role/stable/reader", with(fields{"scopes": "a"}, unverified))
	m.stash(tokens.Name{Server: "stable"}, tokenMark+"-of-stable", 0, 24*time.Hour)
	m.stash(tokensOf("stable", "reader"), tokenMark+"-of-reader", 0, 24*time.Hour)
	m.write("config/weather", with(w.bases[1], unverified))
	m.write("role/weather/reader", with(fields{"scopes": "a", "audience": "b"}, unverified))
	m.write("config/found", w.bases[2])
	m.write("config/keyed", with(signing, unverified))
	m.write("config/made", with(made, unverified))
	m.write("settings", fields{"public_url": publicURL})
	m.write("config/trusting", with(trusting, unverified))
	w.stored = m.storage.entries(t)
}

// fuzzOperations are all operations, and an unknown one.
var fuzzOperations = []logical.Operation{
	logical.UpdateOperation, logical.ReadOperation, logical.CreateOperation, logical.DeleteOperation, logical.ListOperation,
	logical.HelpOperation, logical.PatchOperation, logical.AliasLookaheadOperation, logical.ResolveRoleOperation,
	logical.RevokeOperation, logical.RenewOperation, logical.RollbackOperation, logical.RotationOperation,
	logical.HeaderOperation, "", "recover",
}

// fuzzPaths are the paths, with S for a server and R for a role. The empty path stands for any bytes.
var fuzzPaths = []string{
	"config/S", "role/S/R", "token/S", "token/S/R", "refresh/S", "refresh/S/R", "keys/S", "keys/S/rotate", "jwks/S", "settings",
	"issuer/S/jwks", "issuer/S/.well-known/openid-configuration", "client/S",
	"status/S", "status/S/R", "config/", "role/S/", "status/", "config/S/", "metrics", "",
}

// fuzzNames are names of servers and roles. The empty name stands for any bytes.
var fuzzNames = []string{"weather", "found", "keyed", "made", "trusting", "reader", "new", "rotate", "a..b", strings.Repeat("n", 257), ""}

// input holds the remaining bytes from which requests are made. After its end, it yields zeros.
type input struct{ rest []byte }

func (in *input) byte() byte {
	if len(in.rest) == 0 {
		return 0
	}
	b := in.rest[0]
	in.rest = in.rest[1:]
	return b
}

// below returns a number below n.
func (in *input) below(n int) int { return int(in.byte()) % n }

// text returns up to 63 bytes.
func (in *input) text() string {
	n := min(in.below(64), len(in.rest))
	text := string(in.rest[:n])
	in.rest = in.rest[n:]
	return text
}

func (in *input) name() string {
	if name := fuzzNames[in.below(len(fuzzNames))]; name != "" {
		return name
	}
	return in.text()
}

// value returns a value for a field: a well-formed one, or any JSON.
func (w *fuzzWorld) value(in *input, field string) any {
	known := w.values[field]
	switch kind := in.below(16); {
	case kind < 4 && len(known) > 0:
		return known[in.below(len(known))]
	case kind == 4 && len(known) > 0:
		return []any{known[in.below(len(known))]}
	case kind == 5 && len(known) > 0:
		return fields{"a": []any{known[in.below(len(known))]}}
	case kind < 7:
		return in.text()
	case kind == 7:
		return in.byte()%2 == 0
	case kind == 8:
		return int64(in.byte()) << in.below(56)
	case kind == 9:
		return json.Number(fmt.Sprintf("%d.%de%d", in.byte(), in.byte(), in.byte()))
	case kind == 10:
		return []any{in.text(), in.text()}
	case kind == 11:
		return fields{in.text(): in.text()}
	case kind == 12:
		return []any{fields{in.text(): []any{nil, 1, in.text()}}}
	case kind == 13:
		return fields{in.text(): fields{in.text(): nil}}
	case kind == 14:
		return strings.Repeat(in.text(), 1<<in.below(14))
	default:
		return nil
	}
}

func (w *fuzzWorld) ask(m *mount, in *input) {
	m.t.Helper()
	var op logical.Operation = logical.UpdateOperation // updates have the most code, so they are chosen most often
	if n := in.below(2 * len(fuzzOperations)); n < len(fuzzOperations) {
		op = fuzzOperations[n]
	}
	path := fuzzPaths[in.below(len(fuzzPaths))]
	if path == "" {
		path = in.text()
	}
	name := in.name()
	if c, err := m.store().config(m.t.Context(), name); isPublic(path) && err == nil && c.publishes() {
		name = c.publicID(name)
	}
	path = strings.Replace(path, "S", name, 1)
	path = strings.Replace(path, "R", in.name(), 1)
	data := with(fields{}, w.bases[in.below(len(w.bases))])
	for range in.below(6) {
		field := w.fields[in.below(len(w.fields))]
		if in.byte() > 250 {
			field = in.text() // unknown
		}
		data[field] = w.value(in, field)
	}
	m.storage.fail()
	fails := in.below(64) >= 60
	if fails {
		m.storage.fail([]string{"get", "put", "delete", "list"}[in.below(4)])
	}

	err := w.do(m, op, path, data)
	coded, isCoded := err.(logical.HTTPCodedError)
	switch {
	case err == nil, err == logical.ErrUnsupportedPath, err == logical.ErrUnsupportedOperation:
	case isCoded && slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusBadGateway}, coded.Code()):
	case isCoded && coded.Code() == http.StatusConflict && op == logical.CreateOperation: // the config exists
	case isCoded && coded.Code() == http.StatusMethodNotAllowed && op == logical.PatchOperation:
	case fails && strings.Contains(err.Error(), errStorage.Error()):
	case op == logical.RevokeOperation || op == logical.RenewOperation: // refused by the framework, as tokens have no lease
	default:
		m.t.Errorf("%s %q with %q: %T: %v", op, path, slices.Sorted(maps.Keys(data)), err, err)
	}
}

// storable checks that Vault's storage accepts the keys of the entries, because it answers others with a 500.
func storable(m *mount) {
	m.t.Helper()
	for key := range m.storage.entries(m.t) {
		if strings.Contains(key, "..") || len(key) > 1000 {
			m.t.Errorf("%q is stored", key)
		}
	}
}

// do makes a request as Vault does. Vault also passes on operations that the path does not define.
func (w *fuzzWorld) do(m *mount, op logical.Operation, path string, data fields) error {
	m.t.Helper()
	if route := m.b.(*backend).Route(path); route != nil && route.Operations[op] != nil {
		_, err := m.do(op, path, data)
		return err
	}
	resp, err := m.b.HandleRequest(m.t.Context(), &logical.Request{
		Operation: op, Path: path, Data: overHTTP(m.t, data), Storage: m.storage,
	})
	if err != nil {
		return m.noted(err)
	}
	if op != logical.HelpOperation && op != logical.RollbackOperation && !resp.IsError() {
		m.t.Errorf("%s %q has an answer, and is not in the API: %v", op, path, resp)
	}
	return nil
}

// fuzzSeeds returns the initial inputs: each path with each operation, the life of a config from each base, and each
// field.
func fuzzSeeds() [][]byte {
	const update, read, remove, list = 0, 1, 3, 4                        // indexes of fuzzOperations
	const weather, made, reader, added, dots, tooLong = 0, 3, 4, 5, 7, 8 // indexes of fuzzNames
	request := func(op, path, server, base int, field ...byte) []byte {
		seed := []byte{byte(op), byte(path), byte(server), reader, byte(base), byte(len(field) / 4)}
		return append(append(seed, field...), 0)
	}
	path := func(example string) int { return slices.Index(fuzzPaths, example) }
	var seeds [][]byte
	for path := range len(fuzzPaths) - 1 {
		var seed []byte
		for op := range list + 1 {
			for base, server := range []int{weather, dots, made, tooLong} {
				seed = append(seed, request(op, path, server, base%2)...)
			}
		}
		seeds = append(seeds, seed)
	}
	for base := range 7 {
		seeds = append(seeds, slices.Concat(
			request(update, path("config/S"), added, base),
			request(read, path("token/S"), added, 0),
			request(update, path("role/S/R"), added, 0),
			request(read, path("token/S/R"), added, 0),
			request(update, path("refresh/S"), added, 0),
			request(update, path("keys/S/rotate"), added, 0),
			request(read, path("jwks/S"), added, 0),
			request(list, path("status/"), added, 0),
			request(remove, path("config/S"), added, 0),
		))
	}
	for field := range apiFields() {
		var seed []byte
		for value := range 14 {
			seed = slices.Concat(seed,
				request(update, path("config/S"), added, 1+field%6, byte(field), 0, 0, byte(value)),
				request(update, path("config/S"), weather, 0, byte(field), 0, byte(4+value%2), byte(value)),
				request(update, path("role/S/R"), weather, 0, byte(field), 0, 0, byte(value)),
			)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}
