//go:build brokers

package acceptance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// startLimit is how long a gateway may take to start on a busy machine.
const startLimit = 5 * time.Minute

// A header is a RoundTripper that adds the header to each request, unless the name is empty.
type header struct{ name, value string }

func (h header) RoundTrip(r *http.Request) (*http.Response, error) {
	if h.name != "" {
		r = r.Clone(r.Context())
		r.Header.Set(h.name, h.value)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// litellmAt starts LiteLLM's proxy for one MCP server, and returns a client's calls through the proxy.
func litellmAt(t *testing.T, b *bed.Bed, python, url string) calling {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	config := "mcp_servers:\n  files:\n    url: " + url + "\n    transport: http\n"
	bed.OK(t, os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o600))
	key := "sk-" + rand.Text()
	startGateway(t, b, "litellm", dir,
		[]string{python, filepath.Join(filepath.Dir(python), "litellm"), "--config", "config.yaml", "--host", "127.0.0.1", "--port", port, "--telemetry", "False"},
		"LITELLM_MASTER_KEY="+key,
		"LITELLM_LOCAL_MODEL_COST_MAP=True") // otherwise LiteLLM fetches it from GitHub
	return callsThrough(t, "http://127.0.0.1:"+port+"/mcp/", "files-forecast", header{"X-Litellm-Api-Key", "Bearer " + key})
}

// contextForgeAt starts ContextForge, registers one MCP server, and returns a client's calls through ContextForge.
func contextForgeAt(t *testing.T, b *bed.Bed, python, url string) calling {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	startGateway(t, b, "contextforge", dir,
		[]string{python, filepath.Join(filepath.Dir(python), "mcpgateway"), "--host", "127.0.0.1", "--port", port},
		"SSRF_ALLOW_LOCALHOST=true", // for a proxy on loopback
		"DATABASE_URL=sqlite:///"+filepath.Join(dir, "gateway.db"), "CACHE_TYPE=memory",
		"RATE_LIMITING_ENABLED=false", // otherwise a client is limited to 100 calls a minute
		"AUTH_REQUIRED=false", "MCP_REQUIRE_AUTH=false", "ALLOW_UNAUTHENTICATED_ADMIN=true",
		"JWT_SECRET_KEY="+newSecret(), "AUTH_ENCRYPTION_SECRET="+newSecret())
	registration := fmt.Sprintf(`{"name": "files", "url": %q, "transport": "STREAMABLEHTTP"}`, url)
	bed.Eventually(t, startLimit, func() error {
		a, err := ask(t.Context(), "http://127.0.0.1:"+port+"/gateways", registration, nil)
		if err == nil && a.status/100 != 2 {
			err = fmt.Errorf("status %d: %s", a.status, a.body)
		}
		return err
	})
	return callsThrough(t, "http://127.0.0.1:"+port+"/mcp/", "files-forecast", header{})
}

// startGateway runs a gateway in a directory until the end of the test. If the gateway ends earlier, the test fails.
func startGateway(t *testing.T, b *bed.Bed, name, dir string, command []string, env ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = slices.Concat(env, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")})
	process := bed.Must(b.NewProcess(name, cmd))(t)
	stopAtEnd(t, name, process)
}

// callsThrough connects a client as soon as the gateway lists the tool, and returns the session's calls.
func callsThrough(t *testing.T, endpoint, tool string, h header) calling {
	t.Helper()
	var session *mcp.ClientSession
	bed.Eventually(t, startLimit, func() error {
		client := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1.0.0"}, nil)
		connected, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: &http.Client{Transport: h}}, nil)
		if err != nil {
			return err
		}
		if err := hasTool(t.Context(), connected, tool); err != nil {
			return errors.Join(err, connected.Close())
		}
		session = connected
		return nil
	})
	t.Cleanup(func() { _ = session.Close() })
	return callsOf(session, tool)
}

// callLimit is the longest duration of a call. A longer call counts as lost.
const callLimit = 30 * time.Second

func callsOf(session *mcp.ClientSession, tool string) calling {
	return func(t *testing.T) string {
		ctx, cancel := context.WithTimeout(t.Context(), callLimit)
		defer cancel()
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: map[string]any{"city": "Oslo"}})
		if err != nil {
			return err.Error()
		}
		var said []string
		for _, content := range result.Content {
			if text, ok := content.(*mcp.TextContent); ok {
				said = append(said, text.Text)
			}
		}
		return strings.Join(said, "\n")
	}
}

// hasTool reports an error unless the gateway lists the tool.
func hasTool(ctx context.Context, session *mcp.ClientSession, tool string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	listed, err := session.ListTools(ctx, nil)
	if err != nil {
		return err
	}
	for _, t := range listed.Tools {
		if t.Name == tool {
			return nil
		}
	}
	return fmt.Errorf("no tool %s among %d", tool, len(listed.Tools))
}
