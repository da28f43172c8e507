package mcpoauth

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// always lists the fields of every status.
var always = []string{
	"credentials_kind", "credentials_verified", "credentials_written_at", "refreshing", "resource", "scopes", "state",
	"token_endpoint_auth_method", "token_url", "unsaved", "warnings",
}

var (
	ofToken   = []string{"expires_at", "last_read", "last_vault_rotation", "next_rotation", "scope", "token_id"}
	ofFailure = []string{"consecutive_failures", "failing_since", "last_error", "last_error_at", "next_attempt"}
)

// hasFields checks that a status has exactly these fields.
func hasFields(t *testing.T, status fields, want ...[]string) {
	t.Helper()
	equal(t, "the fields of the status", slices.Sorted(maps.Keys(status)), slices.Sorted(slices.Values(slices.Concat(want...))))
}

func TestStatusOfAnEmptyName(t *testing.T) {
	as, m := newConfigured(t)
	status := m.read("status/weather")
	hasFields(t, status, always)
	shows(t, status, fields{"state": "empty", "refreshing": false, "unsaved": false})
	as.asked(t, 0, "after a status")
}

// A status shows the parameters of a token request, whether written, discovered or a default.
func TestStatusShowsTheParametersOfTokenRequests(t *testing.T) {
	kinds := map[string][2]string{ // the credentials' parameter; the method, if the metadata names only client_secret_post
		"secret":             {"client_secret", "client_secret_post"},
		"operator's key":     {"private_key", "private_key_jwt"},
		"plugin-made key":    {"generated_key", "private_key_jwt"},
		"client certificate": {"client_certificate", "tls_client_auth"},
	}
	for _, kind := range credentialKinds(t) {
		m := newMount(t)
		m.write("config/weather", with(kind.give, fields{
			"token_url": "https://as.example.com/token", "client_id": "vault", "verify": false, "scopes": "a b", "resource": "https://a.example.com/,urn:b",
		}))
		m.write("role/weather/reader", fields{"scopes": "c", "omit_resource": true, "verify": false})
		method := kinds[kind.name][1]
		if kind.name == "secret" {
			method = "client_secret_basic"
		}
		want := fields{
			"credentials_kind": kinds[kind.name][0], "token_endpoint_auth_method": method, "token_url": "https://as.example.com/token",
			"scopes": []string{"a", "b"}, "resource": []string{"https://a.example.com/", "urn:b"},
		}
		shows(t, m.read("status/weather"), want)
		shows(t, m.read("status/weather/reader"), with(want, fields{"scopes": []string{"c"}, "resource": []string{}}))
		if kind.name == "client certificate" {
			continue // needs TLS: see TestClientCertificate
		}
		m, as, mcp := discoverable(t, fields{"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"}})
		mcp.says(fields{"scopes_supported": []string{"d", "openid"}, "resource": mcp.URL + "/"})
		m.write("config/weather", with(kind.give, fields{"server_url": mcp.url(), "client_id": "vault"}))
		shows(t, m.read("status/weather"), fields{
			"credentials_kind": kinds[kind.name][0], "token_endpoint_auth_method": kinds[kind.name][1], "token_url": as.URL + "/token",
			"scopes": []string{"d"}, "resource": []string{mcp.URL + "/"},
		})
	}
}

func TestStatusOfAHealthyToken(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"scopes": "a b"}))
	token, status := m.read("token/weather"), m.read("status/weather")
	hasFields(t, status, always, ofToken)
	shows(t, status, fields{
		"state": "ok", "scope": "a b", "token_id": token["token_id"], "expires_at": token["expires_at"],
		"last_vault_rotation": token["last_vault_rotation"],
	})
	issued, due, end := instant(t, status, "last_vault_rotation"), instant(t, status, "next_rotation"), instant(t, status, "expires_at")
	if !due.After(issued) || !due.Before(end) {
		t.Errorf("the next rotation is at %s, of a token from %s to %s", due, issued, end)
	}
	equal(t, "the warnings", status["warnings"].([]string), nil)
}

func TestStatusOfANameThatIsDown(t *testing.T) {
	as, m := newConfigured(t)
	as.answers(refusing(401, "invalid_client"))
	failed := m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather", nil,
		" at "+as.Listener.Addr().String()+": invalid_client: said the server")
	status := m.read("status/weather")
	hasFields(t, status, always, ofFailure, []string{"last_error_code", "last_read"})
	shows(t, status, fields{"state": "down", "last_error_code": "invalid_client", "consecutive_failures": 1})
	equal(t, "last_error", status["last_error"], failed)
	equal(t, "the error in the list", m.statuses("status/")["weather"].(fields)["error"], failed)
	if at, next := instant(t, status, "last_error_at"), instant(t, status, "next_attempt"); !next.After(at) {
		t.Errorf("the next attempt is at %s, after a failure at %s", next, at)
	}
	instant(t, status, "failing_since")
	as.asked(t, 1, "after a status")
}

