//go:build brokers

package acceptance

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// buildKuadrant builds a command from the modules that tools/kuadrant pins. The first build takes minutes.
func buildKuadrant(t *testing.T, command string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), filepath.Base(command))
	cmd := bed.GoBuild(t.Context(), binary, command)
	cmd.Dir = absolute(t, "../tools/kuadrant")
	output(t, cmd)
	return binary
}

// startEnvoy starts Envoy with the configuration envoy.yaml of a directory.
func startEnvoy(t *testing.T, b *bed.Bed, name, dir string) {
	t.Helper()
	startGateway(t, b, "envoy-"+name, dir, []string{envoyBinary(t), "-c", "envoy.yaml", "--log-level", "info", "--concurrency", "1", "--use-dynamic-base-id"})
}

// Kuadrant's MCP gateway with the example's configuration lists and calls the tool for ten token lifetimes, without a
// failure or a notification of a changed list.
func TestBrokersKuadrantListsAndCalls(t *testing.T) {
	const lifetime = 20 * time.Second
	b := shared(t)
	u := newConfigured(t, b, "", lifetime)
	p := u.startTokenProxy(t)
	proxy := bed.Must(url.Parse(p.url))(t)
	gateway, broker, router := freePort(t), freePort(t), freePort(t)
	ports := strings.NewReplacer("8300", proxy.Port(), "8888", gateway, "8080", broker, "50051", router)
	dir := t.TempDir()
	for _, name := range []string{"config.yaml", "envoy.yaml"} {
		bed.OK(t, os.WriteFile(filepath.Join(dir, name), []byte(ports.Replace(example(t, "kuadrant/"+name))), 0o600))
	}
	startEnvoy(t, b, "kuadrant", dir)
	startGateway(t, b, "kuadrant", dir, []string{
		buildKuadrant(t, "github.com/Kuadrant/mcp-gateway/cmd/mcp-broker-router"),
		"--mcp-gateway-config=config.yaml",
		"--mcp-gateway-public-host=127.0.0.1:" + gateway, "--mcp-gateway-private-host=127.0.0.1:" + gateway,
		"--mcp-broker-public-address=127.0.0.1:" + broker, "--mcp-router-address=127.0.0.1:" + router,
		"--log-level=8", // session ids in its log are JWTs
	}, "GATEWAY_SIGNING_KEY="+newSecret())

	const tool = "files_forecast"
	var changes atomic.Int32 // notifications to the client
	endpoint := "http://127.0.0.1:" + gateway + "/mcp"
	call := callsThrough(t, endpoint, tool, header{})
	client := mcp.NewClient(&mcp.Implementation{Name: "lister", Version: "1.0.0"}, &mcp.ClientOptions{
		ToolListChangedHandler: func(_ context.Context, _ *mcp.ToolListChangedRequest) { changes.Add(1) },
	})
	session := bed.Must(client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: endpoint}, nil))(t)
	t.Cleanup(func() { _ = session.Close() })
	calls, lost := callFor(t, 10*lifetime, func(t *testing.T) string {
		if err := hasTool(t.Context(), session, tool); err != nil {
			return err.Error()
		}
		return call(t)
	})
	t.Logf("%s: %d of %d lists with a call lost", t.Name(), lost, calls)
	counts := u.mcp.Counts()
	if counts.Tokens < 10 || counts.Unauthorized > 0 || changes.Load() > 0 {
		t.Errorf("the MCP server has received %d tokens, and refused %d requests, and the client was notified of %d changes; want at least ten, no refusal and no change",
			counts.Tokens, counts.Unauthorized, changes.Load())
	}
}

// Authorino with the example's AuthConfig adds the token to calls of a client whose own token satisfies Vault's role.
// Its Vault token expires several times during the test. Other clients are refused.
func TestBrokersAuthorinoLogsInAndBringsTheToken(t *testing.T) {
	const lifetime = 20 * time.Second
	b := shared(t)
	u := newConfigured(t, b, "", lifetime)
	clients, strangers := newConfigured(t, b, "-clients", 10*time.Minute), newConfigured(t, b, "-strangers", 10*time.Minute)
	policy := "authorino-clients"
	bed.OK(t, b.Vault.PutPolicy(t.Context(), policy, u.example(t, "policy.hcl")))
	for _, write := range []struct {
		path string
		data map[string]any
	}{
		{"sys/auth/jwt", map[string]any{"type": "jwt"}},
		{"auth/jwt/config", map[string]any{"oidc_discovery_url": b.AS.Issuer}},
		{"auth/jwt/role/mcp-clients", map[string]any{
			"role_type": "jwt", "user_claim": "sub", "bound_audiences": clients.mcp.URL, "token_policies": policy, "token_type": "batch", "token_ttl": "75s",
		}},
	} {
		bed.Must(u.root.Logical().WriteWithContext(t.Context(), write.path, write.data))(t)
	}

	port, grpc := freePort(t), freePort(t)
	server := bed.Must(url.Parse(u.mcp.URL))(t)
	envoy := bed.Must(os.ReadFile(brokerFile(t, "authorino_envoy.yaml")))(t)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"authconfig.yaml": strings.NewReplacer("https://vault.example.com:8200", b.Vault.Address,
			"https://idp.example.com/realms/mcp", b.AS.Issuer, "files.mcp.example.com", "127.0.0.1:"+port,
		).Replace(u.example(t, "authorino/authconfig.yaml")),
		"envoy.yaml": strings.NewReplacer("8300", port, "50052", grpc,
			"{ address: files.example.com, port_value: 443 }", fmt.Sprintf("{ address: %s, port_value: %s }", server.Hostname(), server.Port()),
		).Replace(string(envoy)),
	} {
		bed.OK(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	startGateway(t, b, "authorino", dir, []string{buildKuadrant(t, "./authconfig"), "-listen", "127.0.0.1:" + grpc})
	startEnvoy(t, b, "authorino", dir)

	endpoint := "http://127.0.0.1:" + port + "/mcp"
	stranger := "Bearer " + strangers.token(t, "token/"+strangers.name).AccessToken
	for authorization, want := range map[string]int{"": http.StatusUnauthorized, "Bearer x.y.z": http.StatusUnauthorized, stranger: http.StatusForbidden} {
		bed.Until(t, time.Minute, fmt.Sprint("status ", want), func() bool {
			a, err := ask(t.Context(), endpoint, "{}", http.Header{"Authorization": {authorization}})
			return err == nil && a.status == want
		})
	}
	if counts := u.mcp.Counts(); counts.Tokens > 0 || counts.Unauthorized > 0 {
		t.Errorf("requests that Authorino refused have reached the MCP server: %+v", counts)
	}

	authorized := &http.Client{Transport: header{"Authorization", "Bearer " + clients.token(t, "token/"+clients.name).AccessToken}}
	session := connect(t, &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: authorized})
	calls, lost := callFor(t, 10*lifetime, callsOf(session, "forecast"))
	t.Logf("%s: %d of %d calls lost", t.Name(), lost, calls)
	if counts := u.mcp.Counts(); counts.Tokens < 10 || counts.Unauthorized > 0 {
		t.Errorf("the MCP server has received %d tokens, and refused %d requests; want at least ten, and no refusal", counts.Tokens, counts.Unauthorized)
	}
}
