package mcpoauth

import (
	"bytes"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// storedForms holds a directory of stored entries for every schema that there was, each
// entry as it was written then, in a file named by its key.
const storedForms = "testdata/storage"

// fixtureEnd is when the certificates and tokens of the fixtures end.
var fixtureEnd = time.Date(2126, time.January, 1, 0, 0, 0, 0, time.UTC)

// fixture gives the stored entries of a schema, by key.
func fixture(t *testing.T, schema int) map[string]string {
	t.Helper()
	entries := map[string]string{}
	root := filepath.Join(storedForms, fmt.Sprintf("v%d", schema))
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		key, _ := strings.CutPrefix(filepath.ToSlash(path), root+"/")
		entries[strings.TrimSuffix(key, ".json")] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// writeOneOfEach writes what the fixtures are of: a config of each kind of credentials with
// all that goes with them, one that was discovered, roles, and tokens.
func writeOneOfEach(t *testing.T, m *mount) {
	t.Helper()
	as := newAuthServer(t)
	mcp := newMCPServer(t, as, fields{
		"mtls_endpoint_aliases":                            fields{"token_endpoint": as.URL + "/mtls"},
		"token_endpoint_auth_methods_supported":            []string{"client_secret_post", "private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": []string{"RS256"},
		"grant_types_supported":                            []string{"authorization_code"},
	})
	mcp.issuers = append(mcp.issuers, "https://other.example.com")
	mcp.says(fields{"scopes_supported": []string{"forecast:read"}})
	m.write("config/discovered", mcp.client())

	ca, key := newAuthority(t), ecKey(t, elliptic.P256())
	clientCertificate, clientKey := ca.issue(t, "vault", time.Until(fixtureEnd))
	unverified := fields{"client_id": "vault", "token_url": "https://as.example.com/token", "verify": false}
	m.write("config/secret", with(unverified, fields{
		"server_url": "https://weather.example.com/mcp", "issuer": "https://as.example.com/",
		"token_endpoint_auth_method": "client_secret_basic", "client_secret": secret, "raw_basic_auth": true, "extra_headers": "x-api-key=" + secret + "-2",
		"scopes": []string{"forecast:read", "forecast:write"}, "resource": []string{"https://a.example.com/", "urn:example:b"},
		"audience": "weather", "extra_params": fields{"tenant": "north", "empty": ""},
		"default_ttl": 61, "max_ttl": 3600, "idle_timeout": 7200, "request_timeout": 7, "ca_cert": ca.pem,
		"allow_insecure_http": true, "allow_private_addresses": true,
	}))
	m.stashPublished("secret")
	m.write("config/operator-key", with(unverified, fields{
		"issuer": "https://as.example.com/", "private_key": pemOf(t, key), "key_id": "named", "signing_alg": "ES256",
		"certificate": certificateOf(t, key, fixtureEnd), "assertion_audience": "issuer", "publish_jwks": true, "omit_resource": true,
		"assertion_type": "client-authentication+jwt", "assertion_claims": fields{"tenant": "north"},
	}))
	m.write("config/made-key", with(unverified, fields{"key_type": "ec-p256", "publish_jwks": true}))
	m.data(logical.UpdateOperation, "keys/made-key/rotate", nil)
	m.write("settings", fields{"public_url": publicURL})
	m.write("config/issuer", with(unverified, fields{
		"client_id": "", "identity": "issuer", "grant": "jwt_bearer", "key_type": "ec-p256", "assertion_subject": "agent",
		"assertion_ttl": 120, "resource": "https://a.example.com",
	}))
	m.write("config/document", with(unverified, fields{"client_id": "", "identity": "document", "key_type": "ec-p256", "assertion_audience": "https://as.example.com/"}))
	m.write("config/client-certificate", with(unverified, fields{
		"client_certificate": clientCertificate, "client_certificate_key": clientKey, "ca_cert": ca.pem,
	}))
	m.write("role/secret/reader", fields{"scopes": "forecast:read", "verify": false})
	m.write("role/secret/other", fields{
		"scopes": "other", "resource": "https://other.example.com/", "audience": "other", "extra_params": "tenant=south", "verify": false,
	})
	m.write("role/secret/bare", fields{"omit_resource": true, "verify": false})
	m.stashFixture("secret", "secret/reader", "discovered")
	if err := m.store().put(t.Context(), provedPrefix+"secret", storedProof{Proof: "ID/"}); err != nil {
		t.Fatal(err)
	}
}

// stashPublished stores what the MCP server of a config would have said.
func (m *mount) stashPublished(server string) {
	m.t.Helper()
	c, err := m.store().config(m.t.Context(), server)
	if err != nil {
		m.t.Fatal(err)
	}
	c.Published = &published{
		ServerURL: c.ServerURL, Scopes: []string{"forecast:read"}, Resource: "https://weather.example.com/",
		Warning: "as it was", At: fixtureEnd,
	}
	if err := m.store().putConfig(m.t.Context(), server, c); err != nil {
		m.t.Fatal(err)
	}
}

// stashFixture stores tokens of names that are good for long.
func (m *mount) stashFixture(names ...string) {
	m.t.Helper()
	for _, text := range names {
		server, role, _ := strings.Cut(text, "/")
		name := tokensOf(server, role)
		terms, err := m.store().Terms(m.t.Context(), name)
		if err != nil {
			m.t.Fatal(err)
		}
		token := &tokens.Token{
			AccessToken: tokenMark + "-of-" + text, Scope: "forecast:read", Shape: terms.Shape, Repeats: 1,
			Issued: fixtureEnd.AddDate(-106, 0, 0), Expires: fixtureEnd, RefreshAt: fixtureEnd.AddDate(-1, 0, 0),
		}
		if err := m.store().Save(m.t.Context(), name, token); err != nil {
			m.t.Fatal(err)
		}
	}
}

// mountFixture mounts on the stored entries of a schema.
func mountFixture(t *testing.T, schema int) *mount {
	t.Helper()
	storage := &testStorage{}
	for key, entry := range fixture(t, schema) {
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(entry)}); err != nil {
			t.Fatal(err)
		}
	}
	return newNode(t, storage, 0)
}

// text is a stored string, such as a certificate.
func text(t *testing.T, entry, field string) string {
	t.Helper()
	var stored struct{ Data map[string]any }
	if err := json.Unmarshal([]byte(entry), &stored); err != nil {
		t.Fatal(err)
	}
	s, _ := stored.Data[field].(string)
	if s == "" {
		t.Fatalf("%s is not in %s", field, entry)
	}
	return s
}

// ofEachSchema tests with the stored entries of each schema that there was.
func ofEachSchema(t *testing.T, test func(t *testing.T, of int)) {
	t.Helper()
	for of := range schema {
		t.Run(fmt.Sprint(of+1), func(t *testing.T) { test(t, of+1) })
	}
}

// Whoever updates the plugin has these entries stored. They are read by every later
// version, and mean what they meant.
func TestEntriesOfEachSchemaAreRead(t *testing.T) { ofEachSchema(t, entriesAreRead) }

func entriesAreRead(t *testing.T, of int) {
	m, stored := mountFixture(t, of), fixture(t, of)
	plain := with(noCredentials, fields{
		"server_url": "", "issuer": "", "token_url": "https://as.example.com/token", "client_id": "vault",
		"token_endpoint_auth_method": "", "scopes": []string{}, "resource": []string{}, "omit_resource": false, "audience": "",
		"extra_params": map[string]string{}, "extra_headers": []string{}, "default_ttl": int64(300), "max_ttl": int64(0), "idle_timeout": int64(86400),
		"ca_cert": "", "request_timeout": int64(10), "allow_insecure_http": false, "allow_private_addresses": false,
	})
	configs := map[string]fields{
		"secret": with(plain, fields{
			"server_url": "https://weather.example.com/mcp", "issuer": "https://as.example.com/",
			"token_endpoint_auth_method": "client_secret_post", "scopes": []string{"forecast:read", "forecast:write"},
			"resource": []string{"https://a.example.com/", "urn:example:b"}, "audience": "weather",
			"extra_params": map[string]string{"tenant": "north", "empty": ""}, "default_ttl": int64(61), "max_ttl": int64(3600),
			"idle_timeout": int64(7200), "ca_cert": text(t, stored["config/secret"], "ca_cert"), "request_timeout": int64(7),
			"allow_insecure_http": true, "allow_private_addresses": true,
		}),
		"operator-key": with(plain, fields{
			"issuer": "https://as.example.com/", "key_id": "named", "signing_alg": "ES256", "assertion_audience": "issuer",
			"certificate": text(t, stored["config/operator-key"], "certificate"), "publish_jwks": true, "omit_resource": true,
		}),
		"made-key": with(plain, fields{"key_type": "ec-p256", "publish_jwks": true}),
		"client-certificate": with(plain, fields{
			"client_certificate": text(t, stored["config/client-certificate"], "client_certificate"),
			"ca_cert":            text(t, stored["config/client-certificate"], "ca_cert"),
		}),
		"discovered": with(plain, fields{
			"token_url": "", "server_url": "http://127.0.0.1:8081/mcp", "discovered_issuer": "http://127.0.0.1:8080",
			"discovered_token_url": "http://127.0.0.1:8080/token", "discovered_scopes": []string{"forecast:read"}, "discovered_resource": "http://127.0.0.1:8081/mcp",
			"discovered_at": "2026-03-01T12:00:00Z",
		}),
	}
	if of > 1 {
		maps.Copy(configs["secret"], fields{"token_endpoint_auth_method": "client_secret_basic", "raw_basic_auth": true, "extra_headers": []string{"X-Api-Key"}})
		maps.Copy(configs["operator-key"], fields{"assertion_type": "client-authentication+jwt", "assertion_claims": fields{"tenant": "north"}})
		maps.Copy(configs["secret"], fields{
			"discovered_scopes": []string{"forecast:read"}, "discovered_resource": "https://weather.example.com/", "discovered_at": "2026-03-01T12:00:00Z",
		})
	}
	if of > 2 {
		configs["issuer"] = with(plain, fields{
			"client_id": "", "identity": "issuer", "grant": "jwt_bearer", "key_type": "ec-p256", "assertion_subject": "agent",
			"assertion_ttl": int64(120), "resource": []string{"https://a.example.com"},
		})
		configs["document"] = with(plain, fields{
			"client_id": "", "identity": "document", "key_type": "ec-p256", "assertion_audience": "https://as.example.com/",
		})
		for server, url := range map[string]string{"issuer": "issuer/issuer-mfrggzdfmztwq2lj/jwks", "document": "jwks/document-nn3w4zlqovzxi33p"} {
			if got := m.read("keys/" + server)["jwks_uri"]; got != publicURL+"/"+url {
				t.Errorf("the keys of %s are at %v", server, got)
			}
		}
	}
	equal(t, "the configs", m.list("config/"), slices.Sorted(maps.Keys(configs)))
	for server, want := range configs {
		sameFields(t, m.read("config/"+server), want)
	}
	equal(t, "the roles", m.list("role/secret/"), []string{"bare", "other", "reader"})
	none := fields{"scopes": []string{}, "resource": []string{}, "omit_resource": false, "audience": "", "extra_params": map[string]string{}}
	for role, want := range map[string]fields{
		"bare":   with(none, fields{"omit_resource": true}),
		"reader": with(none, fields{"scopes": []string{"forecast:read"}}),
		"other": {
			"scopes": []string{"other"}, "resource": []string{"https://other.example.com/"}, "omit_resource": false,
			"audience": "other", "extra_params": map[string]string{"tenant": "south"},
		},
	} {
		sameFields(t, m.read("role/secret/"+role), want)
	}

	for _, name := range []string{"secret", "secret/reader", "discovered"} {
		token, status := m.read("token/"+name), m.read("status/"+name)
		if token["access_token"] != tokenMark+"-of-"+name || token["scope"] != "forecast:read" ||
			token["expires_at"] != "2126-01-01T00:00:00Z" || token["last_vault_rotation"] != "2020-01-01T00:00:00Z" {
			t.Errorf("the token of %s is %v; want the stored one", name, token)
		}
		if status["state"] != "ok" || status["next_rotation"] != "2125-01-01T00:00:00Z" {
			t.Errorf("the status of %s is %v", name, status)
		}
	}
	if got := m.read("status/client-certificate"); got["state"] != "empty" || got["client_certificate_expires_at"] != "2126-01-01T00:00:00Z" {
		t.Errorf("the status of client-certificate is %v", got)
	}

	for server, verified := range map[string]bool{"secret": of > 1, "discovered": of > 1, "operator-key": false} {
		status := m.read("status/" + server)
		if status["credentials_verified"] != verified || (status["credentials_written_at"] == "2026-03-01T12:00:00Z") != (of > 1) {
			t.Errorf("the credentials of %s are verified: %v, and written at %v", server, status["credentials_verified"], status["credentials_written_at"])
		}
	}

	operators, data := m.keys("operator-key")
	equal(t, "the operator's key", operators, []string{"named"})
	equal(t, "the operator's key set", keyIDs(t, m.jwks("operator-key")), operators)
	if data["active_key_id"] != "named" {
		t.Errorf("keys/operator-key reads %v", data)
	}
	const first, second = "tPFQpaGKh-5D1yVOzjUtr4yLcZlYr5Yu0Ndl9Gdq_w0", "yRdVYQlb25yf6U6LT7Flfk1fkHvNou_zH5X8Bv3G6MM"
	rotated, data := m.keys("made-key")
	equal(t, "the made keys", rotated, []string{first, second})
	equal(t, "the made key set", keyIDs(t, m.jwks("made-key")), rotated)
	if data["active_key_id"] != first || data["next_key_id"] != second || data["next_key_active_at"] != "2125-01-01T00:00:00Z" {
		t.Errorf("keys/made-key reads %v", data)
	}
	m.unpublished("secret", "client-certificate", "discovered")
}

// The requests that the stored entries lead to.
func TestEntriesOfEachSchemaAskAsTheyDid(t *testing.T) { ofEachSchema(t, entriesAsk) }

func entriesAsk(t *testing.T, of int) {
	m := mountFixture(t, of)
	request := func(server, role string) *grant.Request {
		t.Helper()
		c, r, err := m.store().effective(t.Context(), tokensOf(server, role))
		if err != nil {
			t.Fatal(err)
		}
		q, err := c.request(r)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	ofSecret := grant.ClientSecretBasic
	if of == 1 {
		ofSecret = grant.ClientSecretPost
	}
	for _, test := range []struct {
		server, role      string
		url               string
		method            grant.AuthMethod
		scopes, resources []string
		audience          string
		extra             map[string]string
	}{
		{"secret", "", "https://as.example.com/token", ofSecret, []string{"forecast:read", "forecast:write"}, []string{"https://a.example.com/", "urn:example:b"}, "weather", map[string]string{"tenant": "north", "empty": ""}},
		{"secret", "reader", "https://as.example.com/token", ofSecret, []string{"forecast:read"}, []string{"https://a.example.com/", "urn:example:b"}, "weather", map[string]string{"tenant": "north", "empty": ""}},
		{"secret", "bare", "https://as.example.com/token", ofSecret, []string{"forecast:read", "forecast:write"}, nil, "weather", map[string]string{"tenant": "north", "empty": ""}},
		{"secret", "other", "https://as.example.com/token", ofSecret, []string{"other"}, []string{"https://other.example.com/"}, "other", map[string]string{"tenant": "south"}},
		{"operator-key", "", "https://as.example.com/token", grant.PrivateKeyJWT, nil, nil, "", nil},
		{"made-key", "", "https://as.example.com/token", grant.PrivateKeyJWT, nil, nil, "", nil},
		{"client-certificate", "", "https://as.example.com/token", grant.TLSClientAuth, nil, nil, "", nil},
		{"discovered", "", "http://127.0.0.1:8080/token", grant.ClientSecretPost, []string{"forecast:read"}, []string{"http://127.0.0.1:8081/mcp"}, "", nil},
	} {
		t.Run(strings.TrimSuffix(test.server+" "+test.role, " "), func(t *testing.T) {
			q := request(test.server, test.role)
			if q.TokenURL != test.url || q.ClientID != "vault" || q.AuthMethod != test.method || q.Audience != test.audience {
				t.Errorf("the request goes to %s, of %s by %s for %q", q.TokenURL, q.ClientID, q.AuthMethod, q.Audience)
			}
			equal(t, "the scopes", q.Scopes, test.scopes)
			equal(t, "the resources", q.Resources, test.resources)
			if !maps.Equal(q.ExtraParams, test.extra) {
				t.Errorf("the extra parameters are %v; want %v", q.ExtraParams, test.extra)
			}
			bySecret := test.method == grant.ClientSecretPost || test.method == ofSecret
			if (q.ClientSecret == secret) != bySecret || (q.Assertion != nil) != (test.method == grant.PrivateKeyJWT) ||
				(q.Certificate != nil) != (test.method == grant.TLSClientAuth) {
				t.Error("the credentials are others")
			}
		})
	}
	if a := request("operator-key", "").Assertion; a.Key.ID != "named" || a.Key.Alg != "ES256" || a.Audience != "https://as.example.com/" || a.Certificate == nil {
		t.Errorf("the assertion with the operator's key names %q, %s, for %q", a.Key.ID, a.Key.Alg, a.Audience)
	}
	if a := request("made-key", "").Assertion; a.Audience != "https://as.example.com/token" {
		t.Errorf("the assertion with a made key is for %q", a.Audience)
	}
}

// An update of what an earlier version stored keeps all that it does not name.
func TestEntriesOfEachSchemaAreUpdated(t *testing.T) { ofEachSchema(t, entriesAreUpdated) }

func entriesAreUpdated(t *testing.T, of int) {
	m := mountFixture(t, of)
	for _, server := range m.list("config/") {
		was, err := m.store().config(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		m.write("config/"+server, fields{"max_ttl": "50m", "verify": false})
		is, err := m.store().config(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		was.MaxTTL = 50 * time.Minute
		if !is.same(was) || is.Revision == was.Revision {
			t.Errorf("the update of %s changed more than it names", server)
		}
	}
	for _, name := range []string{"secret", "secret/reader", "discovered"} {
		m.holds(name, tokenMark+"-of-"+name)
	}
}

// What is stored has the form of the fixture for as long as it bears its schema: else a
// version that was set back, or a node that is not updated yet, reads what it does not
// understand and writes back the rest.
func TestTheStoredFormChangesWithItsSchemaOnly(t *testing.T) {
	m := newMount(t)
	writeOneOfEach(t, m)
	is, want := m.storage.entries(t), fixture(t, schema)
	equal(t, "the entries", slices.Sorted(maps.Keys(is)), slices.Sorted(maps.Keys(want)))
	for key := range want {
		if got, want := form(t, is[key]), form(t, want[key]); !reflect.DeepEqual(got, want) {
			t.Errorf(`%s is stored as
%v
and schema %d is
%v
Raise schema in storage.go, go on reading the entries of schema %d, whose fixture stays, and add one in %s/v%d.`,
				key, got, schema, want, schema, storedForms, schema+1)
		}
	}
}

// A field that is left out if it is empty changes the form too, and shows in no entry
// that has none.
func TestEveryStoredFieldIsInTheFixture(t *testing.T) {
	found := map[string]bool{}
	for key, entry := range fixture(t, schema) {
		var stored struct{ Data any }
		if err := json.Unmarshal([]byte(entry), &stored); err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(key, "/")
		collectKeys(found, kind, stored.Data)
	}
	for kind, stored := range map[string]any{"config": config{}, "role": role{}, "token": storedToken{}, "proved": storedProof{}, "settings": settings{}} {
		for _, field := range storedFields(kind, reflect.TypeOf(stored)) {
			// Tests are not answered from a private network.
			if !found[field] && field != "config.discovered.policy.private" {
				t.Errorf("%s is in no entry of the fixture of schema %d: raise schema in storage.go, go on reading the entries of schema %d, whose fixture stays, and add one in %s/v%d that has the field",
					field, schema, schema, storedForms, schema+1)
			}
		}
	}
}

// collectKeys adds the keys of a JSON value's objects, each after those it is in.
func collectKeys(found map[string]bool, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for field := range v {
			found[at+"."+field] = true
			collectKeys(found, at+"."+field, v[field])
		}
	case []any:
		for _, item := range v {
			collectKeys(found, at, item)
		}
	}
}

// storedFields are the fields of a type in JSON, each after those it is in.
func storedFields(at string, kind reflect.Type) []string {
	for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
		kind = kind.Elem()
	}
	if kind.Kind() != reflect.Struct || kind == reflect.TypeFor[time.Time]() {
		return nil
	}
	var all []string
	for i := range kind.NumField() {
		if kind.Field(i).Anonymous { // JSON has its fields in place of it
			all = append(all, storedFields(at, kind.Field(i).Type)...)
			continue
		}
		name, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
		all = append(all, at+"."+name)
		all = append(all, storedFields(at+"."+name, kind.Field(i).Type)...)
	}
	return all
}

// form is what an entry's JSON is made of: for strings and times their types, as their
// values are random or depend on the day, and for all else the values too.
func form(t *testing.T, entry string) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader([]byte(entry)))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return formOf(v)
}

func formOf(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for field := range v {
			v[field] = formOf(v[field])
		}
		return v
	case []any:
		for i := range v {
			v[i] = formOf(v[i])
		}
		return v
	case string:
		if _, err := time.Parse(time.RFC3339, v); err == nil {
			return "a time"
		}
		return "a string"
	default:
		return v
	}
}
