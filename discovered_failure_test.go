package mcpoauth

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
)

func TestDiscoveryThatFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		spoil  func(as *authServer, mcp *mcpServer)
		status int
		says   func(as *authServer, mcp *mcpServer) []string
	}{
		{"no metadata of the authorization server", func(as *authServer, _ *mcpServer) {
			as.mu.Lock()
			defer as.mu.Unlock()
			as.metadata = nil
		}, 400, func(as *authServer, _ *mcpServer) []string {
			return []string{
				as.URL + "/.well-known/oauth-authorization-server: HTTP 404",
				as.URL + "/.well-known/openid-configuration: HTTP 404",
			}
		}},
		{
			"another's metadata", func(as *authServer, _ *mcpServer) { as.describes(fields{"issuer": "https://other.example.com"}) },
			400, func(*authServer, *mcpServer) []string { return []string{"its issuer is https://other.example.com"} },
		},
		{
			"another's resource", func(_ *authServer, mcp *mcpServer) { mcp.says(fields{"resource": "https://other.example.com"}) },
			400, func(_ *authServer, mcp *mcpServer) []string {
				return []string{mcp.URL, "its resource is https://other.example.com"}
			},
		},
		{
			"the authorization server is gone", func(as *authServer, _ *mcpServer) { as.Close() },
			502, func(as *authServer, _ *mcpServer) []string { return []string{as.URL, "connection refused"} },
		},
		{
			"the MCP server is gone", func(_ *authServer, mcp *mcpServer) { mcp.Close() },
			502, func(_ *authServer, mcp *mcpServer) []string { return []string{mcp.url(), "connection refused"} },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, as, mcp := discoverable(t, nil)
			test.spoil(as, mcp)
			m.refused(test.status, logical.UpdateOperation, "config/weather", mcp.client(),
				append(test.says(as, mcp), "nothing was stored", "could not be discovered")...)
			if got := m.storage.entries(t); len(got) != 0 {
				t.Errorf("storage holds %q", got)
			}
			as.asked(t, 0, "after the refused write")
		})
	}
}

func TestDiscoveryThatFailsLaterKeepsTheConfig(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	was := m.storage.entries(t)
	mcp.Close()
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", fields{"rediscover": true, "scopes": "a"}, "nothing was stored")
	m.storage.unchanged(t, was)
	if got := m.token("weather"); got != "t0ken-1" {
		t.Errorf("the token is %q", got)
	}
	m.write("config/weather", fields{"scopes": "a"})
	as.asked(t, 2, "after a write that needs no discovery")
}

func TestWarningsOfDiscovery(t *testing.T) {
	m, _, mcp := discoverable(t, fields{"grant_types_supported": []string{"authorization_code"}})
	warnings := m.write("config/weather", mcp.client())
	if len(warnings) != 1 || !strings.Contains(warnings[0], "does not list the client_credentials grant") {
		t.Errorf("the warnings are %q", warnings)
	}
}

// The guard of discovered endpoints holds at every call, not only when they are found:
// what a name resolves to may change.
func TestDiscoveredTokenEndpointIsGuardedForGood(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	m.stop()
	c, err := m.store().config(t.Context(), "weather")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Discovered.Policy.Loopback || c.Discovered.Policy.Private {
		t.Errorf("a loopback MCP server earned the policy %+v", c.Discovered.Policy)
	}
	c.Discovered.Policy = discovery.Policy{} // as if it had been public
	if err := m.store().putConfig(t.Context(), "weather", c); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.refused(http.StatusBadGateway, logical.ReadOperation, "token/weather/reader", nil, "loopback", "allow_private_addresses")
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", fields{"scopes": "a"}, "loopback", "nothing was stored")
	as.asked(t, 1, "with a guard that does not permit it")

	m.write("config/weather", fields{"token_url": as.URL + "/token", "client_secret": secret})
	if got := m.token("weather/reader"); got != "t0ken-3" {
		t.Errorf("the token is %q; want one of the operator's own token_url", got)
	}
}

// A write has a budget, whatever it waits for.
func TestWriteThatTakesTooLong(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	as.hold()
	// Long enough for what comes before a request that hangs, on a machine that is busy.
	m.b.(*backend).writeBudget = 4 * time.Second
	hanging := func(ctx context.Context, path string, data fields) (int, string) {
		t.Helper()
		_, err := m.b.HandleRequest(ctx, &logical.Request{
			Operation: logical.UpdateOperation, Path: path, Data: overHTTP(t, data), Storage: m.storage,
		})
		coded, ok := err.(logical.HTTPCodedError)
		if !ok {
			t.Fatalf("%v", err)
		}
		return coded.Code(), m.noted(err).Error()
	}
	const budget = "no answer within the 4s that a write may take"
	if status, text := hanging(t.Context(), "config/weather", as.client()); status != http.StatusBadGateway ||
		!strings.Contains(text, "nothing was stored") || !strings.Contains(text, budget) {
		t.Errorf("a verification: %d, %s", status, text)
	}
	// Where the caller's own time was shorter, that is what ended.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if status, text := hanging(ctx, "config/weather", as.client()); status != http.StatusGatewayTimeout ||
		!strings.Contains(text, "nothing was stored") || strings.Contains(text, "may take") {
		t.Errorf("a verification for a caller who gives up: %d, %s", status, text)
	}
	as.mu.Lock() // the metadata hangs too
	status, text := hanging(t.Context(), "config/weather", mcp.client())
	as.mu.Unlock()
	if status != http.StatusBadGateway || !strings.Contains(text, "nothing was stored") || !strings.Contains(text, as.URL) {
		t.Errorf("a discovery: %d, %s", status, text)
	}
	if got := m.storage.entries(t); len(got) != 0 {
		t.Errorf("storage holds %q", got)
	}
	m.write("config/weather", with(as.client(), fields{"verify": false}))
	was := m.storage.entries(t)
	if status, text := hanging(t.Context(), "role/weather/reader", fields{"scopes": "read"}); status != http.StatusBadGateway ||
		!strings.Contains(text, budget) {
		t.Errorf("a role's verification: %d, %s", status, text)
	}
	m.storage.unchanged(t, was)
}
