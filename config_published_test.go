package mcpoauth

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// namedByTheOperator are the ways to name the authorization server beside a server_url.
var namedByTheOperator = map[string]func(as *authServer) fields{
	"issuer":    func(as *authServer) fields { return fields{"issuer": as.URL} },
	"token_url": func(as *authServer) fields { return fields{"token_url": as.URL + "/token"} },
}

// Scopes and resource come from the MCP server's metadata if the operator names the authorization server. The one
// that the metadata names is not asked.
func TestPublishedBesideTheOperatorsServer(t *testing.T) {
	for name, named := range namedByTheOperator {
		t.Run(name, func(t *testing.T) {
			m, other, mcp := discoverable(t, nil)
			as := newAuthServer(t)
			as.describes(nil)
			mcp.says(fields{"scopes_supported": []string{"openid", "a", "b"}, "resource": mcp.URL + "/"})
			wants := func(n int, scope, resource string) {
				t.Helper()
				form := as.await(n).form
				if form.Get("scope") != scope || !slices.Equal(form["resource"], []string{resource}) {
					t.Errorf("request %d is for %q at %q; want %q at %q", n, form.Get("scope"), form["resource"], scope, resource)
				}
			}
			if warnings := m.write("config/weather", with(mcp.client(), named(as))); warnings != nil {
				t.Errorf("warnings: %q", warnings)
			}
			wants(1, "a b", mcp.URL+"/")
			read := m.read("config/weather")
			equal(t, "the scopes", read["discovered_scopes"].([]string), []string{"a", "b"})
			if read["discovered_resource"] != mcp.URL+"/" || instant(t, read, "discovered_at").IsZero() {
				t.Errorf("the config reads %v", read)
			}

			called := mcp.called()
			m.write("config/weather", fields{"audience": "c"})
			m.write("config/weather", m.read("config/weather"))
			m.write("config/weather", fields{"scopes": "c"})
			wants(3, "c", mcp.URL+"/")
			m.write("config/weather", fields{"resource": "urn:c"})
			m.write("config/weather", fields{"scopes": ""})
			wants(5, "a b", "urn:c")
			if mcp.called() != called {
				t.Error("what was pinned was asked for again")
			}

			mcp.says(fields{"scopes_supported": []string{"d"}})
			m.write("config/weather", fields{"rediscover": true, "resource": ""})
			wants(6, "d", mcp.url())
			if mcp.called() == called {
				t.Error("rediscover=true asked nobody")
			}
			second := newMCPServer(t, other, nil)
			second.says(fields{"scopes_supported": []string{"e"}})
			m.write("config/weather", fields{"server_url": second.url()})
			wants(7, "e", second.url())
			m.write("config/weather", fields{"server_url": ""})
			if form := as.await(8).form; form.Has("scope") || form.Has("resource") {
				t.Errorf("without a server_url the request is %v", form)
			}
			if _, found := m.read("config/weather")["discovered_scopes"]; found && name == "token_url" {
				t.Error("without a server_url the config still reads what one published")
			}
			if other.count() != 0 || other.looked() != 0 {
				t.Error("the authorization server that the MCP server names was asked")
			}
		})
	}
}

// An MCP server is not asked for what the operator wrote, nor by a write with verify=false.
func TestMCPServerThatNeedNotBeAsked(t *testing.T) {
	for name, named := range namedByTheOperator {
		m, as, mcp := discoverable(t, nil)
		mcp.says(fields{"scopes_supported": []string{"a"}})
		for _, all := range []fields{{"scopes": "b", "resource": "urn:b"}, {"scopes": "b", "resource": "", "omit_resource": true}} {
			m.write("config/written", with(with(mcp.client(), named(as)), all))
			if mcp.called() > 0 {
				t.Errorf("%s: with %v the MCP server was asked", name, all)
			}
		}
		if name == "issuer" {
			continue // which verify=false can't discover
		}
		m.write("config/weather", with(with(mcp.client(), named(as)), fields{"verify": false}))
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"verify": false, "rediscover": true}, "verify=false contacts no server")
		if mcp.called() > 0 || m.read("config/weather")["discovered_scopes"] != nil {
			t.Error("verify=false asked the MCP server")
		}
		m.write("config/weather", fields{})
		if got := m.read("config/weather")["discovered_scopes"]; mcp.called() == 0 || !slices.Equal(got.([]string), []string{"a"}) {
			t.Errorf("after a write that may ask the scopes are %v", got)
		}
	}
}

