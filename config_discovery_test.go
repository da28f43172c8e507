package mcpoauth

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// discoverable starts a mount, an authorization server and an MCP server that wants its
// tokens.
func discoverable(t *testing.T, metadata fields) (*mount, *authServer, *mcpServer) {
	t.Helper()
	as := newAuthServer(t)
	return newMount(t), as, newMCPServer(t, as, metadata)
}

func TestServerURLAloneIsEnough(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	began := time.Now().Truncate(time.Second)
	if warnings := m.write("config/weather", mcp.client()); warnings != nil {
		t.Errorf("warnings of a write without fault: %q", warnings)
	}
	request := as.await(1)
	if request.path != "/token" || request.clientID != "vault" || request.clientSecret != secret {
		t.Errorf("the request was %+v", request)
	}
	equal(t, "the resource", request.form["resource"], []string{mcp.url()})
	m.holds("weather", "t0ken-1")
	read := m.read("config/weather")
	if read["discovered_issuer"] != as.URL || read["discovered_token_url"] != as.URL+"/token" {
		t.Errorf("the config reads %v", read)
	}
	if read["issuer"] != "" || read["token_url"] != "" {
		t.Errorf("issuer reads %q and token_url %q: what was found is not what was written", read["issuer"], read["token_url"])
	}
	if at := instant(t, read, "discovered_at"); at.Before(began) || at.After(time.Now()) {
		t.Errorf("discovered_at is %s", at)
	}
}

// The more explicit wins. What is less explicit is asked for the rest alone.
func TestWhereDiscoveryStarts(t *testing.T) {
	for _, test := range []struct {
		name       string
		give       func(as, other *authServer, mcp *mcpServer) fields
		want       string // where the first token comes from
		asked      bool   // the MCP server
		discovered bool
	}{
		{"server_url", func(_, _ *authServer, mcp *mcpServer) fields { return fields{"server_url": mcp.url()} }, "other", true, true},
		{"issuer", func(as, _ *authServer, _ *mcpServer) fields { return fields{"issuer": as.URL} }, "as", false, true},
		{"issuer before server_url", func(as, _ *authServer, mcp *mcpServer) fields {
			return fields{"issuer": as.URL, "server_url": mcp.url()}
		}, "as", true, true},
		{"token_url before server_url", func(as, _ *authServer, mcp *mcpServer) fields {
			return fields{"token_url": as.URL + "/token", "server_url": mcp.url()}
		}, "as", true, false},
		{"token_url before issuer", func(as, other *authServer, _ *mcpServer) fields {
			return fields{"token_url": as.URL + "/token", "issuer": other.URL}
		}, "as", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			as := newAuthServer(t)
			as.describes(nil)
			m, other, mcp := discoverable(t, nil)
			m.write("config/weather", with(test.give(as, other, mcp), fields{"client_id": "vault", "client_secret": secret}))
			for name, server := range map[string]*authServer{"as": as, "other": other} {
				want := 0
				if name == test.want {
					want = 1
				}
				server.asked(t, want, "after the write, of "+name)
			}
			if got := mcp.called() > 0; got != test.asked {
				t.Errorf("the MCP server was asked: %t; want %t", got, test.asked)
			}
			if _, got := m.read("config/weather")["discovered_issuer"]; got != test.discovered {
				t.Errorf("discovered: %t; want %t", got, test.discovered)
			}
		})
	}
}

