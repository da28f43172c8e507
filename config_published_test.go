package mcpoauth

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// namedByTheOperator are the ways to name the authorization server in addition to a server_url.
var namedByTheOperator = map[string]func(as *authServer) fields{
	"issuer":    func(as *authServer) fields { return fields{"issuer": as.URL} },
	"token_url": func(as *authServer) fields { return fields{"token_url": as.URL + "/token"} },
}

// If the operator names the authorization server, only scopes and resource come from the MCP server's metadata. The
// authorization server in the metadata gets no request.
func TestPublishedBesideTheOperatorsServer(t *testing.T) {
	for name, named := range namedByTheOperator {
		t.Run(name, func(t *testing.T) {
			m, other, mcp := discoverable(t, nil)
			as := newAuthServer(t)
			as.describes(nil)
			mcp.says(fields{"scopes_supported": []string{"openid", "a", "b"}, "resource": mcp.URL + "/"})
			wants := func(n int, scope, resource string) {
				t.Helper()
				request := as.await(n)
				request.holds(t, map[string]string{"scope": scope})
				equal(t, "the resource", request.form["resource"], []string{resource})
			}
			equal(t, "the warnings", m.write("config/weather", with(mcp.client(), named(as))), nil)
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
			equal(t, "requests to the MCP server", mcp.called(), called)

			mcp.says(fields{"scopes_supported": []string{"d"}})
			m.write("config/weather", fields{"rediscover": true, "resource": ""})
			wants(6, "d", mcp.url())
			if mcp.called() == called {
				t.Error("rediscover=true sent no request to the MCP server")
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
				t.Error("without a server_url the config still shows published scopes")
			}
			equal(t, "requests to the server of the metadata", other.count()+other.looked(), 0)
		})
	}
}

// A write with scopes and resource, or with verify=false, makes no request to the MCP server.
func TestMCPServerThatNeedNotBeAsked(t *testing.T) {
	for name, named := range namedByTheOperator {
		m, as, mcp := discoverable(t, nil)
		mcp.says(fields{"scopes_supported": []string{"a"}})
		for _, all := range []fields{{"scopes": "b", "resource": "urn:b"}, {"scopes": "b", "resource": "", "omit_resource": true}} {
			m.write("config/written", with(with(mcp.client(), named(as)), all))
			if mcp.called() > 0 {
				t.Errorf("%s: with %v, a request was sent to the MCP server", name, all)
			}
		}
		if name == "issuer" {
			continue // verify=false skips discovery
		}
		m.write("config/weather", with(with(mcp.client(), named(as)), fields{"verify": false}))
		m.rejects("config/weather", fields{"verify": false, "rediscover": true}, "verify=false contacts no server")
		if mcp.called() > 0 || m.read("config/weather")["discovered_scopes"] != nil {
			t.Error("a write with verify=false sent a request to the MCP server")
		}
		m.write("config/weather", fields{})
		if got := m.read("config/weather")["discovered_scopes"]; mcp.called() == 0 || !slices.Equal(got.([]string), []string{"a"}) {
			t.Errorf("after a write without verify=false, the scopes are %v", got)
		}
	}
}

// If the MCP server cannot be called, the config is written with a warning, which the status repeats.
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
				warns(t, name+", "+where, warnings, test.says, test.url, "rediscover=true")
				equal(t, name+", "+where+": line breaks", strings.Count(strings.Join(warnings, ""), "\n"), 0)
			}
			told("the write", m.write("config/weather", client))
			as.await(1).holds(t, map[string]string{"scope": test.scope, "resource": test.url})
			m.write("role/weather/reader", fields{"audience": "c"})
			told("the status", m.read("status/weather")["warnings"].([]string))
			told("the role's status", m.read("status/weather/reader")["warnings"].([]string))
			equal(t, name+": the warnings of another write", m.write("config/weather", fields{"max_ttl": "1h"}), nil)
			told("another try", m.write("config/weather", fields{"rediscover": true}))
			as.answers(refusing(http.StatusBadRequest, "invalid_scope"))
			m.rejects("config/weather", fields{"audience": "c"}, "invalid_scope", "discovery warns: ", test.says)
			m.write("config/weather", fields{"scopes": "c", "resource": "urn:c", "verify": false})
			equal(t, name+": the warnings with scopes and resource", m.read("status/weather")["warnings"].([]string), nil)
		}
	}
}

// A warning of discovery often explains a later failure.
func TestWarningsOfDiscoveryStay(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"grant_types_supported": []string{"authorization_code"}})
	const warning = "does not list the client_credentials grant"
	as.answers(refusing(http.StatusBadRequest, "unauthorized_client"))
	m.rejects("config/weather", mcp.client(), "unauthorized_client", "discovery warns: ", warning)
	as.answers(granting(nil))
	warns(t, "the write", m.write("config/weather", mcp.client()), warning)
	m.write("role/weather/reader", fields{"scopes": "a"})
	m.restart()
	for _, name := range []string{"weather", "weather/reader"} {
		warns(t, "the status of "+name, m.read("status/" + name)["warnings"].([]string), warning)
	}
	as.answers(refusing(http.StatusBadRequest, "invalid_scope"))
	m.rejects("config/weather", fields{"scopes": "b"}, "invalid_scope", warning)
	m.rejects("role/weather/reader", fields{"scopes": "b"}, "invalid_scope", warning)
	as.answers(granting(nil))
	as.describes(nil)
	m.write("config/weather", fields{"rediscover": true})
	equal(t, "the warnings after another discovery", m.read("status/weather")["warnings"].([]string), nil)
}

// The credentials may belong to an authorization server other than the first one in the metadata.
func TestRefusalNamesTheOtherServers(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	other := newAuthServer(t)
	other.describes(nil)
	mcp.mu.Lock()
	mcp.issuers = append(mcp.issuers, other.URL)
	mcp.mu.Unlock()
	as.answers(refusing(http.StatusUnauthorized, "invalid_client"))
	m.rejects("config/weather", mcp.client(), "invalid_client", "write issuer="+other.URL+" if the credentials are for it")
	other.asked(t, 0, "after a refusal of the first server")
	m.write("config/weather", with(mcp.client(), fields{"issuer": other.URL}))
	other.answers(refusing(http.StatusUnauthorized, "invalid_client"))
	_, err := m.do(logical.UpdateOperation, "config/weather", fields{"scopes": "a"})
	if err == nil || strings.Contains(err.Error(), "another authorization server") {
		t.Errorf("with the operator's issuer the refusal is %v", err)
	}
}

// The audience of assertions is the issuer as the authorization server writes it.
func TestOperatorsIssuerWithoutItsSlash(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.describes(fields{"issuer": as.URL + "/"})
	m.write("config/weather", fields{"issuer": as.URL, "client_id": "vault", "private_key": pemOf(t, edKey(t))})
	equal(t, "the audience", m.asserted(as.await(1)).Audience, as.URL+"/")
	// The issuer without the slash counts as the same issuer.
	as.describes(nil)
	m.write("config/weather", fields{"rediscover": true})
	equal(t, "the issuer", m.read("config/weather")["discovered_issuer"], as.URL)
}
