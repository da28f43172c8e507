package mcpoauth

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestConfigLifeFromCreateToDelete(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.missing("config/weather", "write config/weather")
	equal(t, "the configs at first", m.list("config/"), nil)

	m.write("config/weather", as.client())
	m.write("config/maps", as.client())
	equal(t, "the configs", m.list("config/"), []string{"maps", "weather"})
	m.write("config/weather", fields{"audience": "weather"})
	equal(t, "the audience after its update", m.read("config/weather")["audience"], "weather")

	m.delete("config/weather")
	m.delete("config/weather") // a second delete succeeds, as in Vault's own engines
	equal(t, "the configs after a delete", m.list("config"), []string{"maps"})
	m.missing("config/weather")
	m.missing("token/weather")
	equal(t, "the keys", keysOf(t, m), []string{"config/maps", "token/maps"})
	as.asked(t, 3, "after three writes with something to verify")
}

func TestVerifyStoresConfigAndTokenTogether(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	warnings := m.write("config/weather", with(as.client(), fields{"scopes": "a b", "audience": "weather"}))
	equal(t, "the warnings", warnings, nil)
	request := as.await(1)
	equal(t, "the method and client", request.method+" "+request.clientID, "POST vault")
	request.holds(t, map[string]string{"secret": secret, "scope": "a b", "audience": "weather"})
	m.holds("weather", "t0ken-1")
	as.asked(t, 1, "after the first read")
}

func TestWithoutVerifyNoServerIsContacted(t *testing.T) {
	as, m := newConfigured(t)
	m.configure(as, fields{"client_secret": "another-" + secretMark, "scopes": "a", "allow_insecure_http": true})
	as.asked(t, 0, "after writes with verify=false")
	m.token("weather")
	as.await(1).holds(t, map[string]string{"secret": "another-" + secretMark, "scope": "a"})
}

func TestFailedVerificationChangesNothing(t *testing.T) {
	for _, test := range []struct {
		name   string
		change fields
		answer func(tokenRequest) (int, fields)
		status int
		says   []string
	}{
		{"refused", fields{"client_secret": "wrong-" + secretMark}, refusing(401, "invalid_client"), 400, []string{"invalid_client", "nothing was stored"}},
		{"down", fields{"scopes": "more"}, refusing(503, "x"), 502, []string{"HTTP 503", "nothing was stored"}},
		{"not there", fields{"token_url": "http://127.0.0.1:1/token", "client_secret": secret}, nil, 502, []string{"connection refused", "nothing was stored"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.refusedWrite(as, test.answer, with(as.client(), test.change), test.status, test.says)
			equal(t, "the keys after a failed create", keysOf(t, m), nil)

			as.answers(granting(nil))
			m.write("config/weather", as.client())
			token, was, read := m.token("weather"), m.storage.entries(t), m.read("config/weather")
			m.refusedWrite(as, test.answer, test.change, test.status, test.says)
			m.storage.unchanged(t, was)
			sameFields(t, m.read("config/weather"), read)
			m.holds("weather", token)
			equal(t, "the state", m.read("status/weather")["state"], "ok")
		})
	}
}

func (m *mount) refusedWrite(as *authServer, answer func(tokenRequest) (int, fields), data fields, status int, says []string) {
	m.t.Helper()
	if answer != nil {
		as.answers(answer)
	}
	m.refused(status, logical.UpdateOperation, "config/weather", data, says...)
}

