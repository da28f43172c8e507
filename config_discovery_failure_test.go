package mcpoauth

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
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
			equal(t, "the keys", keysOf(t, m), nil)
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
	m.holds("weather", "t0ken-1")
	m.write("config/weather", fields{"scopes": "a"})
	as.asked(t, 2, "after a write that needs no discovery")
}

// A new grant in the config changes the warning, without another discovery.
func TestWarningOfTheGrantFollowsTheGrant(t *testing.T) {
	m, _, mcp := discoverable(t, fields{"grant_types_supported": []string{"authorization_code"}})
	m.write("settings", fields{"public_url": publicURL})
	m.write("config/weather", with(mcp.client(), fields{"client_id": "", "client_secret": "", "identity": "issuer"}))
	const of = "does not list the "
	for _, test := range []struct{ grant, parameter string }{
		{"jwt_bearer", "urn:ietf:params:oauth:grant-type:jwt-bearer"}, {"client_credentials", "client_credentials"},
	} {
		grant, warning := test.grant, of+test.parameter+" grant"
		about := func(warnings []string) []string { // the grant
			return slices.DeleteFunc(warnings, func(text string) bool { return !strings.Contains(text, of) })
		}
		warns(t, "the write of grant="+grant, about(m.write("config/weather", fields{"grant": grant})), warning)
		m.restart()
		warns(t, "the status with grant="+grant, about(m.read("status/weather")["warnings"].([]string)), warning)
		warns(t, "a write of another field", about(m.write("config/weather", fields{"max_ttl": "1h"})))
		m.write("config/weather", fields{"max_ttl": "2h"})
	}
}
