package mcpoauth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

var reader = tokensOf("weather", "reader")

// defaultRole is a role without overrides, as a read returns it.
func defaultRole() fields {
	return fields{
		"scopes": []string{}, "resource": []string{}, "omit_resource": false, "audience": "",
		"extra_params": map[string]string{},
	}
}

func TestRoleLifeFromCreateToDelete(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	m.missing("role/weather/reader", "role/weather/reader")
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
		m.missing(path, "reader")
	}
	equal(t, "the stored token of the role", m.storage.entries(t)["token/weather/reader"], "")
	m.holds("weather", "t0ken-1")
}

func TestRoleInheritsFieldsThatItDoesNotSet(t *testing.T) {
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
			as.await(1).holds(t, map[string]string{
				"scope": test.scope, "resource": test.resource, "audience": test.audience, "tenant": test.tenant, "secret": secret,
			})
		})
	}
}

func TestRoleHasATokenOfItsOwn(t *testing.T) {
	as, m := inUse(t)
	m.holds("weather", "t0ken-1")
	m.holds("weather/reader", "t0ken-2")
	equal(t, "the role's scope", m.read("token/weather/reader")["scope"], "read")
	as.asked(t, 2, "after two writes and their reads")
}

func TestRoleNeedsItsConfig(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	text := m.refused(http.StatusNotFound, logical.UpdateOperation, "role/weather/reader", fields{"scopes": "read"}, "write config/weather first")
	if strings.Contains(text, "role/weather") {
		t.Errorf("%q suggests the write that failed", text)
	}
	equal(t, "the keys", keysOf(t, m), nil)
	as.asked(t, 0, "after the refused write")
}

func TestFaultyRoleIsRefused(t *testing.T) {
	as, m := newConfigured(t)
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
		{fields{"resource": "https://a.example.com", "omit_resource": true}, `write resource="" or omit_resource=false`},
		{fields{"omit_resource": "perhaps"}, "omit_resource"},
		{fields{"extra_params": "scope=all"}, "extra_params must not hold scope"},
		{fields{"extra_params": "tenant"}, "extra_params takes name=value pairs or a JSON object"},
		{fields{"verify": "perhaps"}, "verify"},
	} {
		for _, name := range []string{"reader", "new"} {
			m.rejects("role/weather/"+name, test.change, test.says)
		}
	}
	m.storage.unchanged(t, was)
	as.asked(t, 0, "after refused writes")
}

func TestRoleWriteVerifies(t *testing.T) {
	as, m := newConfigured(t)
	as.answers(refusing(400, "invalid_scope"))
	m.rejects("role/weather/reader", fields{"scopes": "read"}, "invalid_scope", "nothing was stored")
	equal(t, "the roles after a failed verification", m.list("role/weather/"), nil)

	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	as.asked(t, 1, "after a write with verify=false")

	as.answers(granting(fields{"scope": "less"}))
	warns(t, "the write", m.write("role/weather/reader", fields{"scopes": "read more"}), "read more")
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
			as, m := newConfigured(t)
			m.write("role/weather/reader", fields{"verify": false})
			m.conflicts(as, "role/weather/reader", fields{"scopes": "read"}, func() { test.meanwhile(m) })
		})
	}
}

// When the config's scopes change, a role with its own scopes keeps its token; a role that inherits them gets a new
// one.
func TestConfigWriteDropsOnlyTokensOfAnotherShape(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"scopes": "a"}))
	m.write("role/weather/own", fields{"scopes": "own"})
	m.write("role/weather/inherits", fields{"audience": "inherits"})
	m.write("config/weather", fields{"scopes": "b"})

	as.await(5).holds(t, map[string]string{"audience": "inherits", "scope": "b"}) // in the background
	m.holds("weather", "t0ken-4")
	m.holds("weather/own", "t0ken-2")
	m.holds("weather/inherits", "t0ken-5")
	as.asked(t, 5, "after the reads")
}

// A crash during a delete leaves roles and tokens without a config.
func TestRolesLeftByACrashAreWorthNothing(t *testing.T) {
	as, m := inUse(t)
	m.storage.fail("delete role/", "delete token/")
	m.delete("config/weather")
	equal(t, "the keys after half a delete", keysOf(t, m), []string{"role/weather/reader", "token/weather", "token/weather/reader"})
	for _, path := range []string{"config/weather", "role/weather/reader", "token/weather", "token/weather/reader", "status/weather"} {
		m.missing(path)
	}

	m.configure(as, nil)
	equal(t, "the roles of the next config before the end of the delete", m.list("role/weather/"), nil)
	m.storage.fail()
	equal(t, "the roles of the next config", m.list("role/weather/"), nil)
	m.missing("token/weather/reader")
	m.holds("weather", "t0ken-3")
}

// A stored role of another incarnation counts as absent.
func TestRoleOfAnotherIncarnationIsNone(t *testing.T) {
	as, m := newConfigured(t)
	other := &role{Incarnation: "another", Revision: "1", tokenParams: tokenParams{Scopes: []string{"all"}}}
	noError(t, m.store().putRole(t.Context(), reader, other))
	for _, path := range []string{"role/weather/reader", "token/weather/reader", "status/weather/reader"} {
		m.missing(path)
	}
	as.asked(t, 0, "after reads of an absent role")
	equal(t, "the statuses", m.list("status/"), []string{"weather"})

	m.write("role/weather/reader", fields{"audience": "a"})
	sameFields(t, m.read("role/weather/reader"), with(defaultRole(), fields{"audience": "a"}))
}
