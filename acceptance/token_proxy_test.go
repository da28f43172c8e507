package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.yaml.in/yaml/v3"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// tokenProxyExample is the example's configuration file.
const tokenProxyExample = "mcp-token-proxy/proxy.hcl"

// A tokenProxy is a mcp-token-proxy that runs.
type tokenProxy struct {
	process *bed.Process
	url     string // of the upstream's MCP server through it
	monitor string // the URL of the other listener
}

// buildTokenProxy builds mcp-token-proxy as make build does.
func buildTokenProxy(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "mcp-token-proxy")
	cmd := bed.GoBuild(t.Context(), binary, "./cmd/mcp-token-proxy")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// startTokenProxy starts a mcp-token-proxy with the example's configuration, in front of the upstream's MCP
// server. It logs in as a broker with the examples' policy.
func (u *upstream) startTokenProxy(t *testing.T) *tokenProxy {
	t.Helper()
	dir, id := t.TempDir(), u.exampleBroker(t)
	port, monitor := freePort(t), freePort(t)
	config := strings.NewReplacer(
		"https://files.example.com/mcp", u.mcp.URL, "127.0.0.1:8300", "127.0.0.1:"+port, "127.0.0.1:8301", "127.0.0.1:"+monitor,
	).Replace(u.example(t, tokenProxyExample))
	for name, content := range map[string]string{"role-id": id.RoleID, "secret-id": id.SecretID, "proxy.hcl": config} {
		bed.OK(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	p := runTokenProxy(t, u.bed, u.name, dir, monitor, "VAULT_ADDR="+u.bed.Vault.Address)
	p.url = "http://127.0.0.1:" + port + "/files"
	return p
}

// runTokenProxy checks and runs the configuration proxy.hcl of a directory, whose monitoring is at this port.
func runTokenProxy(t *testing.T, b *bed.Bed, name, dir, monitor string, env ...string) *tokenProxy {
	t.Helper()
	binary := buildTokenProxy(t)
	env = append(env, "HOME="+dir)
	check := exec.CommandContext(t.Context(), binary, "-config=proxy.hcl", "-check")
	check.Dir, check.Env = dir, env
	if out, err := check.CombinedOutput(); err != nil {
		t.Fatalf("-check: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "-config=proxy.hcl")
	cmd.Dir, cmd.Env = dir, env
	process := bed.Must(b.NewProcess("mcp-token-proxy-"+name, cmd))(t)
	t.Cleanup(func() { bed.OK(t, process.Stop()) })
	p := &tokenProxy{process: process, monitor: "http://127.0.0.1:" + monitor}
	bed.Eventually(t, time.Minute, func() error { return p.healthy(t) })
	return p
}

func (p *tokenProxy) healthy(t *testing.T) error {
	t.Helper()
	status, _, err := p.get(t, p.monitor+"/healthz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("healthz is %d", status)
	}
	return err
}

func (p *tokenProxy) get(t *testing.T, url string) (status int, body string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	response, err := bed.HTTPClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// Kuadrant's gateway without Kubernetes has no credential in its configuration, and the proxy's URL for the server.
func TestExampleGatewayHasTheProxysURL(t *testing.T) {
	t.Parallel()
	config := manifest{}
	bed.OK(t, yaml.Unmarshal([]byte(example(t, "kuadrant/config.yaml")), &config))
	if url := config.at("servers", 0, "url"); url != "http://127.0.0.1:8300/files" || config.at("servers", 0, "credential") != nil {
		t.Errorf("the server's URL is %v", url)
	}
	proxy := example(t, tokenProxyExample)
	for _, part := range []string{`address = "127.0.0.1:8300"`, `route "files"`} {
		if !strings.Contains(proxy, part) {
			t.Errorf("the proxy's configuration lacks %s", part)
		}
	}
	envoy := example(t, "kuadrant/envoy.yaml")
	for _, part := range []string{fmt.Sprintf("domains: [%q]", config.at("servers", 0, "hostname")), `host_rewrite_literal: "127.0.0.1:8300"`} {
		if !strings.Contains(envoy, part) {
			t.Errorf("Envoy's configuration lacks %s", part)
		}
	}
}

// followTokenProxy follows the page's section on the proxy, and has a broker call a tool through it.
func (w *walkthrough) followTokenProxy() {
	w.shim("mcp-token-proxy", "exec "+buildTokenProxy(w.t)+" \"$@\"")
	stop := w.start("export VAULT_ADDR")
	defer stop()
	p := &tokenProxy{url: w.replace("http://127.0.0.1:8300/files"), monitor: w.replace("http://127.0.0.1:8301")}
	bed.Eventually(w.t, 30*time.Second, func() error { return p.healthy(w.t) })
	if err := forecast(w.t.Context(), connect(w.t, &mcp.StreamableClientTransport{Endpoint: p.url})); err != nil {
		w.t.Error(err)
	}
}

// A broker that takes a URL and no more has its tools through mcp-token-proxy, in one session: through refreshes
// of the token, when a token is refused, and without Vault for as long as the token is good.
func TestTokenProxyServesABrokerByURLAlone(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{})
	const lifetime = 40 * time.Second
	u := newConfigured(t, b, "", lifetime)
	p := u.startTokenProxy(t)
	session := connect(t, &mcp.StreamableClientTransport{Endpoint: p.url})

	calls := 0
	call := func() error {
		calls++
		return forecast(t.Context(), session)
	}
	bed.Eventually(t, 2*time.Minute, func() error {
		bed.OK(t, call())
		if n := u.mcp.Counts().Tokens; n < 2 {
			return fmt.Errorf("the MCP server has seen %d tokens", n)
		}
		return nil
	})
	u.wantUnauthorized(t, 0)

	bed.Eventually(t, time.Minute, func() error {
		bed.OK(t, call()) // the proxy goes on to the token that Vault holds
		held := u.token(t, "token/"+u.name)
		if time.Until(held.ExpiresAt) > lifetime-cooldown-time.Second {
			return errors.New("the token is too young to be replaced")
		}
		u.mcp.Refuse(claims(held.AccessToken).ID)
		return nil
	})
	bed.Eventually(t, time.Minute, func() error {
		if err := call(); err != nil {
			t.Fatalf("a call with a refused token: %v", err)
		}
		if u.mcp.Counts().Unauthorized == 0 {
			return errors.New("the proxy has not used the refused token yet")
		}
		return nil
	})

	last := u.token(t, "token/"+u.name)
	bed.OK(t, b.Nodes[0].Stop())
	var failure error
	fails := func() bool {
		failure = call()
		return failure != nil
	}
	bed.Eventually(t, time.Minute, func() error {
		if !fails() {
			return errors.New("the token is still good")
		}
		return nil
	})
	if left := time.Until(last.ExpiresAt); left > 0 {
		t.Errorf("a call failed %s before the token's end: %v", left, failure)
	}
	status, body, err := p.get(t, p.url)
	if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, "no access token") {
		t.Errorf("without a token: status %d, %q, %v", status, body, err)
	}
	if leaks := b.Secrecy.ScanText("the answer", []byte(body)); len(leaks) > 0 {
		t.Error(leaks)
	}
	if err := p.healthy(t); err != nil {
		t.Errorf("without Vault: %v", err)
	}

	bed.OK(t, b.Nodes[0].Start(t.Context()))
	bed.Eventually(t, 2*time.Minute, call)
	_, metrics, err := p.get(t, p.monitor+"/metrics")
	if err != nil || !strings.Contains(metrics, `mcp_token_proxy_requests_total{code="200",route="files"}`) {
		t.Errorf("metrics: %v\n%s", err, metrics)
	}
	if leaks := b.Secrecy.ScanText("the metrics", []byte(metrics)); len(leaks) > 0 {
		t.Error(leaks)
	}
	t.Logf("%d calls, %d tokens", calls, u.mcp.Counts().Tokens)
}

// SIGTERM ends the proxy though a client listens for the server's messages, as MCP clients do.
func TestTokenProxyDrains(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	p := u.startTokenProxy(t)
	session := connect(t, &mcp.StreamableClientTransport{Endpoint: p.url})
	bed.OK(t, forecast(t.Context(), session))
	bed.OK(t, p.process.Stop()) // within the bed's grace of 10 s
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := forecast(ctx, session); err == nil {
		t.Error("a call succeeds after the proxy's end")
	}
}
