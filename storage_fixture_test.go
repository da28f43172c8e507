package mcpoauth

import (
	"bytes"
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
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

// storedForms has a directory for each schema. Each file holds a stored entry and is named by its key.
const storedForms = "testdata/storage"

// fixtureEnd is the expiry of the fixtures' certificates and tokens.
var fixtureEnd = time.Date(2126, time.January, 1, 0, 0, 0, 0, time.UTC)

// fixtureTokens are the names with a token in the fixtures.
var fixtureTokens = []string{"secret", "secret/reader", "discovered"}

// fixture returns the stored entries of a schema by key.
func fixture(t *testing.T, schema int) map[string]string {
	t.Helper()
	entries := map[string]string{}
	root := filepath.Join(storedForms, fmt.Sprintf("v%d", schema))
	noError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			key, _ := strings.CutPrefix(filepath.ToSlash(path), root+"/")
			entries[strings.TrimSuffix(key, ".json")] = readText(t, path)
		}
		return err
	}))
	return entries
}

// writeOneOfEach writes the entries of the fixtures: a config for each kind of credentials with all its fields, a
// discovered config, roles, and tokens.
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
	m.edit("secret", func(c *config) {
		c.Published = &published{
			ServerURL: c.ServerURL, Scopes: []string{"forecast:read"}, Resource: "https://weather.example.com/",
			Warning: "as it was", At: fixtureEnd,
		}
	})
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
	for _, name := range fixtureTokens {
		server, role, _ := strings.Cut(name, "/")
		m.stashToken(tokensOf(server, role), &tokens.Token{
			AccessToken: tokenMark + "-of-" + name, Scope: "forecast:read", Repeats: 1,
			Issued: fixtureEnd.AddDate(-106, 0, 0), Expires: fixtureEnd, RefreshAt: fixtureEnd.AddDate(-1, 0, 0),
		})
	}
	noError(t, m.store().put(t.Context(), provedPrefix+"secret", storedProof{Proof: "ID/"}))
}

// mountFixture mounts on the stored entries of a schema.
func mountFixture(t *testing.T, schema int) *mount {
	t.Helper()
	storage := &testStorage{}
	for key, entry := range fixture(t, schema) {
		noError(t, storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(entry)}))
	}
	return newNode(t, storage, 0)
}

// text returns a stored string, such as a certificate.
func text(t *testing.T, entry, field string) string {
	t.Helper()
	var stored struct{ Data map[string]any }
	noError(t, json.Unmarshal([]byte(entry), &stored))
	return stored.Data[field].(string)
}

// ofEachSchema runs a test with the stored entries of each schema.
func ofEachSchema(t *testing.T, test func(t *testing.T, of int)) {
	t.Helper()
	for of := range schema {
		t.Run(fmt.Sprint(of+1), func(t *testing.T) { test(t, of+1) })
	}
}

// Entries stored by an earlier version keep their meaning.
func TestEntriesOfEachSchemaAreRead(t *testing.T) { ofEachSchema(t, entriesAreRead) }