func TestStatusOfATokenThatCouldNotBeRefreshed(t *testing.T) {
	as, m := newConfigured(t)
	m.stash(weather, "t0ken-held", time.Minute, time.Hour)
	as.answers(refusing(503, "x"))
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "refresh/weather", nil)
	status := m.read("status/weather")
	hasFields(t, status, always, ofToken, ofFailure)
	equal(t, "the state", status["state"], "failing")
}

// statuses returns the states in a list, by name.
func (m *mount) statuses(path string) fields {
	m.t.Helper()
	return m.data(logical.ListOperation, path, nil)["key_info"].(fields)
}

func TestStatusListShowsBrokenNames(t *testing.T) {
	as, broken, m := newAuthServer(t), newAuthServer(t), newMount(t)
	equal(t, "the statuses at first", m.list("status/"), nil)
	broken.answers(refusing(401, "invalid_client"))
	m.write("config/maps", with(broken.client(), fields{"verify": false}))
	m.write("config/weather", as.client())
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/maps", nil)

	equal(t, "the names", m.list("status"), []string{"maps", "weather", "weather/"})
	info := m.statuses("status")
	failure, _ := info["maps"].(fields)["error"].(string)
	contains(t, "the error", failure, " at "+broken.Listener.Addr().String()+": invalid_client: said the server (HTTP 401)")
	sameFields(t, info, fields{
		"maps":     fields{"state": "down", "error": failure},
		"weather":  fields{"state": "ok"},
		"weather/": fields{"state": "empty"},
	})

	// A directory shows its worst role's state.
	as.answers(refusing(400, "invalid_scope"))
	m.write("role/weather/admin", fields{"scopes": "admin", "verify": false})
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather/admin", nil)
	equal(t, "the roles", m.list("status/weather/"), []string{"admin", "reader"})
	info = m.statuses("status/weather/")
	failure, _ = info["admin"].(fields)["error"].(string)
	sameFields(t, info, fields{"admin": fields{"state": "down", "error": failure}, "reader": fields{"state": "empty"}})
	sameFields(t, m.statuses("status/")["weather/"].(fields), fields{"state": "down", "error": failure})
	m.refused(http.StatusNotFound, logical.ListOperation, "status/absent/", nil, "write config/absent")
	equal(t, "the servers with roles", m.list("role/"), []string{"weather/"})
	as.asked(t, 2, "after the lists of statuses")
}

// One damaged entry must not hide the other states: operators read this list when there is trouble.
func TestStatusListSurvivesADamagedEntry(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/maps", as.client())
	m.write("config/weather", as.client())
	m.restartOn("config/maps", "{")
	equal(t, "the names", m.list("status/"), []string{"maps", "weather"})
	sameFields(t, m.statuses("status/"), fields{
		"maps":    fields{"state": "down", "error": "unreadable storage entry: config/maps is damaged: an operator must delete it and write it again"},
		"weather": fields{"state": "ok"},
	})
}

// A status never waits for the authorization server.
func TestStatusDuringAFetch(t *testing.T) {
	as, m := newConfigured(t)
	as.hold()
	wait := inBackground(func() {
		m.succeeds(logical.ReadOperation, "token/weather", nil)
	})
	as.await(1)
	shows(t, m.read("status/weather"), fields{"state": "empty", "refreshing": true})
	as.release()
	wait()
}

func TestEveryStateIsDocumentedAndCounted(t *testing.T) {
	schema, page, metrics := statusFields()["state"], readText(t, "docs/api.md"), newMount(t).metrics()
	var values []any
	for _, state := range tokens.States() {
		values = append(values, string(state))
		contains(t, "the schema's description", schema.Description, string(state)+": ")
		contains(t, "the help text", statusHelp, string(state)+" (")
		contains(t, "docs/api.md", page, "\n  - `"+string(state)+"`: ")
		if _, ok := metrics[fmt.Sprintf("tokens{state=%q}", state)]; !ok {
			t.Errorf("the metrics don't count the tokens in state %s", state)
		}
	}
	equal(t, "the schema's allowed values", schema.AllowedValues, values)
}
