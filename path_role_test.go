package mcpoauth

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

var reader = tokensOf("weather", "reader")

// defaultRole is what a role that overrides nothing reads as.
func defaultRole() fields {
	return fields{
		"scopes": []string{}, "resource": []string{}, "omit_resource": false, "audience": "",
		"extra_params": map[string]string{},
	}
}

func TestRoleLifeFromCreateToDelete(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	m.refused(http.StatusNotFound, logical.ReadOperation, "role/weather/reader", nil, "role/weather/reader")
	equal(t, "the roles at first", m.list("role/weather/"), nil)

	want := with(defaultRole(), fields{
		"scopes": []string{"read"}, "resource": []string{"https://a.example.com"}, "audience": "a",
		"extra_params": map[string]string{"tenant": "north"},
	})
	m.write("role/weather/reader", want)
	m.write("role/weather/writer", fields{"scopes": "read write"})
	sameFields(t, m.read("role/weather/reader"), want)
	sameFields(t, m.read("role/weather/writer"), with(defaultRole(), fields{"scopes": []string{"read", "write"}}))
	equal(t, "the roles", m.list("role/weather"), []string{"reader", "writer"})

	want["audience"] = "b"
	m.write("role/weather/reader", fields{"audience": "b"})
	sameFields(t, m.read("role/weather/reader"), want)
	want["resource"], want["omit_resource"] = []string{}, true
	m.write("role/weather/reader", fields{"resource": "", "omit_resource": true})
	sameFields(t, m.read("role/weather/reader"), want)
	m.write("role/weather/reader", fields{"scopes": "", "omit_resource": false, "audience": "", "extra_params": "", "verify": false})
	sameFields(t, m.read("role/weather/reader"), defaultRole())

	m.token("weather/reader")
	m.delete("role/weather/reader")
	m.delete("role/weather/reader")
	equal(t, "the roles after a delete", m.list("role/weather/"), []string{"writer"})
	for _, path := range []string{"role/weather/reader", "token/weather/reader", "status/weather/reader"} {
		m.refused(http.StatusNotFound, logical.ReadOperation, path, nil, "reader")
	}
	if _, stored := m.storage.entries(t)["token/weather/reader"]; stored {
		t.Error("the role's token is still stored after its delete")
	}
	m.holds("weather", "t0ken-1")
}

func TestRoleInheritsWhatItDoesNotOverride(t *testing.T) {
	config := fields{"scopes": "a b", "resource": "https://config.example.com", "audience": "config", "extra_params": "tenant=north"}
	for _, test := range []struct {
		name                              string
		config, role                      fields
		scope, resource, audience, tenant string
	}{
		{"all", config, fields{}, "a b", "https://config.example.com", "config", "north"},
		{"all but the scopes", config, fields{"scopes": "c"}, "c", "https://config.example.com", "config", "north"},
		{"all but the resource", config, fields{"resource": "https://role.example.com"}, "a b", "https://role.example.com", "config", "north"},
		{"all but that there is a resource", config, fields{"omit_resource": true}, "a b", "", "config", "north"},
		{"all but the audience", config, fields{"audience": "role"}, "a b", "https://config.example.com", "role", "north"},
		{"all but the extra parameters", config, fields{"extra_params": "tenant=south"}, "a b", "https://config.example.com", "config", "south"},
		{"extra parameters as a whole", config, fields{"extra_params": "region=west"}, "a b", "https://config.example.com", "config", ""},
		{"server_url", fields{"server_url": "https://mcp.example.com/"}, fields{"scopes": "c"}, "c", "https://mcp.example.com", "", ""},
		{"server_url, omitted", fields{"server_url": "https://mcp.example.com/"}, fields{"omit_resource": true}, "", "", "", ""},
		{"omit_resource", fields{"server_url": "https://mcp.example.com/", "omit_resource": true}, fields{}, "", "", "", ""},
		{"not omit_resource, for a role's own", fields{"omit_resource": true}, fields{"resource": "https://role.example.com"}, "", "https://role.example.com", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.configure(as, test.config)
			m.write("role/weather/reader", test.role)
			got := as.await(1)
			if got.form.Get("scope") != test.scope || got.form.Get("resource") != test.resource || got.form.Get("audience") != test.audience ||
				got.form.Get("tenant") != test.tenant {
				t.Errorf("the request was %v", got.form)
			}
			if got.clientSecret != secret {
				t.Errorf("the request lacks the config's secret: %+v", got)
			}
		})
	}
}