func entriesAreRead(t *testing.T, of int) {
	m, stored := mountFixture(t, of), fixture(t, of)
	plain := defaultConfig("https://as.example.com")
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
			equal(t, "jwks_uri of "+server, m.read("keys/" + server)["jwks_uri"], publicURL+"/"+url)
		}
	}
	equal(t, "the configs", m.list("config/"), slices.Sorted(maps.Keys(configs)))
	for server, want := range configs {
		sameFields(t, m.read("config/"+server), want)
	}
	equal(t, "the roles", m.list("role/secret/"), []string{"bare", "other", "reader"})
	for role, want := range map[string]fields{
		"bare":   with(defaultRole(), fields{"omit_resource": true}),
		"reader": with(defaultRole(), fields{"scopes": []string{"forecast:read"}}),
		"other": {
			"scopes": []string{"other"}, "resource": []string{"https://other.example.com/"}, "omit_resource": false,
			"audience": "other", "extra_params": map[string]string{"tenant": "south"},
		},
	} {
		sameFields(t, m.read("role/secret/"+role), want)
	}

	for _, name := range fixtureTokens {
		shows(t, m.read("token/"+name), fields{
			"access_token": tokenMark + "-of-" + name, "scope": "forecast:read",
			"expires_at": "2126-01-01T00:00:00Z", "last_vault_rotation": "2020-01-01T00:00:00Z",
		})
		shows(t, m.read("status/"+name), fields{"state": "ok", "next_rotation": "2125-01-01T00:00:00Z"})
	}
	shows(t, m.read("status/client-certificate"), fields{"state": "empty", "client_certificate_expires_at": "2126-01-01T00:00:00Z"})

	for server, verified := range map[string]bool{"secret": of > 1, "discovered": of > 1, "operator-key": false} {
		status := m.read("status/" + server)
		equal(t, server+": credentials_verified", status["credentials_verified"], verified)
		equal(t, server+": a time of writing", status["credentials_written_at"] == "2026-03-01T12:00:00Z", of > 1)
	}

	operators, data := m.keys("operator-key")
	equal(t, "the operator's key", operators, []string{"named"})
	equal(t, "the operator's key set", keyIDs(t, m.jwks("operator-key")), operators)
	equal(t, "the active key", data["active_key_id"], "named")
	const first, second = "tPFQpaGKh-5D1yVOzjUtr4yLcZlYr5Yu0Ndl9Gdq_w0", "yRdVYQlb25yf6U6LT7Flfk1fkHvNou_zH5X8Bv3G6MM"
	rotated, data := m.keys("made-key")
	equal(t, "the made keys", rotated, []string{first, second})
	equal(t, "the made key set", keyIDs(t, m.jwks("made-key")), rotated)
	shows(t, data, fields{"active_key_id": first, "next_key_id": second, "next_key_active_at": "2125-01-01T00:00:00Z"})
	m.unpublished("secret", "client-certificate", "discovered")
}

// Entries stored by an earlier version lead to the same requests.
func TestEntriesOfEachSchemaAskAsTheyDid(t *testing.T) { ofEachSchema(t, entriesAsk) }

func entriesAsk(t *testing.T, of int) {
	m := mountFixture(t, of)
	request := func(server, role string) *grant.Request {
		t.Helper()
		c, r, err := m.store().effective(t.Context(), tokensOf(server, role))
		noError(t, err)
		return must(c.request(r))(t)
	}
	ofSecret := grant.ClientSecretBasic
	if of == 1 {
		ofSecret = grant.ClientSecretPost
	}
	const tokenURL = "https://as.example.com/token"
	scopes, resources := []string{"forecast:read", "forecast:write"}, []string{"https://a.example.com/", "urn:example:b"}
	params := map[string]string{"tenant": "north", "empty": ""}
	for _, test := range []struct {
		server, role      string
		url               string
		method            grant.AuthMethod
		scopes, resources []string
		audience          string
		extra             map[string]string
	}{
		{"secret", "", tokenURL, ofSecret, scopes, resources, "weather", params},
		{"secret", "reader", tokenURL, ofSecret, scopes[:1], resources, "weather", params},
		{"secret", "bare", tokenURL, ofSecret, scopes, nil, "weather", params},
		{"secret", "other", tokenURL, ofSecret, []string{"other"}, []string{"https://other.example.com/"}, "other", map[string]string{"tenant": "south"}},
		{"operator-key", "", tokenURL, grant.PrivateKeyJWT, nil, nil, "", nil},
		{"made-key", "", tokenURL, grant.PrivateKeyJWT, nil, nil, "", nil},
		{"client-certificate", "", tokenURL, grant.TLSClientAuth, nil, nil, "", nil},
		{"discovered", "", "http://127.0.0.1:8080/token", grant.ClientSecretPost, scopes[:1], []string{"http://127.0.0.1:8081/mcp"}, "", nil},
	} {
		t.Run(strings.TrimSuffix(test.server+" "+test.role, " "), func(t *testing.T) {
			q := request(test.server, test.role)
			equal(t, "the endpoint, client, method and audience", []any{q.TokenURL, q.ClientID, q.AuthMethod, q.Audience},
				[]any{test.url, "vault", test.method, test.audience})
			equal(t, "the scopes", q.Scopes, test.scopes)
			equal(t, "the resources", q.Resources, test.resources)
			equal(t, "the extra parameters", q.ExtraParams, test.extra)
			bySecret := test.method == grant.ClientSecretPost || test.method == ofSecret
			equal(t, "a secret, an assertion, a certificate", []bool{q.ClientSecret == secret, q.Assertion != nil, q.Certificate != nil},
				[]bool{bySecret, test.method == grant.PrivateKeyJWT, test.method == grant.TLSClientAuth})
		})
	}
	a := request("operator-key", "").Assertion
	equal(t, "kid, alg, aud and a certificate", []any{a.Key.ID, a.Key.Alg, a.Audience, a.Certificate != nil},
		[]any{"named", "ES256", "https://as.example.com/", true})
	equal(t, "the audience with a made key", request("made-key", "").Assertion.Audience, tokenURL)
}