// What was found stays until the operator asks again.
func TestDiscoveryIsPinned(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	was, looked, called := m.read("config/weather"), as.looked(), mcp.called()
	as.describes(fields{"token_endpoint": as.URL + "/other"})
	for _, change := range []fields{
		{},
		{"scopes": "a"},
		{"client_secret": "new-" + secretMark},
		{"max_ttl": "1h"},
		mcp.client(),
		{"allow_insecure_http": true, "client_secret": secret},
	} {
		m.write("config/weather", change)
	}
	m.refresh("weather", nil)
	m.stop()
	m.start()
	m.token("weather")
	if as.looked() != looked || mcp.called() != called {
		t.Errorf("after other writes, a refresh and a restart: %d and %d requests of discovery more", as.looked()-looked, mcp.called()-called)
	}
	for _, field := range []string{"discovered_issuer", "discovered_token_url", "discovered_at"} {
		if got := m.read("config/weather")[field]; got != was[field] {
			t.Errorf("%s is %v; it was %v", field, got, was[field])
		}
	}

	m.write("config/weather", fields{"rediscover": true})
	if as.looked() == looked || mcp.called() == called {
		t.Error("rediscover=true asked nobody")
	}
	if got := m.read("config/weather")["discovered_token_url"]; got != as.URL+"/other" {
		t.Errorf("after rediscover=true the token endpoint is %v", got)
	}
	if got := as.await(as.count()).path; got != "/other" {
		t.Errorf("the last token came from %s", got)
	}
}

// What discovery finds again is proved by a token, also if the token would be the same.
func TestRediscoveryThatFindsSomethingElseIsVerified(t *testing.T) {
	type party struct {
		m   *mount
		as  *authServer
		mcp *mcpServer
	}
	algorithms := func(alg string) fields {
		return fields{
			"token_endpoint_auth_methods_supported":            []string{"private_key_jwt"},
			"token_endpoint_auth_signing_alg_values_supported": []string{alg},
		}
	}
	for name, c := range map[string]struct {
		client  fields // in place of the secret
		first   fields // of the metadata
		changes func(*testing.T, party)
		brings  fields
	}{
		"another signing algorithm": {
			client:  fields{"key_type": "rsa-2048"},
			first:   algorithms("RS256"),
			changes: func(_ *testing.T, p party) { p.as.describes(algorithms("PS256")) },
		},
		"another issuer, the same token endpoint": {
			client: fields{"client_secret": secret},
			changes: func(t *testing.T, p party) {
				other := newAuthServer(t)
				other.describes(fields{"token_endpoint": p.as.URL + "/token"})
				p.mcp.wants(other)
			},
			brings: fields{"client_secret": secret},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var p party
			p.m, p.as, p.mcp = discoverable(t, c.first)
			p.m.write("config/weather", with(fields{"server_url": p.mcp.url(), "client_id": "vault"}, c.client))
			p.m.token("weather")
			p.as.asked(t, 1, "after the first read")
			p.m.write("config/weather", fields{"rediscover": true})
			p.as.asked(t, 1, "after a rediscovery that found the same")

			c.changes(t, p)
			p.as.answers(refusing(http.StatusUnauthorized, "invalid_client"))
			was := p.m.storage.entries(t)
			p.m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
				with(fields{"rediscover": true}, c.brings), "invalid_client")
			p.m.storage.unchanged(t, was)
		})
	}
}

// Another start is another search.
func TestAnotherSourceIsDiscovered(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	other := newAuthServer(t)
	other.describes(nil)
	m.write("config/weather", fields{"issuer": other.URL, "client_secret": secret})
	other.asked(t, 1, "after a write of its issuer")
	m.write("config/weather", fields{"token_url": as.URL + "/token", "client_secret": secret})
	if _, found := m.read("config/weather")["discovered_issuer"]; found {
		t.Error("with token_url the config still reads what was discovered")
	}
	m.write("config/weather", fields{"token_url": "", "issuer": "", "client_secret": secret})
	if got := m.read("config/weather")["discovered_issuer"]; got != as.URL {
		t.Errorf("the issuer is %v; want what the MCP server says", got)
	}
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
		fields{"token_url": as.URL + "/token", "server_url": "", "client_secret": secret, "rediscover": true}, "rediscover=true has nothing to look for")
}