func TestRoleHasATokenOfItsOwn(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	m.write("role/weather/reader", fields{"scopes": "read"})
	if config, role := m.token("weather"), m.token("weather/reader"); config != "t0ken-1" || role != "t0ken-2" {
		t.Errorf("the tokens are %q and %q; want that of each write's verification", config, role)
	}
	if got := m.read("token/weather/reader")["scope"]; got != "read" {
		t.Errorf("the role's scope is %q", got)
	}
	as.asked(t, 2, "after two writes and their reads")
}

func TestRoleNeedsItsConfig(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	text := m.refused(http.StatusNotFound, logical.UpdateOperation, "role/weather/reader", fields{"scopes": "read"}, "write config/weather first")
	if strings.Contains(text, "role/weather") {
		t.Errorf("%q sends the operator in a circle", text)
	}
	if got := m.storage.entries(t); len(got) != 0 {
		t.Errorf("storage holds %q", got)
	}
	as.asked(t, 0, "after the refused write")
}

func TestFaultyRoleIsRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.write("role/weather/reader", fields{"verify": false})
	was := m.storage.entries(t)
	for _, test := range []struct {
		change fields
		says   string
	}{
		{fields{"scopes": `"`}, "without spaces, quotes or backslashes"},
		{fields{"resource": "m\np"}, "must be printable"},
		{fields{"audience": "\x00"}, "printable"},
		{fields{"scopes": numbered(101)}, "at most 100"},
		{fields{"resource": "https://a.example.com", "omit_resource": true}, "write one of them"},
		{fields{"omit_resource": "perhaps"}, "omit_resource"},
		{fields{"extra_params": "scope=all"}, "extra_params must not hold scope"},
		{fields{"extra_params": "tenant"}, "extra_params takes name=value pairs or a JSON object"},
		{fields{"verify": "perhaps"}, "verify"},
	} {
		for _, name := range []string{"reader", "new"} {
			m.refused(http.StatusBadRequest, logical.UpdateOperation, "role/weather/"+name, test.change, test.says)
		}
	}
	m.storage.unchanged(t, was)
	as.asked(t, 0, "after refused writes")
}

func TestRoleWriteVerifies(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	as.answers(refusing(400, "invalid_scope"))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "role/weather/reader", fields{"scopes": "read"}, "invalid_scope", "nothing was stored")
	equal(t, "the roles after a failed verification", m.list("role/weather/"), nil)

	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	as.asked(t, 1, "after a write with verify=false")

	as.answers(granting(fields{"scope": "less"}))
	warnings := m.write("role/weather/reader", fields{"scopes": "read more"})
	if len(warnings) != 1 || !strings.Contains(warnings[0], "read more") {
		t.Errorf("the warnings are %q; want one of the scopes not granted", warnings)
	}
	m.write("role/weather/reader", fields{"scopes": "read more"})
	as.asked(t, 2, "after the same write")
}

func TestRoleThatChangesWhileVerifying(t *testing.T) {
	for _, test := range []struct {
		name      string
		meanwhile func(*mount)
	}{
		{"role written", func(m *mount) { m.write("role/weather/reader", fields{"audience": "b", "verify": false}) }},
		{"role deleted", func(m *mount) { m.delete("role/weather/reader") }},
		{"config written", func(m *mount) { m.write("config/weather", fields{"audience": "b", "verify": false}) }},
		{"config deleted", func(m *mount) { m.delete("config/weather") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.configure(as, nil)
			m.write("role/weather/reader", fields{"verify": false})
			as.hold()
			done := make(chan struct{})
			go func() {
				defer close(done)
				m.refused(http.StatusConflict, logical.UpdateOperation, "role/weather/reader", fields{"scopes": "read"}, "changed")
			}()
			as.await(1)
			test.meanwhile(m)
			was := m.storage.entries(t)
			as.release()
			<-done
			m.storage.unchanged(t, was)
		})
	}
}