// Only writes that change the token, the credentials or their route make a request.
func TestWhichWritesAskTheAuthorizationServer(t *testing.T) {
	for _, test := range []struct {
		name   string
		change fields
		asks   bool
	}{
		{"nothing", fields{}, false},
		{"the secret as it was", fields{"client_secret": secret}, false},
		{"default_ttl", fields{"default_ttl": "1m"}, false},
		{"max_ttl", fields{"max_ttl": "1m"}, false},
		{"idle_timeout", fields{"idle_timeout": "1m"}, false},
		{"request_timeout", fields{"request_timeout": "5s"}, true},
		{"the auth method in effect", fields{"token_endpoint_auth_method": "client_secret_basic"}, false},
		{"server_url that equals resource", fields{"server_url": "https://mcp.example.com", "resource": "https://mcp.example.com"}, false},
		{"scopes", fields{"scopes": "b"}, true},
		{"resource", fields{"resource": "https://other.example.com"}, true},
		{"omit_resource", fields{"resource": "", "omit_resource": true}, true},
		{"audience", fields{"audience": "b"}, true},
		{"extra_params", fields{"extra_params": "tenant=south"}, true},
		{"client_id", fields{"client_id": "other"}, true},
		{"client_secret", fields{"client_secret": "new-" + secretMark}, true},
		{"token_endpoint_auth_method", fields{"token_endpoint_auth_method": "client_secret_post"}, true},
		{"allow_insecure_http", fields{"allow_insecure_http": true, "client_secret": secret}, true},
		{"allow_private_addresses", fields{"allow_private_addresses": true, "client_secret": secret}, true},
		{"issuer", fields{"issuer": "https://as.example.com", "client_secret": secret}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.write("config/weather", with(as.client(), fields{"scopes": "a", "resource": "https://mcp.example.com"}))
			m.write("config/weather", test.change)
			as.asked(t, map[bool]int{true: 2, false: 1}[test.asks], "after the change")
		})
	}
}

func TestOutstandingFailureIsVerifiedAway(t *testing.T) {
	as, m := newConfigured(t)
	as.answers(refusing(401, "invalid_client"))
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather", nil, "invalid_client")
	was := m.storage.entries(t)

	m.rejects("config/weather", as.client(), "invalid_client")
	m.storage.unchanged(t, was)
	m.configure(as, nil) // and with verify=false
	as.asked(t, 2, "after the same write with verify=false")

	as.answers(granting(nil)) // the operator has repaired the client at the server
	m.write("config/weather", as.client())
	m.holds("weather", "t0ken-3")
	as.asked(t, 3, "after the same write, and a read")
}

// Writing an unchanged config also clears the failures of its roles, without a request.
func TestWriteThatChangesNothingClearsFailures(t *testing.T) {
	for _, verify := range []bool{true, false} {
		as, m := newConfigured(t)
		m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
		m.token("weather")
		as.answers(refusing(400, "invalid_scope"))
		m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather/reader", nil, "invalid_scope")
		as.answers(granting(nil))
		m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather/reader", nil, "invalid_scope")
		as.asked(t, 2, "within the window")
		m.write("config/weather", with(as.client(), fields{"verify": verify}))
		m.token("weather/reader")
		as.asked(t, map[bool]int{true: 4, false: 3}[verify], "after the write and a read")

		as.answers(refusing(400, "invalid_scope"))
		m.write("role/weather/other", fields{"scopes": "write", "verify": false})
		m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather/other", nil, "invalid_scope")
		as.answers(granting(nil))
		m.write("role/weather/other", fields{"scopes": "write", "verify": false})
		m.token("weather/other")
	}
}

// If the roles set the scopes or audience, the config itself may be unable to get a token.
func TestRefusedConfigSuggestsVerifyFalseIfItsRolesMayWork(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	try := func(code string, change fields, hints bool) {
		t.Helper()
		as.answers(refusing(400, code))
		text := m.rejects("config/weather", with(as.client(), change), code)
		equal(t, code+": a hint at verify=false", strings.Contains(text, "verify=false"), hints)
	}
	scoped := fields{"scopes": "read"}
	for code, hints := range map[string]bool{
		"invalid_scope": true, "invalid_target": true, "access_denied": true,
		"invalid_client": false, "unauthorized_client": false, "unsupported_grant_type": false,
	} {
		try(code, nil, hints)
		try(code, scoped, false)
	}
	m.write("config/weather", with(as.client(), fields{"verify": false}))
	m.write("role/weather/reader", fields{"verify": false})
	try("invalid_scope", scoped, true)
	try("invalid_client", scoped, false)
}