// An MCP server that can't be asked keeps no config from being written. The operator is told, then and later.
func TestMCPServerThatCanNotBeAsked(t *testing.T) {
	for name, named := range namedByTheOperator {
		silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer scope="a b"`)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		t.Cleanup(silent.Close)
		gone := httptest.NewServer(nil)
		gone.Close()
		for _, test := range []struct {
			url, scope, says string
		}{
			{gone.URL, "", "connection refused"},
			{silent.URL + "/mcp", "a b", "no challenge names resource_metadata"},
		} {
			m, as := newMount(t), newAuthServer(t)
			as.describes(nil)
			client := with(named(as), fields{"server_url": test.url, "client_id": "vault", "client_secret": secret})
			told := func(where string, warnings []string) {
				t.Helper()
				if len(warnings) != 1 || !strings.Contains(warnings[0], test.says) || !strings.Contains(warnings[0], test.url) ||
					!strings.Contains(warnings[0], "rediscover=true") || strings.Contains(warnings[0], "\n") {
					t.Errorf("%s, %s: warnings %q", name, where, warnings)
				}
			}
			told("the write", m.write("config/weather", client))
			form := as.await(1).form
			if form.Get("scope") != test.scope || form.Get("resource") != test.url {
				t.Errorf("%s: the request is %v", name, form)
			}
			m.write("role/weather/reader", fields{"audience": "c"})
			told("the status", m.read("status/weather")["warnings"].([]string))
			told("the role's status", m.read("status/weather/reader")["warnings"].([]string))
			if warnings := m.write("config/weather", fields{"max_ttl": "1h"}); warnings != nil {
				t.Errorf("%s: another write warns %q", name, warnings)
			}
			told("another try", m.write("config/weather", fields{"rediscover": true}))
			as.answers(refusing(http.StatusBadRequest, "invalid_scope"))
			m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"audience": "c"}, "invalid_scope", "discovery warns: ", test.says)
			m.write("config/weather", fields{"scopes": "c", "resource": "urn:c", "verify": false})
			if warnings := m.read("status/weather")["warnings"].([]string); len(warnings) > 0 {
				t.Errorf("%s: with nothing left to ask for the status warns %q", name, warnings)
			}
		}
	}
}

// What discovery warned of is behind many a failure, and is looked for long after.
func TestWarningsOfDiscoveryStay(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"grant_types_supported": []string{"authorization_code"}})
	const warning = "does not list the client_credentials grant"
	as.answers(refusing(http.StatusBadRequest, "unauthorized_client"))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", mcp.client(), "unauthorized_client", "discovery warns: ", warning)
	as.answers(granting(nil))
	m.write("config/weather", mcp.client())
	m.write("role/weather/reader", fields{"scopes": "a"})
	m.stop()
	m.start()
	for _, name := range []string{"weather", "weather/reader"} {
		if got := m.read("status/" + name)["warnings"].([]string); len(got) != 1 || !strings.Contains(got[0], warning) {
			t.Errorf("the status of %s warns %q", name, got)
		}
	}
	as.answers(refusing(http.StatusBadRequest, "invalid_scope"))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"scopes": "b"}, "invalid_scope", warning)
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "role/weather/reader", fields{"scopes": "b"}, "invalid_scope", warning)
	as.answers(granting(nil))
	as.describes(nil)
	m.write("config/weather", fields{"rediscover": true})
	if got := m.read("status/weather")["warnings"].([]string); len(got) > 0 {
		t.Errorf("after another discovery the status warns %q", got)
	}
}

// Of several authorization servers the credentials may be for another than the first.
func TestRefusalNamesTheOtherServers(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	other := newAuthServer(t)
	other.describes(nil)
	mcp.mu.Lock()
	mcp.issuers = append(mcp.issuers, other.URL)
	mcp.mu.Unlock()
	as.answers(refusing(http.StatusUnauthorized, "invalid_client"))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", mcp.client(), "invalid_client", "write issuer="+other.URL+" if the credentials are for it")
	other.asked(t, 0, "after a refusal of the first server")
	m.write("config/weather", with(mcp.client(), fields{"issuer": other.URL}))
	other.answers(refusing(http.StatusUnauthorized, "invalid_client"))
	_, err := m.do(logical.UpdateOperation, "config/weather", fields{"scopes": "a"})
	if err == nil || strings.Contains(err.Error(), "another authorization server") {
		t.Errorf("with the operator's issuer the refusal is %v", err)
	}
}

// The issuer in the authorization server's own spelling is what assertions are for.
func TestOperatorsIssuerWithoutItsSlash(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.describes(fields{"issuer": as.URL + "/"})
	m.write("config/weather", fields{"issuer": as.URL, "client_id": "vault", "private_key": pemOf(t, edKey(t))})
	if got := m.asserted(as.await(1)).Audience; got != as.URL+"/" {
		t.Errorf("the assertion is for %s", got)
	}
	// The slash is no other issuer, whose credentials it would take.
	as.describes(nil)
	m.write("config/weather", fields{"rediscover": true})
	if got := m.read("config/weather")["discovered_issuer"]; got != as.URL {
		t.Errorf("the issuer is %v", got)
	}
}