// Credentials belong to an issuer, and are never given to another.
func TestAnotherIssuerNeedsTheCredentials(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		t.Run(kind.name, func(t *testing.T) {
			m, as, mcp := discoverable(t, nil)
			client := with(fields{"server_url": mcp.url(), "client_id": "vault", "verify": kind.name != "client certificate"}, kind.give)
			if kind.name == "client certificate" {
				t.Skip("needs TLS: see TestClientCertificate")
			}
			m.write("config/weather", client)
			thief := newAuthServer(t)
			thief.describes(nil)
			mcp.wants(thief)
			was, asked := m.storage.entries(t), as.count()
			m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"rediscover": true},
				"discovery now finds the issuer", thief.URL, as.URL, "write the credentials too")
			m.storage.unchanged(t, was)
			thief.asked(t, 0, "after the refused write")
			as.asked(t, asked, "after the refused write")
			if kind.name == "plugin-made key" {
				// A new key is made if the operator says that the issuer is another.
				m.write("config/weather", with(kind.bring, fields{"issuer": thief.URL}))
				thief.asked(t, 0, "after the write with a new key, which it cannot know yet")
				return
			}
			m.write("config/weather", with(kind.bring, fields{"rediscover": true}))
			if got := m.read("config/weather")["discovered_issuer"]; got != thief.URL {
				t.Errorf("the issuer is %v", got)
			}
			thief.asked(t, 1, "after the write with credentials")
		})
	}
}

// verify=false contacts no server.
func TestDiscoveryWithoutVerify(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(mcp.client(), fields{"verify": false}),
		"the authorization server has yet to be discovered", "write token_url, or leave out verify=false")
	if got := m.storage.entries(t); len(got) != 0 {
		t.Errorf("storage holds %q", got)
	}
	if as.looked() != 0 || mcp.called() != 0 {
		t.Error("a write with verify=false asked somebody")
	}

	m.write("config/weather", mcp.client())
	looked, called := as.looked(), mcp.called()
	m.write("config/weather", fields{"scopes": "a b", "verify": false})
	m.write("config/weather", with(mcp.client(), fields{"client_secret": "new-" + secretMark, "verify": false}))
	for _, change := range []fields{{"rediscover": true}, {"issuer": as.URL, "client_secret": secret}} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(change, fields{"verify": false}), "yet to be discovered")
	}
	if as.looked() != looked || mcp.called() != called {
		t.Error("a write with verify=false asked somebody")
	}
	as.asked(t, 1, "after writes with verify=false")
}

func TestWritingBackWhatWasDiscoveredChangesNothing(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		if kind.name == "client certificate" {
			continue // needs TLS: see TestClientCertificate
		}
		t.Run(kind.name, func(t *testing.T) {
			m, as, mcp := discoverable(t, nil)
			m.write("config/weather", with(fields{"server_url": mcp.url(), "client_id": "vault"}, kind.give))
			m.token("weather") // what was never verified would be
			was, asked, looked := m.storage.entries(t), as.count(), as.looked()
			for _, verify := range []bool{true, false} {
				m.write("config/weather", with(m.read("config/weather"), fields{"verify": verify}))
				m.write("config/weather", with(with(m.read("config/weather"), kind.bring), fields{"verify": verify}))
			}
			m.storage.unchanged(t, was)
			as.asked(t, asked, "after writing back")
			if as.looked() != looked {
				t.Error("writing back discovered again")
			}
		})
	}
}

