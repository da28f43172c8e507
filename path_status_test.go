package mcpoauth

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// always are the fields that every status has.
var always = []string{
	"credentials_kind", "credentials_verified", "credentials_written_at", "refreshing", "resource", "scopes", "state",
	"token_endpoint_auth_method", "token_url", "unsaved", "warnings",
}

var (
	ofToken   = []string{"expires_at", "last_read", "last_vault_rotation", "next_rotation", "scope", "token_id"}
	ofFailure = []string{"consecutive_failures", "failing_since", "last_error", "last_error_at", "next_attempt"}
)

// hasFields checks which fields a status has.
func hasFields(t *testing.T, status fields, want ...[]string) {
	t.Helper()
	equal(t, "the fields of the status", slices.Sorted(maps.Keys(status)), slices.Sorted(slices.Values(slices.Concat(want...))))
}

func TestStatusOfAnEmptyName(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	status := m.read("status/weather")
	hasFields(t, status, always)
	if status["state"] != "empty" || status["refreshing"] != false || status["unsaved"] != false {
		t.Errorf("the status is %v", status)
	}
	as.asked(t, 0, "after a status")
}

// A status shows what a token request would hold, whether written, discovered or a default.
func TestStatusShowsWhatTheClientDoes(t *testing.T) {
	kinds := map[string][2]string{ // with the method, if the metadata names client_secret_post alone
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

// shows checks some of a status's fields.
func shows(t *testing.T, status, want fields) {
	t.Helper()
	for field, value := range want {
		if !reflect.DeepEqual(status[field], value) {
			t.Errorf("%s is %#v; want %#v", field, status[field], value)
		}
	}
}

func TestStatusOfAHealthyToken(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"scopes": "a b"}))
	token, status := m.read("token/weather"), m.read("status/weather")
	hasFields(t, status, always, ofToken)
	if status["state"] != "ok" || status["scope"] != "a b" {
		t.Errorf("the status is %v", status)
	}
	for _, field := range []string{"token_id", "expires_at", "last_vault_rotation"} {
		if status[field] != token[field] {
			t.Errorf("%s is %v; the token's is %v", field, status[field], token[field])
		}
	}
	issued, due, end := instant(t, status, "last_vault_rotation"), instant(t, status, "next_rotation"), instant(t, status, "expires_at")
	if !due.After(issued) || !due.Before(end) {
		t.Errorf("the next rotation is at %s, of a token from %s to %s", due, issued, end)
	}
	equal(t, "the warnings", status["warnings"].([]string), nil)
}

func TestStatusOfANameThatIsDown(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	as.answers(refusing(401, "invalid_client"))
	_, failed := m.do(logical.ReadOperation, "token/weather", nil)
	status := m.read("status/weather")
	hasFields(t, status, always, ofFailure, []string{"last_error_code", "last_read"})
	if status["state"] != "down" || status["last_error_code"] != "invalid_client" || status["consecutive_failures"] != 1 {
		t.Errorf("the status is %v", status)
	}
	listed, _ := m.data(logical.ListOperation, "status/", nil)["key_info"].(map[string]any)["weather"].(fields)["error"].(string)
	for _, got := range []any{status["last_error"], listed} {
		if failed == nil || got != failed.Error() || !strings.Contains(failed.Error(), " at "+as.Listener.Addr().String()+": invalid_client: said the server") {
			t.Errorf("the status says %q; the read %v", got, failed)
		}
	}
	if at, next := instant(t, status, "last_error_at"), instant(t, status, "next_attempt"); !next.After(at) {
		t.Errorf("the next attempt is at %s, after a failure at %s", next, at)
	}
	instant(t, status, "failing_since")
	as.asked(t, 1, "after a status")
}

func TestStatusOfATokenThatCouldNotBeRefreshed(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.stash(weather, "t0ken-held", time.Minute, time.Hour)
	as.answers(refusing(503, "x"))
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "refresh/weather", nil)
	status := m.read("status/weather")
	hasFields(t, status, always, ofToken, ofFailure)
	if status["state"] != "failing" {
		t.Errorf("the status is %v", status)
	}
}