// A change during the verification is a conflict, so that the stored config is always the verified one.
func TestConfigThatChangesWhileVerifying(t *testing.T) {
	for _, test := range []struct {
		name      string
		before    bool // reports whether the config exists before the write
		meanwhile func(*mount, *authServer)
	}{
		{"updated", true, func(m *mount, as *authServer) { m.configure(as, fields{"audience": "meanwhile"}) }},
		{"deleted", true, func(m *mount, _ *authServer) { m.delete("config/weather") }},
		{"created", false, func(m *mount, as *authServer) { m.configure(as, fields{"audience": "meanwhile"}) }},
		{"deleted and created", true, func(m *mount, as *authServer) {
			m.delete("config/weather")
			m.configure(as, nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			if test.before {
				m.configure(as, nil)
			}
			m.conflicts(as, "config/weather", with(as.client(), fields{"scopes": "a"}), func() { test.meanwhile(m, as) })
		})
	}
}

// conflicts checks that a write is answered with status 409 and stores nothing if storage changes while it is verified.
func (m *mount) conflicts(as *authServer, path string, data fields, meanwhile func()) {
	m.t.Helper()
	as.hold()
	wait := inBackground(func() { m.refused(http.StatusConflict, logical.UpdateOperation, path, data, "changed") })
	as.await(1)
	meanwhile()
	was := m.storage.entries(m.t)
	as.release()
	wait()
	m.storage.unchanged(m.t, was)
}

func TestReadersDoNotWaitForAVerification(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	as.hold()
	wait := inBackground(func() {
		if _, err := m.do(logical.UpdateOperation, "config/weather", fields{"scopes": "a"}); err != nil {
			t.Error(err)
		}
	})
	as.await(2)
	m.holds("weather", "t0ken-1")
	as.release()
	wait()
	m.holds("weather", "t0ken-2")
}

// Tokens of roles stay in service after a change of the secret, and are replaced in the background.
func TestRotatedSecretRefreshesRolesInTheBackground(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	m.stash(tokensOf("weather", "reader"), "t0ken-old", time.Minute, time.Hour)
	m.holds("weather/reader", "t0ken-old")

	m.write("config/weather", fields{"client_secret": "new-" + secretMark})
	for n, scope := range []string{"", "read"} {
		as.await(n+2).holds(t, map[string]string{"secret": "new-" + secretMark, "scope": scope})
	}
	m.holds("weather", "t0ken-2")
}

// Vault's existence check decides which capability a write needs. A caller with only "create" must not change a
// config that was just created, and a caller with only "update" must not create one.
func TestWriteFollowsTheExistenceCheck(t *testing.T) {
	config := fields{"token_url": "https://as.example.com/token", "client_id": "vault", "client_secret": secret, "verify": false}
	create := func(path string, data fields) func(*mount) { return func(m *mount) { m.write(path, data) } }
	remove := func(path string) func(*mount) { return func(m *mount) { m.delete(path) } }
	for _, test := range []struct {
		name      string
		before    func(*mount)
		path      string
		data      fields
		meanwhile func(*mount)
	}{
		{"config created", nil, "config/weather", with(config, fields{"scopes": "mine"}), create("config/weather", config)},
		{"the same config created", nil, "config/weather", config, create("config/weather", config)},
		{"config deleted", create("config/weather", config), "config/weather", with(config, fields{"scopes": "mine"}), remove("config/weather")},
		{"role created", create("config/weather", config), "role/weather/reader", fields{"scopes": "mine", "verify": false}, create("role/weather/reader", fields{"verify": false})},
		{"the same role created", create("config/weather", config), "role/weather/reader", fields{"verify": false}, create("role/weather/reader", fields{"verify": false})},
		{"role deleted", func(m *mount) {
			m.write("config/weather", config)
			m.write("role/weather/reader", fields{"verify": false})
		}, "role/weather/reader", fields{"scopes": "mine", "verify": false}, remove("role/weather/reader")},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMount(t)
			if test.before != nil {
				test.before(m)
			}
			var was map[string]string
			m.afterCheck = func() {
				test.meanwhile(m)
				was = m.storage.entries(t)
			}
			m.refused(http.StatusConflict, logical.UpdateOperation, test.path, test.data, "changed")
			m.storage.unchanged(t, was)
		})
	}
}

func TestPatchErrorSuggestsAWrite(t *testing.T) {
	_, m := newConfigured(t)
	m.write("role/weather/reader", fields{"verify": false})
	was := m.storage.entries(t)
	for _, path := range []string{"config/weather", "role/weather/reader"} {
		m.refused(http.StatusMethodNotAllowed, logical.PatchOperation, path, fields{"audience": "x"}, "vault write")
	}
	m.storage.unchanged(t, was)
}
