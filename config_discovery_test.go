package mcpoauth

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// discoverable starts a mount, an authorization server, and an MCP server that takes its tokens.
func discoverable(t *testing.T, metadata fields) (*mount, *authServer, *mcpServer) {
	t.Helper()
	as := newAuthServer(t)
	return newMount(t), as, newMCPServer(t, as, metadata)
}

func TestServerURLAloneIsEnough(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	began := time.Now().Truncate(time.Second)
	equal(t, "the warnings of a write without fault", m.write("config/weather", mcp.client()), nil)
	request := as.await(1)
	equal(t, "the path and client", request.path+" "+request.clientID, "/token vault")
	request.holds(t, map[string]string{"secret": secret})
	equal(t, "the resource", request.form["resource"], []string{mcp.url()})
	m.holds("weather", "t0ken-1")
	read := m.read("config/weather")
	shows(t, read, fields{"discovered_issuer": as.URL, "discovered_token_url": as.URL + "/token", "issuer": "", "token_url": ""})
	if at := instant(t, read, "discovered_at"); at.Before(began) || at.After(time.Now()) {
		t.Errorf("discovered_at is %s", at)
	}
}

// The more explicit source wins. The others supply only the missing values.
func TestMostExplicitSourceOfDiscoveryWins(t *testing.T) {
	for _, test := range []struct {
		name       string
		give       func(as, other *authServer, mcp *mcpServer) fields
		want       string // the server of the first token
		asked      bool   // reports whether the MCP server gets a request
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
			equal(t, "requests to as and other", []int{as.count(), other.count()},
				map[string][]int{"as": {1, 0}, "other": {0, 1}}[test.want])
			equal(t, "a request to the MCP server", mcp.called() > 0, test.asked)
			equal(t, "discovered", m.read("config/weather")["discovered_issuer"] != nil, test.discovered)
		})
	}
}

// Discovered metadata stays until the operator writes rediscover=true.
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
	m.restart()
	m.token("weather")
	equal(t, "requests of discovery", []int{as.looked(), mcp.called()}, []int{looked, called})
	for _, field := range []string{"discovered_issuer", "discovered_token_url", "discovered_at"} {
		equal(t, field, m.read("config/weather")[field], was[field])
	}

	m.write("config/weather", fields{"rediscover": true})
	if as.looked() == looked || mcp.called() == called {
		t.Error("rediscover=true made no request")
	}
	equal(t, "after rediscover=true the token endpoint", m.read("config/weather")["discovered_token_url"], as.URL+"/other")
	equal(t, "the path of the last token request", as.await(as.count()).path, "/other")
}

// A rediscovery with a different result is verified, even if the token would stay the same.
func TestRediscoveryThatFindsSomethingElseIsVerified(t *testing.T) {
	algorithms := func(alg string) fields {
		return fields{
			"token_endpoint_auth_methods_supported":            []string{"private_key_jwt"},
			"token_endpoint_auth_signing_alg_values_supported": []string{alg},
		}
	}
	for name, c := range map[string]struct {
		client  fields // replaces the secret
		first   fields // metadata before
		changes func(*testing.T, *authServer, *mcpServer)
		brings  fields
	}{
		"another signing algorithm": {
			client:  fields{"key_type": "rsa-2048"},
			first:   algorithms("RS256"),
			changes: func(_ *testing.T, as *authServer, _ *mcpServer) { as.describes(algorithms("PS256")) },
		},
		"another issuer, the same token endpoint": {
			client: fields{"client_secret": secret},
			changes: func(t *testing.T, as *authServer, mcp *mcpServer) {
				other := newAuthServer(t)
				other.describes(fields{"token_endpoint": as.URL + "/token"})
				mcp.wants(other)
			},
			brings: fields{"client_secret": secret},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, as, mcp := discoverable(t, c.first)
			m.write("config/weather", with(fields{"server_url": mcp.url(), "client_id": "vault"}, c.client))
			m.token("weather")
			as.asked(t, 1, "after the first read")
			m.write("config/weather", fields{"rediscover": true})
			as.asked(t, 1, "after a rediscovery that found the same")

			c.changes(t, as, mcp)
			as.answers(refusing(http.StatusUnauthorized, "invalid_client"))
			was := m.storage.entries(t)
			m.rejects("config/weather", with(fields{"rediscover": true}, c.brings), "invalid_client")
			m.storage.unchanged(t, was)
		})
	}
}

// A write with another source runs a new discovery.
func TestAnotherSourceIsDiscovered(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	other := newAuthServer(t)
	other.describes(nil)
	m.write("config/weather", fields{"issuer": other.URL, "client_secret": secret})
	other.asked(t, 1, "after a write of its issuer")
	m.write("config/weather", fields{"token_url": as.URL + "/token", "client_secret": secret})
	equal(t, "discovered_issuer beside token_url", m.read("config/weather")["discovered_issuer"], nil)
	m.write("config/weather", fields{"token_url": "", "issuer": "", "client_secret": secret})
	equal(t, "the issuer", m.read("config/weather")["discovered_issuer"], as.URL)
	m.rejects("config/weather",
		fields{"token_url": as.URL + "/token", "server_url": "", "client_secret": secret, "rediscover": true}, "rediscover=true has nothing to look for")
}