// What needs saying beyond the token is said here, not on every read.
func TestStatusWarnsOfScopesThatWereNotGranted(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.answers(granting(fields{"scope": "a"}))
	m.write("config/weather", with(as.client(), fields{"scopes": "a b"}))
	equal(t, "the warnings", m.read("status/weather")["warnings"].([]string),
		[]string{`the authorization server did not grant "b"; it granted "a"`})
	resp, err := m.do(logical.ReadOperation, "token/weather", nil)
	if err != nil || resp.Warnings != nil {
		t.Errorf("the read of the token: %v, %v; want no warning", resp, err)
	}
}

func TestStatusTellsOfATokenThatIsNotStored(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.storage.fail("put token/")
	m.holds("weather", "t0ken-1")
	if status := m.read("status/weather"); status["unsaved"] != true || status["state"] != "ok" {
		t.Errorf("the status is %v", status)
	}
}

func TestStatusListTellsWhatIsBroken(t *testing.T) {
	as, broken, m := newAuthServer(t), newAuthServer(t), newMount(t)
	equal(t, "the statuses at first", m.list("status/"), nil)
	broken.answers(refusing(401, "invalid_client"))
	m.write("config/maps", with(broken.client(), fields{"verify": false}))
	m.write("config/weather", as.client())
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/maps", nil)

	list := m.data(logical.ListOperation, "status", nil)
	equal(t, "the names", list["keys"].([]string), []string{"maps", "weather", "weather/"})
	info := list["key_info"].(map[string]any)
	failure, _ := info["maps"].(fields)["error"].(string)
	if !strings.Contains(failure, " at "+broken.Listener.Addr().String()+": invalid_client: said the server (HTTP 401)") {
		t.Errorf("the error is %q", failure)
	}
	sameFields(t, info, fields{
		"maps":     fields{"state": "down", "error": failure},
		"weather":  fields{"state": "ok"},
		"weather/": fields{"state": "empty"},
	})

	// The state of a directory is that of its worst role.
	as.answers(refusing(400, "invalid_scope"))
	m.write("role/weather/admin", fields{"scopes": "admin", "verify": false})
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather/admin", nil)
	roles := m.data(logical.ListOperation, "status/weather/", nil)
	equal(t, "the roles", roles["keys"].([]string), []string{"admin", "reader"})
	info = roles["key_info"].(map[string]any)
	failure, _ = info["admin"].(fields)["error"].(string)
	sameFields(t, info, fields{"admin": fields{"state": "down", "error": failure}, "reader": fields{"state": "empty"}})
	sameFields(t, m.data(logical.ListOperation, "status/", nil)["key_info"].(map[string]any)["weather/"].(fields),
		fields{"state": "down", "error": failure})
	m.refused(http.StatusNotFound, logical.ListOperation, "status/absent/", nil, "write config/absent")
	equal(t, "the servers with roles", m.list("role/"), []string{"weather/"})
	as.asked(t, 2, "after the lists of statuses")
}

// One damaged entry must not hide the state of all the others: this list is where an
// operator looks when something is broken.
func TestStatusListSurvivesADamagedEntry(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/maps", as.client())
	m.write("config/weather", as.client())
	m.stop()
	damage(t, m, "config/maps", "{")
	m.start()
	list := m.data(logical.ListOperation, "status/", nil)
	equal(t, "the names", list["keys"].([]string), []string{"maps", "weather"})
	sameFields(t, list["key_info"].(map[string]any), fields{
		"maps":    fields{"state": "down", "error": "unreadable storage entry: config/maps is damaged: an operator must delete it and write it again"},
		"weather": fields{"state": "ok"},
	})
}

func TestStatusOfWhatIsNotConfigured(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.refused(http.StatusNotFound, logical.ReadOperation, "status/absent", nil, "write config/absent")
	m.refused(http.StatusNotFound, logical.ReadOperation, "status/weather/absent", nil, "role/weather/absent")
}

// A status never waits for the authorization server.
func TestStatusDuringAFetch(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	as.hold()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.token("weather")
	}()
	as.await(1)
	if status := m.read("status/weather"); status["state"] != "empty" || status["refreshing"] != true {
		t.Errorf("the status is %v", status)
	}
	as.release()
	<-done
}
