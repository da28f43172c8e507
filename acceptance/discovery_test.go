package acceptance

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Each way to find the authorization server gets a token for the MCP server, and its refresh.
func TestEveryWayToFindTheAuthorizationServer(t *testing.T) {
	t.Parallel()
	const both = "tools:list tools:call"
	for _, c := range []struct {
		name       string
		mcp        bed.MCPOptions
		where      func(u *upstream) map[string]any
		scope      string // granted if the config has no scopes
		discovered bool
	}{
		{"challenge", bed.MCPOptions{}, serverURL, both, true},
		{"challenge with scopes", bed.MCPOptions{ChallengeScopes: []string{"tools:list"}}, serverURL, "tools:list", true},
		{"metadata without a challenge", bed.MCPOptions{Quiet: true}, serverURL, both, true},
		{"issuer alone", bed.MCPOptions{}, func(u *upstream) map[string]any {
			return map[string]any{"issuer": u.bed.AS.Issuer, "resource": u.mcp.URL}
		}, "", true},
		{"issuer beside the server", bed.MCPOptions{}, func(u *upstream) map[string]any {
			return map[string]any{"issuer": u.bed.AS.Issuer, "server_url": u.mcp.URL}
		}, both, true},
		{"token endpoint", bed.MCPOptions{}, func(u *upstream) map[string]any {
			return map[string]any{"token_url": u.bed.AS.TokenURL(), "resource": u.mcp.URL}
		}, "", false},
		{"token endpoint over TLS", bed.MCPOptions{}, func(u *upstream) map[string]any {
			return map[string]any{"token_url": u.bed.AS.MTLSTokenURL(), "ca_cert": u.bed.AS.CA.PEM, "server_url": u.mcp.URL}
		}, both, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const lifetime = 10 * time.Second // refreshed every 5 s
			u := newUpstream(t, shared(t), "", lifetime)
			u.serve(t, lifetime, c.mcp)
			settings := c.where(u)
			settings["client_id"], settings["client_secret"] = u.client.ID, u.client.Secret
			u.write(t, "config/"+u.name, settings)

			first := u.token(t, "token/"+u.name)
			if first.Scope != c.scope {
				t.Errorf("scope %q, want %q", first.Scope, c.scope)
			}
			if c.discovered {
				u.checkConfig(t)
			} else if config := u.read(t, "config/"+u.name); config["discovered_issuer"] != nil {
				t.Errorf("discovered_issuer is %v, although the config needs no discovery", config["discovered_issuer"])
			}
			u.awaitAnother(t, "token/"+u.name, first, lifetime)
			for _, r := range u.requests(t) {
				if r.Status != http.StatusOK || r.Resource != u.mcp.URL {
					t.Errorf("token request %+v, want one for %s that succeeds", r, u.mcp.URL)
				}
			}
		})
	}
}

func serverURL(u *upstream) map[string]any { return map[string]any{"server_url": u.mcp.URL} }

// The discovered endpoints stay: rewriting the config, and refreshing the token and a role, run no discovery.
// rediscover runs one.
func TestDiscoveryIsPinned(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	path := "config/" + u.name
	settings := u.discovered(map[string]any{"client_secret": u.client.Secret})
	u.write(t, path, settings)
	asked := u.mcp.Counts().Requests
	if asked == 0 {
		t.Fatal("the MCP server was not asked for its authorization server")
	}
	before := u.read(t, path)["discovered_at"]

	u.write(t, path, settings)
	u.write(t, path, map[string]any{"scopes": "tools:list"})
	u.write(t, "role/"+u.name+"/caller", map[string]any{"scopes": "tools:call"})
	u.token(t, "token/"+u.name+"/caller")
	if got := u.mcp.Counts().Requests; got != asked {
		t.Errorf("the MCP server was asked again, %d times", got-asked)
	}
	if got := u.read(t, path)["discovered_at"]; got != before {
		t.Errorf("discovered_at changed from %v to %v", before, got)
	}

	u.write(t, path, map[string]any{"rediscover": true})
	if got := u.mcp.Counts().Requests; got == asked {
		t.Error("rediscover did not ask the MCP server")
	}
	u.token(t, "token/"+u.name)
	u.checkConfig(t)
}

// Credentials belong to the authorization server for which they were written. If the MCP server now names another
// one, rediscover does not send them to it.
func TestRediscoveryKeepsCredentialsFromAnotherIssuer(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	path := "config/" + u.name
	u.write(t, path, u.discovered(map[string]any{"client_secret": u.client.Secret}))
	before := u.token(t, "token/"+u.name)

	var asked atomic.Int32
	mux := http.NewServeMux()
	other := httptest.NewServer(mux)
	t.Cleanup(other.Close)
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": other.URL, "token_endpoint": other.URL + "/token"})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "{}", http.StatusBadRequest)
	})

	u.mcp.Name(other.URL)
	u.refuse(t, path, map[string]any{"rediscover": true}, http.StatusBadRequest, other.URL)
	if n := asked.Load(); n > 0 {
		t.Errorf("the other authorization server was sent %d token requests", n)
	}
	u.checkConfig(t)
	u.wantToken(t, "token/"+u.name, before)

	// If the same write supplies the credentials, they are sent to the other server, which refuses them.
	u.refuse(t, path, map[string]any{"rediscover": true, "client_secret": u.client.Secret}, http.StatusBadGateway, u.name)
	if n := asked.Load(); n != 1 {
		t.Errorf("the other authorization server was sent %d token requests, want 1", n)
	}
}