// What was discovered can't be written: a write that tries would be taken for one that did.
func TestWritingWhatWasNotDiscoveredIsRefused(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	mcp.says(fields{"scopes_supported": []string{"a", "b"}})
	m.write("config/weather", mcp.client())
	m.write("config/named", as.client())
	found := m.read("config/weather")
	delete(found, "discovered_at")
	was, asked, looked := m.storage.entries(t), as.count(), as.looked()
	for _, change := range []fields{
		{"discovered_issuer": "https://other.example.com"},
		{"discovered_issuer": as.URL + "/"},
		{"discovered_issuer": ""},
		{"discovered_token_url": as.URL + "/other"},
		{"discovered_scopes": []string{"a"}},
		{"discovered_scopes": []string{"b", "a"}},
		{"discovered_scopes": "a,b,c"},
		{"discovered_scopes": ""},
		{"discovered_at": "2026-01-01T00:00:00Z"},
		{"discovered_at": map[string]any{"a": 1}},
	} {
		for _, more := range []fields{nil, {"verify": false}, {"rediscover": true}, {"client_secret": secret, "scopes": "c"}} {
			for field := range change {
				m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(change, more), field+" is read-only", "leave it out")
			}
		}
	}
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/named", fields{"discovered_issuer": as.URL}, "discovered_issuer is read-only")
	m.storage.unchanged(t, was)
	if as.count() != asked || as.looked() != looked {
		t.Error("a refused write asked the authorization server")
	}
	for _, same := range []fields{{"discovered_scopes": "a,b"}, {"discovered_scopes": []string{"a", "b"}}, {"discovered_issuer": as.URL}, found} {
		m.write("config/weather", same)
	}
	m.write("config/named", fields{"discovered_issuer": "", "discovered_scopes": []string{}})
	m.storage.unchanged(t, was)

	// A config that is written from what another one reads discovers for itself.
	m.write("config/copy", with(m.read("config/weather"), fields{"client_secret": secret, "discovered_at": "2026-01-01T00:00:00Z"}))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/other", with(found, fields{"client_secret": secret, "discovered_scopes": "c"}), "discovered_scopes is read-only")
}

func TestScopesAndResourceFromDiscovery(t *testing.T) {
	for _, test := range []struct {
		name     string
		says     fields
		config   fields
		scope    string
		resource []string // relative to the MCP server
	}{
		{"none", nil, nil, "", []string{"/mcp"}},
		{"discovered", fields{"scopes_supported": []string{"a", "b"}}, nil, "a b", []string{"/mcp"}},
		{"the operator's", fields{"scopes_supported": []string{"a", "b"}}, fields{"scopes": "c"}, "c", []string{"/mcp"}},
		{"the server's own spelling", fields{"resource": "/mcp/"}, nil, "", []string{"/mcp/"}},
		{"the operator's resource", fields{"resource": "/mcp/"}, fields{"resource": "/other"}, "", []string{"/other"}},
		{"no resource", nil, fields{"omit_resource": true}, "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, as, mcp := discoverable(t, nil)
			absolute := func(f fields) fields {
				if path, ok := f["resource"].(string); ok {
					return with(f, fields{"resource": mcp.URL + path})
				}
				return f
			}
			mcp.says(absolute(test.says))
			m.write("config/weather", with(mcp.client(), absolute(test.config)))
			var want []string
			for _, path := range test.resource {
				want = append(want, mcp.URL+path)
			}
			request := as.await(1)
			equal(t, "the resource", request.form["resource"], want)
			if got := request.form.Get("scope"); got != test.scope {
				t.Errorf("the scope is %q; want %q", got, test.scope)
			}
			m.write("role/weather/reader", fields{"scopes": "read"})
			if got := as.await(2).form; got.Get("scope") != "read" {
				t.Errorf("the role's scope is %q", got.Get("scope"))
			}
			read := m.read("config/weather")
			if test.config["scopes"] == nil && len(read["scopes"].([]string)) > 0 {
				t.Errorf("scopes reads %q: what was found is not what was written", read["scopes"])
			}
		})
	}
}

// An issuer and a server_url may be the same text and mean another search: a secret
// that is brought for the one must not go to what was pinned for the other.
func TestIssuerThatIsSpelledAsTheServerURLIsAnotherSearch(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	n := as.count()
	_, err := m.do(logical.UpdateOperation, "config/weather", fields{
		"issuer": mcp.url(), "server_url": "https://mcp.example.com/mcp", "client_secret": "for-the-issuer-" + secretMark,
	})
	if err == nil {
		t.Error("what had been pinned for the MCP server was kept for the issuer")
	}
	as.asked(t, n, "after the write that names another issuer")
}

// repin changes what is pinned in the stored config, as another world would have had it.
func repin(m *mount, change func(*discovered)) {
	m.t.Helper()
	m.stop()
	c, err := m.store().config(m.t.Context(), "weather")
	if err == nil {
		change(c.Discovered)
		err = m.store().putConfig(m.t.Context(), "weather", c)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.start()
}