// A role that overrides all keeps its token when the config's scopes change; one that
// inherits them gets another.
func TestConfigWriteDropsOnlyTokensOfAnotherShape(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"scopes": "a"}))
	m.write("role/weather/own", fields{"scopes": "own"})
	m.write("role/weather/inherits", fields{"audience": "inherits"})
	m.write("config/weather", fields{"scopes": "b"})

	if got := as.await(5).form; got.Get("audience") != "inherits" || got.Get("scope") != "b" {
		t.Errorf("the fifth request is %v; want the inheriting role's, in the background", got)
	}
	for name, want := range map[string]string{"weather": "t0ken-4", "weather/own": "t0ken-2", "weather/inherits": "t0ken-5"} {
		m.holds(name, want)
	}
	as.asked(t, 5, "after the reads")
}

func TestRolesEndWithTheirConfig(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	m.write("role/weather/reader", fields{"scopes": "read"})
	m.delete("config/weather")
	m.refused(http.StatusNotFound, logical.ReadOperation, "token/weather/reader", nil)
	m.write("config/weather", as.client())
	equal(t, "the roles of the config created anew", m.list("role/weather/"), nil)
	m.refused(http.StatusNotFound, logical.ReadOperation, "role/weather/reader", nil)
	m.refused(http.StatusNotFound, logical.ReadOperation, "token/weather/reader", nil)
}

// A crash in the middle of a delete leaves roles and tokens without a config.
func TestRolesLeftByACrashAreWorthNothing(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	m.write("role/weather/reader", fields{"scopes": "read"})
	m.storage.fail("delete role/", "delete token/")
	m.delete("config/weather")
	if _, left := m.storage.entries(t)["role/weather/reader"]; !left {
		t.Fatal("the delete that was cut short left no role")
	}
	for _, path := range []string{"config/weather", "role/weather/reader", "token/weather", "token/weather/reader", "status/weather"} {
		m.refused(http.StatusNotFound, logical.ReadOperation, path, nil)
	}

	m.configure(as, nil)
	equal(t, "the roles of the config created while those of the old one are being deleted", m.list("role/weather/"), nil)
	m.storage.fail()
	equal(t, "the roles of the config created anew", m.list("role/weather/"), nil)
	m.refused(http.StatusNotFound, logical.ReadOperation, "token/weather/reader", nil)
	m.holds("weather", "t0ken-3")
}

// However a role of another incarnation came to be beside a config, it is none.
func TestRoleOfAnotherIncarnationIsNone(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	err := m.store().putRole(t.Context(), reader, &role{Incarnation: "another", Revision: "1", tokenParams: tokenParams{Scopes: []string{"all"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"role/weather/reader", "token/weather/reader", "status/weather/reader"} {
		m.refused(http.StatusNotFound, logical.ReadOperation, path, nil)
	}
	as.asked(t, 0, "after reads of a role that is none")
	equal(t, "the statuses", m.list("status/"), []string{"weather"})

	m.write("role/weather/reader", fields{"audience": "a"})
	sameFields(t, m.read("role/weather/reader"), with(defaultRole(), fields{"audience": "a"}))
}

func TestRoleDeleteKeepsOthersTokens(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.write("role/weather/reader", fields{"verify": false})
	m.stash(weather, "t0ken-config", time.Minute, time.Hour)
	m.stash(reader, "t0ken-reader", time.Minute, time.Hour)
	m.delete("role/weather/reader")
	m.holds("weather", "t0ken-config")
	as.asked(t, 0, "after the delete of a role")
}
