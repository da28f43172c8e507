//go:build servers

package acceptance

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// This runs the scenario auth/wif-jwt-bearer of the protocol's conformance suite, with the mount as a trusted issuer
// (see conformance/trust.cjs). The audience of the assertion is the issuer, with or without a slash, and not the
// token endpoint. An error is reported after one request, with the same grant.
func TestAuthorizationServersOfTheConformanceSuite(t *testing.T) {
	b := shared(t)
	dir := bed.Must(bed.InstallPackages(t.Context(), "conformance", t.Logf))(t)
	for _, test := range []struct {
		name      string
		fields    map[string]any
		slash     bool   // the audience ends in a slash
		untrusted bool   // runs the unchanged suite, which trusts only its own key
		refused   string // error code in the answer to a read of the token; empty: the token is granted
		failed    []string
	}{
		{name: "issuer", fields: map[string]any{"assertion_audience": "issuer"}},
		{name: "issuer and a slash", slash: true},
		{name: "token endpoint", refused: "invalid_grant", failed: []string{"wif-assertion-audience FAILURE"}},
		{name: "no trust", fields: map[string]any{"assertion_audience": "issuer"}, untrusted: true, refused: "invalid_grant", failed: []string{"wif-assertion-malformed FAILURE"}},
		{name: "scope", fields: map[string]any{"assertion_audience": "issuer", "scopes": "wif.rejected"}, refused: "invalid_scope"},
		{name: "client", fields: map[string]any{"assertion_audience": "issuer", "scopes": "wif.trigger-unauthorized"}, refused: "unauthorized_client"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := bed.Must(b.Vault.Root())(t)
			u := &upstream{bed: b, root: root, name: "conformance-" + strings.ReplaceAll(test.name, " ", "-")}
			mount := strings.TrimSuffix(u.mountURL(), "/")
			u.write(t, "settings", map[string]any{"public_url": mount})
			issuers := mount + "/issuer/"
			if test.untrusted {
				issuers = "https://other.example.com/"
			}
			checks := runConformance(t, dir, "auth/wif-jwt-bearer", issuers, func(serverURL string) {
				config := map[string]any{"server_url": serverURL, "identity": "issuer", "grant": "jwt_bearer", "key_type": "ec-p256"}
				maps.Copy(config, test.fields)
				u.write(t, "config/"+u.name, config)
				if test.slash {
					issuer, _ := u.read(t, "config/"+u.name)["discovered_issuer"].(string)
					u.write(t, "config/"+u.name, map[string]any{"assertion_audience": issuer + "/"})
				}
				if test.refused != "" {
					for range 2 {
						_, err := root.Logical().ReadWithContext(t.Context(), bed.Mount+"/token/"+u.name)
						bed.WantError(t, err, test.refused)
					}
					return
				}
				bed.Must(b.ReadToken(t.Context(), root, "token/"+u.name))(t)
				session := connect(t, authorized(t, u.source(t, root), serverURL, nil))
				answer, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "test-tool"})
				if err != nil || answer.IsError {
					t.Errorf("the MCP server's tool answers %v, %v", answer, err)
				}
			})
			var failed []string
			count := map[string]int{}
			for _, check := range checks {
				count[check.ID]++
				if check.Status == "FAILURE" || check.Status == "WARNING" {
					failed = append(failed, check.ID+" "+check.Status)
				}
			}
			if !slices.Equal(failed, test.failed) {
				t.Errorf("the suite finds %q, want %q", failed, test.failed)
			}
			if count["token-request"] != 1 {
				t.Errorf("the suite has seen %d token requests, want 1", count["token-request"])
			}
			if verified := count["wif-assertion-verified"]; verified != 1-len(test.failed) {
				t.Errorf("the suite has verified %d assertions", verified)
			}
			t.Logf("%d checks: %v", len(checks), count)
		})
	}
}

// conformanceCheck is a finding of the suite.
type conformanceCheck struct {
	ID     string `json:"id"`
	Status string `json:"status"` // SUCCESS, FAILURE, WARNING or INFO
}

// runConformance runs a scenario of the suite in dir, and returns its findings. The scenario's authorization server
// trusts issuers with this URL prefix. client is the client under test, which gets the URL of the scenario's MCP
// server.
func runConformance(t *testing.T, dir, scenario, issuers string, client func(serverURL string)) []conformanceCheck {
	t.Helper()
	called, done := make(chan string), make(chan struct{})
	handover := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		select {
		case called <- string(body):
		case <-r.Context().Done():
			return
		}
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	defer handover.Close()
	finish := sync.OnceFunc(func() { close(done) })
	defer finish()
	results := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "node", "--require", filepath.Join(dir, "trust.cjs"),
		filepath.Join(dir, "node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js"),
		"client", "--command", "node "+filepath.Join(dir, "client.mjs")+" "+handover.URL,
		"--scenario", scenario, "--output-dir", results, "--timeout", "60000")
	cmd.Env = append(os.Environ(), "TRUSTED_ISSUERS="+issuers)
	ended := make(chan string, 1)
	go func() {
		out, err := cmd.CombinedOutput()
		if err != nil {
			out = append(out, err.Error()...)
		}
		// The output holds signed assertions.
		ended <- regexp.MustCompile(`(?m)^With context: .*`).ReplaceAllString(string(out), "With context: ...")
	}()
	select {
	case serverURL := <-called:
		client(serverURL)
		finish()
	case out := <-ended:
		t.Fatalf("the suite ended before it started the client: %s", out)
	}
	out := <-ended
	files, err := filepath.Glob(filepath.Join(results, filepath.Dir(scenario), "*", "checks.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the suite left the results %q, %v: %s", files, err, out)
	}
	content := bed.Must(os.ReadFile(files[0]))(t)
	var checks []conformanceCheck
	bed.OK(t, json.Unmarshal(content, &checks))
	return checks
}
