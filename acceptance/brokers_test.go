//go:build brokers

package acceptance

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

func brokerFile(t *testing.T, name string) string {
	t.Helper()
	return absolute(t, filepath.Join("brokers", name))
}

// pythonWith returns a Python with only the packages of a requirements file, kept in the user's cache directory. Run
// its scripts with this Python: their first lines name the directory of the build.
func pythonWith(t *testing.T, requirements string) string {
	t.Helper()
	pin := bed.Must(os.ReadFile(brokerFile(t, requirements)))(t)
	name := "brokers-" + strings.TrimSuffix(requirements, ".txt")
	return bed.Must(bed.PythonWith(t.Context(), name, pin, t.Logf, "--no-deps", "-r", brokerFile(t, requirements)))(t)
}

// pythonBroker returns the command of a broker in Python that uses the examples' module.
func pythonBroker(t *testing.T, requirements, script string) []string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{
		brokerFile(t, script): script, absolute(t, "../examples/python/vault_mcp_auth.py"): "vault_mcp_auth.py",
	} {
		copyFile(t, from, filepath.Join(dir, to))
	}
	return []string{pythonWith(t, requirements), filepath.Join(dir, script)}
}

// typescriptSDKBroker is the command of a broker on the official SDK in TypeScript.
func typescriptSDKBroker(t *testing.T) []string {
	t.Helper()
	// The examples' module, compiled.
	compiledExample := filepath.Join(filepath.Dir(typescriptBroker(t)[1]), "vault_mcp_auth.js")
	dir := t.TempDir()
	copyFile(t, compiledExample, filepath.Join(dir, "vault_mcp_auth.js"))
	for _, file := range []string{"sdk.mjs", "package.json", "package-lock.json", ".npmrc"} {
		copyFile(t, brokerFile(t, file), filepath.Join(dir, file))
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci")
	cmd.Dir = dir
	output(t, cmd)
	node := bed.Must(exec.LookPath("node"))(t)
	return []string{node, filepath.Join(dir, "sdk.mjs")}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content := bed.Must(os.ReadFile(from))(t)
	bed.OK(t, os.WriteFile(to, content, 0o600))
}

// A calling calls the MCP server's tool through a broker, and returns the answer.
type calling func(t *testing.T) string

// Brokers of several kinds lose no call in ten token lifetimes, through mcp-token-proxy and with the examples'
// modules.
func TestBrokersLoseNoCall(t *testing.T) {
	const lifetime = 20 * time.Second
	b := shared(t)
	commands := map[string][]string{
		"Python SDK 1":   pythonBroker(t, "mcp1.txt", "sdk.py"),
		"Python SDK 2":   pythonBroker(t, "mcp2.txt", "sdk.py"),
		"TypeScript SDK": typescriptSDKBroker(t),
		"FastMCP":        pythonBroker(t, "fastmcp.txt", "fastmcp_client.py"),
	}
	litellm, contextForge := pythonWith(t, "litellm.txt"), pythonWith(t, "contextforge.txt")
	u := newConfigured(t, b, "", lifetime)
	p := u.startTokenProxy(t)
	vaultToken := u.exampleBroker(t).Client.Token()
	brokers := map[string]calling{
		"LiteLLM by URL":      litellmAt(t, b, litellm, p.url),
		"ContextForge by URL": contextForgeAt(t, b, contextForge, p.url),
	}
	for name, command := range commands {
		id := strings.ToLower(strings.ReplaceAll(name, " ", "-"))
		byURL := startBroker(t, b, id+"-by-url", append(slices.Clone(command), p.url))
		brokers[name+" by URL"] = func(t *testing.T) string { return byURL.tell(t, "") }
		if name != "FastMCP" {
			itself := startBroker(t, b, id+"-itself", append(slices.Clone(command), u.mcp.URL, bed.Mount+"/token/"+u.name),
				"VAULT_ADDR="+b.Vault.Address, "VAULT_TOKEN="+vaultToken)
			brokers[name+" itself"] = func(t *testing.T) string { return itself.tell(t, "") }
		}
	}

	tests := map[string]func(t *testing.T){}
	for name, call := range brokers {
		tests[name] = func(t *testing.T) {
			calls, lost := callFor(t, 10*lifetime, call)
			t.Logf("%s: %d of %d calls lost", t.Name(), lost, calls)
		}
	}
	atOnce(t, tests)
	counts := u.mcp.Counts()
	if counts.Tokens < 10 || counts.Unauthorized > 0 {
		t.Errorf("the MCP server has received %d tokens, and refused %d requests; want at least ten, and no refusal", counts.Tokens, counts.Unauthorized)
	}
}

// atOnce runs all subtests concurrently, whatever -parallel says.
func atOnce(t *testing.T, tests map[string]func(t *testing.T)) {
	t.Helper()
	var all sync.WaitGroup
	for name, test := range tests {
		all.Go(func() { t.Run(name, test) })
	}
	all.Wait()
}

// callFor makes calls one after another, and returns the numbers of calls and of lost ones. A lost call fails the
// test.
func callFor(t *testing.T, duration time.Duration, call calling) (calls, lost int) {
	t.Helper()
	begun := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for time.Since(begun) < duration {
		calls++
		if answer := call(t); answer != "Tomorrow in Oslo: sunny spells." {
			lost++
			t.Errorf("%s after the start: %s", time.Since(begun).Round(time.Second), answer)
		}
		<-tick.C
	}
	return calls, lost
}

// The Python module, installed by pip from the checkout, authorizes requests of synchronous clients of both
// libraries. A refused token is replaced within the call.
func TestBrokersSynchronousOnTheInstalledModule(t *testing.T) {
	b := shared(t)
	checkout := filepath.Join(t.TempDir(), "python") // pip builds in this directory
	bed.OK(t, os.CopyFS(checkout, os.DirFS("../examples/python")))
	u := newConfigured(t, b, "", 5*time.Minute)
	vaultToken := u.exampleBroker(t).Client.Token()
	for requirements, library := range map[string]string{"mcp1.txt": "httpx", "mcp2.txt": "httpx2"} {
		t.Run(library, func(t *testing.T) {
			python, dir := pythonWith(t, requirements), t.TempDir()
			out, err := exec.CommandContext(t.Context(), python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", dir, checkout).CombinedOutput()
			if err != nil {
				t.Fatalf("pip install: %v\n%s", err, out)
			}
			broker := startBroker(t, b, "sync-"+library, []string{python, brokerFile(t, "sync.py"), u.mcp.URL, bed.Mount + "/token/" + u.name},
				"PYTHONPATH="+dir, "VAULT_ADDR="+b.Vault.Address, "VAULT_TOKEN="+vaultToken)
			if answer := broker.tell(t, ""); answer != library+" 200" {
				t.Errorf("the broker says %q", answer)
			}
			refused := u.token(t, "token/"+u.name)
			waitForAge(t, refused.LastVaultRotation, cooldown+time.Second) // last_vault_rotation is rounded down to a second
			u.mcp.Refuse(claims(refused.AccessToken).ID)
			if answer := broker.tell(t, ""); answer != library+" 200" {
				t.Errorf("with a token that the MCP server refuses, the broker says %q", answer)
			}
			if now := u.token(t, "token/"+u.name); now.TokenID == refused.TokenID {
				t.Error("the refused token was not replaced")
			}
		})
	}
}
