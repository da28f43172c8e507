package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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

// A tokenProxy is a running mcp-token-proxy.
type tokenProxy struct {
	process *bed.Process
	url     string // the MCP server's URL at the proxy
	monitor string // URL of the monitoring listener
}

// buildTokenProxy builds mcp-token-proxy as make build does.
func buildTokenProxy(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "mcp-token-proxy")
	cmd := bed.GoBuild(t.Context(), binary, "./cmd/mcp-token-proxy")
	cmd.Dir = ".."
	output(t, cmd)
	return binary
}

// startTokenProxy starts an mcp-token-proxy with the example's configuration and policy for the upstream's MCP
// server.
func (u *upstream) startTokenProxy(t *testing.T) *tokenProxy {
	t.Helper()
	dir, id := t.TempDir(), u.exampleBroker(t)
	port, monitor := freePort(t), freePort(t)
	config := strings.NewReplacer(
		"https://files.example.com/mcp", u.mcp.URL, "127.0.0.1:8300", "127.0.0.1:"+port, "127.0.0.1:8301", "127.0.0.1:"+monitor,
	).Replace(u.example(t, tokenProxyExample))
	writeFiles(t, dir, map[string]string{"role-id": id.RoleID, "secret-id": id.SecretID, "proxy.hcl": config})
	p := runTokenProxy(t, u.bed, u.name, dir, monitor, "VAULT_ADDR="+u.bed.Vault.Address)
	p.url = "http://127.0.0.1:" + port + "/files"
	return p
}

// runTokenProxy checks and runs the proxy.hcl in a directory, with its monitoring port.
func runTokenProxy(t *testing.T, b *bed.Bed, name, dir, monitor string, env ...string) *tokenProxy {
	t.Helper()
	binary := buildTokenProxy(t)
	env = append(env, "HOME="+dir)
	check := exec.CommandContext(t.Context(), binary, "-config=proxy.hcl", "-check")
	check.Dir, check.Env = dir, env
	output(t, check)
	cmd := exec.Command(binary, "-config=proxy.hcl")
	cmd.Dir, cmd.Env = dir, env
	process := bed.Must(b.NewProcess("mcp-token-proxy-"+name, cmd))(t)
	t.Cleanup(func() { bed.OK(t, process.Stop()) })
	p := &tokenProxy{process: process, monitor: "http://127.0.0.1:" + monitor}
	bed.Until(t, time.Minute, "the proxy is healthy", func() bool { return p.healthy(t) })
	return p
}

func (p *tokenProxy) healthy(t *testing.T) bool {
	t.Helper()
	a, err := ask(t.Context(), p.monitor+"/healthz", "", nil)
	return err == nil && a.status == http.StatusOK
}

// Kuadrant's gateway without Kubernetes is configured with the proxy's URL and no credential.
func TestExampleGatewayHasTheProxysURL(t *testing.T) {
	t.Parallel()
	config := manifest{}
	bed.OK(t, yaml.Unmarshal([]byte(example(t, "kuadrant/config.yaml")), &config))
	if url := config.at("servers", 0, "url"); url != "http://127.0.0.1:8300/files" || config.at("servers", 0, "credential") != nil {
		t.Errorf("the server's URL is %v", url)
	}
	proxy := example(t, tokenProxyExample)
	bed.WantText(t, "the proxy's configuration", proxy, `address = "127.0.0.1:8300"`, `route "files"`)
	envoy := example(t, "kuadrant/envoy.yaml")
	domains := fmt.Sprintf("domains: [%q]", config.at("servers", 0, "hostname"))
	bed.WantText(t, "Envoy's configuration", envoy, domains, `host_rewrite_literal: "127.0.0.1:8300"`)
}

// followTokenProxy follows the page's section on the proxy, and calls a tool through it.
func (w *walkthrough) followTokenProxy() {
	w.shim("mcp-token-proxy", "exec "+buildTokenProxy(w.t)+" \"$@\"")
	stop := w.start("export VAULT_ADDR")
	defer stop()
	p := &tokenProxy{url: w.replace("http://127.0.0.1:8300/files"), monitor: w.replace("http://127.0.0.1:8301")}
	bed.Until(w.t, 30*time.Second, "the proxy is healthy", func() bool { return p.healthy(w.t) })
	bed.OK(w.t, forecast(w.t.Context(), connect(w.t, &mcp.StreamableClientTransport{Endpoint: p.url})))
}

// A broker that only knows a URL uses its tools through mcp-token-proxy in one session: through refreshes, with a
// refused token, and without Vault until the token expires.
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
		bed.OK(t, call()) // the proxy gets Vault's current token
		held := u.token(t, "token/"+u.name)
		if time.Until(held.ExpiresAt) > lifetime-cooldown-time.Second {
			return errors.New("the token is too young to be replaced")
		}
		u.mcp.Refuse(claims(held.AccessToken).ID)
		return nil
	})
	bed.Until(t, time.Minute, "the proxy uses the refused token", func() bool {
		bed.OK(t, call())
		return u.mcp.Counts().Unauthorized > 0
	})

	last := u.token(t, "token/"+u.name)
	bed.OK(t, b.Nodes[0].Stop())
	var failure error
	bed.Until(t, time.Minute, "a call fails", func() bool { failure = call(); return failure != nil })
	if left := time.Until(last.ExpiresAt); left > 0 {
		t.Errorf("a call failed %s before the token's end: %v", left, failure)
	}
	refusal := bed.Must(ask(t.Context(), p.url, "", nil))(t)
	if refusal.status != http.StatusServiceUnavailable || !strings.Contains(refusal.body, "no access token") {
		t.Errorf("without a token: %+v", refusal)
	}
	if !p.healthy(t) {
		t.Error("without Vault the proxy is not healthy")
	}

	bed.OK(t, b.Nodes[0].Start(t.Context()))
	bed.Eventually(t, 2*time.Minute, call)
	metrics := bed.Must(ask(t.Context(), p.monitor+"/metrics", "", nil))(t).body
	bed.WantText(t, "the metrics", metrics, `mcp_token_proxy_requests_total{code="200",route="files"}`)
	if leaks := b.Secrecy.ScanText("the proxy's answers", []byte(refusal.body+metrics)); len(leaks) > 0 {
		t.Error(leaks)
	}
	t.Logf("%d calls, %d tokens", calls, u.mcp.Counts().Tokens)
}

// SIGTERM ends the proxy although a client has an open stream.
func TestTokenProxyDrains(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	p := u.startTokenProxy(t)
	session := connect(t, &mcp.StreamableClientTransport{Endpoint: p.url})
	bed.OK(t, forecast(t.Context(), session))
	bed.OK(t, p.process.Stop()) // within the bed's grace period of 10 s
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := forecast(ctx, session); err == nil {
		t.Error("a call succeeds after the proxy's end")
	}
}