// Credentials belong to one issuer, and never go to another.
func TestAnotherIssuerNeedsTheCredentials(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		if kind.name == "client certificate" {
			continue // needs TLS: see TestClientCertificate
		}
		t.Run(kind.name, func(t *testing.T) {
			m, as, mcp := discoverable(t, nil)
			client := with(fields{"server_url": mcp.url(), "client_id": "vault", "verify": true}, kind.give)
			m.write("config/weather", client)
			thief := newAuthServer(t)
			thief.describes(nil)
			mcp.wants(thief)
			was, asked := m.storage.entries(t), as.count()
			m.rejects("config/weather", fields{"rediscover": true},
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
			equal(t, "the issuer", m.read("config/weather")["discovered_issuer"], thief.URL)
			thief.asked(t, 1, "after the write with credentials")
		})
	}
}

// verify=false contacts no server.
func TestDiscoveryWithoutVerify(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.rejects("config/weather", with(mcp.client(), fields{"verify": false}),
		"the authorization server has yet to be discovered", "write token_url, or leave out verify=false")
	equal(t, "the keys", keysOf(t, m), nil)
	equal(t, "requests of discovery", []int{as.looked(), mcp.called()}, []int{0, 0})

	m.write("config/weather", mcp.client())
	looked, called := as.looked(), mcp.called()
	m.write("config/weather", fields{"scopes": "a b", "verify": false})
	m.write("config/weather", with(mcp.client(), fields{"client_secret": "new-" + secretMark, "verify": false}))
	for _, change := range []fields{{"rediscover": true}, {"issuer": as.URL, "client_secret": secret}} {
		m.rejects("config/weather", with(change, fields{"verify": false}), "yet to be discovered")
	}
	equal(t, "requests of discovery after more writes", []int{as.looked(), mcp.called()}, []int{looked, called})
	as.asked(t, 1, "after writes with verify=false")
}

func TestWritingBackDiscoveredValuesChangesNothing(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		if kind.name == "client certificate" {
			continue // needs TLS: see TestClientCertificate
		}
		t.Run(kind.name, func(t *testing.T) {
			m, as, mcp := discoverable(t, nil)
			m.write("config/weather", with(fields{"server_url": mcp.url(), "client_id": "vault"}, kind.give))
			m.token("weather") // an unverified config is verified by its next write
			was, asked, looked := m.storage.entries(t), as.count(), as.looked()
			for _, verify := range []bool{true, false} {
				m.write("config/weather", with(m.read("config/weather"), fields{"verify": verify}))
				m.write("config/weather", with(with(m.read("config/weather"), kind.bring), fields{"verify": verify}))
			}
			m.storage.unchanged(t, was)
			as.asked(t, asked, "after writing back")
			equal(t, "requests for metadata", as.looked(), looked)
		})
	}
}

// Discovered values are read-only. The error keeps an operator from taking the write for a success.
func TestWritingOtherDiscoveredValuesIsRefused(t *testing.T) {
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
				m.rejects("config/weather", with(change, more), field+" is read-only", "leave it out")
			}
		}
	}
	m.rejects("config/named", fields{"discovered_issuer": as.URL}, "discovered_issuer is read-only")
	m.storage.unchanged(t, was)
	equal(t, "requests to the authorization server", []int{as.count(), as.looked()}, []int{asked, looked})
	for _, same := range []fields{{"discovered_scopes": "a,b"}, {"discovered_scopes": []string{"a", "b"}}, {"discovered_issuer": as.URL}, found} {
		m.write("config/weather", same)
	}
	m.write("config/named", fields{"discovered_issuer": "", "discovered_scopes": []string{}})
	m.storage.unchanged(t, was)

	// A copy of another config runs its own discovery.
	m.write("config/copy", with(m.read("config/weather"), fields{"client_secret": secret, "discovered_at": "2026-01-01T00:00:00Z"}))
	m.rejects("config/other", with(found, fields{"client_secret": secret, "discovered_scopes": "c"}), "discovered_scopes is read-only")
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
			equal(t, "the scope", request.form.Get("scope"), test.scope)
			m.write("role/weather/reader", fields{"scopes": "read"})
			equal(t, "the role's scope", as.await(2).form.Get("scope"), "read")
			if test.config["scopes"] == nil {
				equal(t, "scopes", m.read("config/weather")["scopes"], []string{})
			}
		})
	}
}

// An issuer and a server_url may be the same text. A secret for one must not go to the endpoint pinned for the other.
func TestIssuerThatIsSpelledAsTheServerURLIsAnotherSearch(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	n := as.count()
	_, err := m.do(logical.UpdateOperation, "config/weather", fields{
		"issuer": mcp.url(), "server_url": "https://mcp.example.com/mcp", "client_secret": "for-the-issuer-" + secretMark,
	})
	if err == nil {
		t.Error("the metadata pinned for the MCP server was kept for the issuer")
	}
	as.asked(t, n, "after the write that names another issuer")
}