// An update of an entry stored by an earlier version keeps the other fields.
func TestEntriesOfEachSchemaAreUpdated(t *testing.T) { ofEachSchema(t, entriesAreUpdated) }

func entriesAreUpdated(t *testing.T, of int) {
	m := mountFixture(t, of)
	for _, server := range m.list("config/") {
		was := m.config(server)
		m.write("config/"+server, fields{"max_ttl": "50m", "verify": false})
		is := m.config(server)
		was.MaxTTL = 50 * time.Minute
		if !is.same(was) || is.Revision == was.Revision {
			t.Errorf("the update of %s changed other fields too", server)
		}
	}
	for _, name := range fixtureTokens {
		m.holds(name, tokenMark+"-of-"+name)
	}
}

// The stored form changes only together with the schema number. Otherwise an older version would read unknown fields
// and drop them at its next write.
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

// A field that is omitted if empty also changes the form, but only entries with the field show it.
func TestEveryStoredFieldIsInTheFixture(t *testing.T) {
	found := map[string]bool{}
	for key, entry := range fixture(t, schema) {
		var stored struct{ Data any }
		noError(t, json.Unmarshal([]byte(entry), &stored))
		kind, _, _ := strings.Cut(key, "/")
		collectKeys(found, kind, stored.Data)
	}
	for kind, stored := range map[string]any{"config": config{}, "role": role{}, "token": storedToken{}, "proved": storedProof{}, "settings": settings{}} {
		for _, field := range storedFields(kind, reflect.TypeOf(stored)) {
			// The tests' answers do not come from a private network.
			if !found[field] && field != "config.discovered.policy.private" {
				t.Errorf("%s is in no entry of the fixture of schema %d: raise schema in storage.go, go on reading the entries of schema %d, whose fixture stays, and add one in %s/v%d that has the field",
					field, schema, schema, storedForms, schema+1)
			}
		}
	}
}

// collectKeys adds the keys of all objects in a JSON value, with their paths.
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

// storedFields returns a type's fields in JSON, with their paths.
func storedFields(at string, kind reflect.Type) []string {
	for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
		kind = kind.Elem()
	}
	if kind.Kind() != reflect.Struct || kind == reflect.TypeFor[time.Time]() {
		return nil
	}
	var all []string
	for i := range kind.NumField() {
		if kind.Field(i).Anonymous { // JSON inlines its fields
			all = append(all, storedFields(at, kind.Field(i).Type)...)
			continue
		}
		name, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
		all = append(all, at+"."+name)
		all = append(all, storedFields(at+"."+name, kind.Field(i).Type)...)
	}
	return all
}

// form returns an entry's JSON with types instead of strings and times, which are random or depend on the date.
func form(t *testing.T, entry string) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader([]byte(entry)))
	decoder.UseNumber()
	var v any
	noError(t, decoder.Decode(&v))
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
