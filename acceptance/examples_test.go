package acceptance

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

const exampleToken = "mcp-oauth/token/files"

func example(t *testing.T, file string) string {
	t.Helper()
	content := bed.Must(os.ReadFile(filepath.Join("..", "examples", file)))(t)
	return string(content)
}

// example returns a file of examples/, with the upstream instead of the MCP server "files".
func (u *upstream) example(t *testing.T, file string) string {
	t.Helper()
	content := example(t, file)
	if !strings.Contains(content, exampleToken) {
		t.Fatalf("%s does not mention %s", file, exampleToken)
	}
	return strings.NewReplacer(
		"mcp-oauth/token/files", bed.Mount+"/token/"+u.name,
		"mcp-oauth/refresh/files", bed.Mount+"/refresh/"+u.name,
	).Replace(content)
}

// exampleBroker logs in with the policy of the examples.
func (u *upstream) exampleBroker(t *testing.T) *bed.Identity {
	t.Helper()
	return newIdentity(t, u.bed, u.name, u.example(t, "policy.hcl"))
}

// runExample runs a Vault Agent or Vault Proxy with files of examples/ in a new directory, and returns the directory.
// bin, if set, comes before the PATH.
func (u *upstream) runExample(t *testing.T, command, config, bin string, files map[string]string) string {
	t.Helper()
	return runExample(t, u.bed, u.exampleBroker(t), command, config, bin, files)
}

// runExample does the same for any identity.
func runExample(t *testing.T, b *bed.Bed, id *bed.Identity, command, config, bin string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{"role-id": id.RoleID, "secret-id": id.SecretID}
	maps.Copy(all, files)
	writeFiles(t, dir, all)
	cmd := exec.Command(b.Vault.Binary, command, "-config="+config, "-log-level=debug")
	cmd.Dir = dir
	cmd.Env = []string{"VAULT_ADDR=" + b.Vault.Address, "HOME=" + dir, "PATH=" + bin + ":" + os.Getenv("PATH")}
	process := bed.Must(b.NewProcess("example-"+command+"-"+id.Name, cmd))(t)
	stopAtEnd(t, "vault "+command, process)
	return dir
}

// checkAuthorization checks that the MCP server accepts the value as an Authorization header, and returns the token.
func (u *upstream) checkAuthorization(t *testing.T, value string) string {
	t.Helper()
	token, ok := strings.CutPrefix(value, "Bearer ")
	if !ok {
		t.Fatalf("a value of %d bytes is not an Authorization header's", len(value))
	}
	u.bed.Secrecy.AddToken(token)
	bed.OK(t, u.mcp.Check(token))
	return token
}

// Vault Agent with the example's configuration keeps a valid Authorization header in a file, through refreshes.
func TestExampleAgentKeepsAFile(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 20*time.Second)
	dir := u.runExample(t, "agent", "agent.hcl", "", map[string]string{"agent.hcl": u.example(t, "vault-agent/agent.hcl")})

	file, seen := filepath.Join(dir, "authorization"), map[string]bool{}
	bed.Eventually(t, 2*time.Minute, func() error {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		seen[u.checkAuthorization(t, string(content))] = true
		if len(seen) < 3 {
			return fmt.Errorf("%d tokens were in the file", len(seen))
		}
		return nil
	})
	info := bed.Must(os.Stat(file))(t)
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the file's mode is %o, want 600", mode)
	}
}

// Vault Agent with the supervisor's configuration runs the broker with the header in a variable, and restarts it with
// each new token.
func TestExampleSupervisorRestartsTheBroker(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 20*time.Second)

	// The broker logs its variable and a request to end.
	bin, told := t.TempDir(), filepath.Join(t.TempDir(), "told")
	broker := "#!/bin/sh\n" +
		"echo \"$MCP_AUTHORIZATION\" >>'" + told + "'\n" +
		"trap 'echo ended >>\"" + told + "\"; exit 0' TERM\n" +
		"while :; do sleep 1 & wait; done\n"
	bed.OK(t, os.WriteFile(filepath.Join(bin, "mcp-broker"), []byte(broker), 0o700))
	u.runExample(t, "agent", "supervisor.hcl", bin, map[string]string{
		"supervisor.hcl": u.example(t, "vault-agent/supervisor.hcl"),
	})

	checked := 0
	seen := map[string]bool{}
	bed.Eventually(t, 2*time.Minute, func() error {
		content, err := os.ReadFile(told)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
		for ; checked < len(lines); checked++ {
			if checked%2 == 1 {
				if lines[checked] != "ended" {
					t.Fatal("a second broker was started while the first was running")
				}
				continue
			}
			seen[u.checkAuthorization(t, lines[checked])] = true
		}
		if len(seen) < 3 {
			return fmt.Errorf("the broker was started with %d tokens", len(seen))
		}
		return nil
	})
}

// A broker without a Vault token reads through Vault Proxy with the example's configuration, and replaces a revoked
// token. The listener refuses requests without its header, and ignores a token from the client.
func TestExampleProxyServesABrokerWithoutAVaultToken(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	obtained := time.Now()
	address := "127.0.0.1:" + freePort(t)
	config := u.example(t, "vault-proxy/proxy.hcl")
	if strings.Count(config, `"127.0.0.1:8100"`) != 1 {
		t.Fatal("the example listens elsewhere")
	}
	config = strings.Replace(config, "127.0.0.1:8100\"\n", address+"\"\n", 1)
	u.runExample(t, "proxy", "proxy.hcl", "", map[string]string{"proxy.hcl": config})

	status := func(header http.Header) int {
		a, _ := ask(t.Context(), "http://"+address+"/v1/"+bed.Mount+"/token/"+u.name, "", header)
		return a.status
	}
	bed.Until(t, time.Minute, "the proxy serves the token", func() bool {
		return status(http.Header{"X-Vault-Request": {"true"}}) == http.StatusOK
	})
	if got := status(nil); got != http.StatusPreconditionFailed {
		t.Errorf("without X-Vault-Request: status %d, want 412", got)
	}
	if got := status(http.Header{"X-Vault-Request": {"true"}, "X-Vault-Token": {"none"}}); got != http.StatusOK {
		t.Errorf("with an invalid token: status %d, want 200", got)
	}

	broker := u.startExample(t, typescriptBroker(t), "VAULT_ADDR=http://"+address)
	broker.wantTools(t)
	waitForAge(t, obtained, cooldown)
	u.mcp.Refuse(claims(u.token(t, "token/"+u.name).AccessToken).ID)
	broker.wantTools(t)
	u.wantRequests(t, 2)
}

// The brokers in Python and TypeScript list an MCP server's tools and replace a revoked token. They go on without
// Vault until the token expires, and again after Vault's return.
func TestExampleBrokers(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{})
	u := newUpstream(t, b, "", 40*time.Second)
	commands := exampleBrokers(t) // before the tokens, which are short-lived, as compiling is slow
	u.configure(t, nil)
	obtained := time.Now()
	vaultToken := u.exampleBroker(t).Client.Token()
	brokers := map[string]*exampleProcess{}
	for language, command := range commands {
		brokers[language] = u.startExample(t, command, "VAULT_ADDR="+b.Vault.Address, "VAULT_TOKEN="+vaultToken)
		brokers[language].wantTools(t)
	}
	first := u.token(t, "token/"+u.name)
	u.wantUnauthorized(t, 0)

	waitForAge(t, obtained, cooldown)
	u.mcp.Refuse(claims(first.AccessToken).ID)
	for _, broker := range brokers {
		broker.wantTools(t)
	}
	u.wantUnauthorized(t, len(brokers))
	// Both brokers hold this token, unless a third one has replaced it.
	second := u.token(t, "token/"+u.name)
	u.wantRequests(t, 2)
	bed.OK(t, b.Nodes[0].Stop())
	going := maps.Clone(brokers)
	bed.Eventually(t, 3*time.Minute, func() error {
		for language, broker := range going {
			answer := broker.list(t)
			if strings.HasPrefix(answer, "tools: ") {
				continue
			}
			if left := time.Until(second.ExpiresAt); left > 0 {
				t.Fatalf("%s: %q, %s before its token's end", language, answer, left)
			}
			delete(going, language)
		}
		if len(going) > 0 {
			return fmt.Errorf("%d brokers go on", len(going))
		}
		return nil
	})
	for language, broker := range brokers { // without Vault: a read fails while the broker holds a valid token
		bed.WantText(t, "the log of "+language, broker.log(t), "going on with the held token")
	}

	bed.OK(t, b.Nodes[0].Start(t.Context()))
	for _, broker := range brokers {
		broker.awaitTools(t)
	}
}

// A playedVault answers as Vault with the plugin, with its own clock, and as the MCP server.
type playedVault struct {
	skew, lifetime time.Duration // the token's ttl is a second

	mu            sync.Mutex // guards the fields below
	away          bool
	null          bool      // the answer is {"data": null}
	uninitialized bool      // the server refuses notifications/initialized
	read          time.Time // when the token was last returned, on this machine's clock
	sessions      int
	initialized   bool // the latest session
}

func (v *playedVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	var answer any
	switch {
	case r.Method == http.MethodPost:
		answer = v.mcp(w, r)
	case v.away:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case v.null:
		answer = map[string]any{"data": nil}
	default:
		v.read = time.Now()
		now := v.read.Add(v.skew).UTC()
		answer = map[string]any{"data": map[string]any{
			"authorization": "Bearer played", "token_id": "0123456789abcdef", "ttl": 1,
			"last_vault_rotation": now.Format(time.RFC3339),
			"expires_at":          now.Add(v.lifetime).Format(time.RFC3339),
		}}
	}
	if answer != nil {
		_ = json.NewEncoder(w).Encode(answer) // fails if the client has gone
	}
}

// mcp answers a message, or writes a status and returns nil. It lists its tools only in an initialized session.
func (v *playedVault) mcp(w http.ResponseWriter, r *http.Request) any {
	var message struct {
		ID     int    `json:"id"`
		Method string `json:"method"`
	}
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return nil
	}
	session := fmt.Sprint(v.sessions)
	known := r.Header.Get("Mcp-Session-Id") == session && r.Header.Get("MCP-Protocol-Version") != ""
	var result map[string]any
	switch {
	case message.Method == "initialize" && r.Header.Get("Mcp-Session-Id") == "":
		v.sessions, v.initialized = v.sessions+1, false
		w.Header().Set("Mcp-Session-Id", fmt.Sprint(v.sessions))
		result = map[string]any{"protocolVersion": "2025-06-18"}
	case message.Method == "notifications/initialized" && known && !v.uninitialized:
		v.initialized = true
		w.WriteHeader(http.StatusAccepted)
		return nil
	case message.Method == "tools/list" && known && v.initialized:
		result = map[string]any{"tools": []any{map[string]any{"name": "forecast"}}}
	default:
		w.WriteHeader(http.StatusBadRequest)
		return nil
	}
	return map[string]any{"jsonrpc": "2.0", "id": message.ID, "result": result}
}

func (v *playedVault) with(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

// The brokers in Python and TypeScript work although their clock differs from Vault's, and after bad answers of Vault
// and the MCP server.
func TestExampleBrokersInTrouble(t *testing.T) {
	t.Parallel()
	for language, command := range exampleBrokers(t) {
		start := func(t *testing.T, played *playedVault) *exampleProcess {
			t.Helper()
			server := httptest.NewServer(played)
			t.Cleanup(server.Close)
			name := strings.ReplaceAll(strings.TrimPrefix(t.Name(), "TestExampleBrokersInTrouble/"), "/", "-")
			return startExample(t, shared(t), name, command, exampleToken, server.URL, "VAULT_ADDR="+server.URL)
		}
		// If the broker's clock is ahead, the token looks expired.
		t.Run(language+"/ahead", func(t *testing.T) {
			t.Parallel()
			start(t, &playedVault{skew: -time.Hour, lifetime: time.Minute}).wantTools(t)
		})
		// If the broker's clock is behind, the token looks valid for an hour after its end.
		t.Run(language+"/behind", func(t *testing.T) {
			t.Parallel()
			played := &playedVault{skew: time.Hour, lifetime: 5 * time.Second}
			broker := start(t, played)
			broker.wantTools(t)
			var read time.Time
			played.with(func() { played.away, read = true, played.read })
			// The broker read the token before this, so the token's lifetime has passed for the broker too.
			waitForAge(t, read, played.lifetime)
			if answer := broker.list(t); !strings.HasPrefix(answer, "failed: ") {
				t.Errorf("after the token's end the broker says %q", answer)
			}
		})
		for name, c := range map[string]struct {
			trouble func(v *playedVault, on bool)
		}{
			"null": {func(v *playedVault, on bool) { v.null = on }},
			// The broker repeats an initialization that failed half way.
			"uninitialized": {func(v *playedVault, on bool) { v.uninitialized = on }},
		} {
			t.Run(language+"/"+name, func(t *testing.T) {
				t.Parallel()
				played := &playedVault{lifetime: time.Minute}
				c.trouble(played, true)
				broker := start(t, played)
				if answer := broker.list(t); !strings.HasPrefix(answer, "failed: ") {
					t.Errorf("in trouble the broker says %q", answer)
				}
				played.with(func() { c.trouble(played, false) })
				broker.awaitTools(t)
			})
		}
	}
}

// The broker in Python is written for 3.9. A newer Python checks its grammar.
func TestExampleInPythonParsesAs39(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Log("NOT RUN: there is no python3 on this machine.")
		return
	}
	for _, file := range []string{"vault_mcp_auth.py", "broker.py"} {
		cmd := exec.CommandContext(t.Context(), python, "-c", "import ast, sys; ast.parse(sys.stdin.read(), feature_version=(3, 9))")
		cmd.Stdin = strings.NewReader(example(t, "python/"+file))
		output(t, cmd)
	}
}

// waitForAge waits until a token has this age.
func waitForAge(t *testing.T, obtained time.Time, least time.Duration) {
	t.Helper()
	bed.Until(t, 2*least, "a token's age", func() bool { return time.Since(obtained) >= least })
}

// exampleBrokers returns the commands of the brokers of examples/, by language.
func exampleBrokers(t *testing.T) map[string][]string {
	t.Helper()
	commands := map[string][]string{"typescript": typescriptBroker(t)}
	if python, err := exec.LookPath("python3"); err == nil {
		commands["python"] = []string{python, absolute(t, "../examples/python/broker.py")}
	} else {
		t.Log("NOT RUN: examples/python/broker.py, as there is no python3 on this machine.")
	}
	return commands
}

// typescriptBroker compiles the broker in TypeScript, and returns its command.
func typescriptBroker(t *testing.T) []string {
	t.Helper()
	return compiled(t, example(t, "typescript/broker.ts"))
}

// compiled compiles TypeScript that replaces the broker, and returns the command that runs it.
func compiled(t *testing.T, broker string) []string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"broker.ts": broker}
	for _, file := range []string{"vault_mcp_auth.ts", "package.json", "package-lock.json", "tsconfig.json"} {
		files[file] = example(t, "typescript/"+file)
	}
	writeFiles(t, dir, files)
	for _, command := range [][]string{{"npm", "ci", "--no-audit", "--no-fund"}, {"npx", "--no-install", "tsc"}} {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Dir = dir
		output(t, cmd)
	}
	node := bed.Must(exec.LookPath("node"))(t)
	return []string{node, filepath.Join(dir, "dist", "broker.js")}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	return bed.Must(filepath.Abs(path))(t)
}

// An exampleProcess is a running broker of examples/.
type exampleProcess struct {
	secrecy *bed.Secrecy
	in      io.Writer
	out     *bufio.Reader
	logFile string
}

// startExample starts a broker of the upstream's MCP server, with only env as its environment.
func (u *upstream) startExample(t *testing.T, command []string, env ...string) *exampleProcess {
	t.Helper()
	return startExample(t, u.bed, filepath.Base(command[1])+"-"+u.name, command, bed.Mount+"/token/"+u.name, u.mcp.URL, env...)
}

// startExample starts a broker of the MCP server at a URL, with the token at a path.
func startExample(t *testing.T, b *bed.Bed, name string, command []string, path, url string, env ...string) *exampleProcess {
	t.Helper()
	return startBroker(t, b, "example-"+name, append(slices.Clone(command), path, url), env...)
}

// startBroker starts a process that answers each line with a line.
func startBroker(t *testing.T, b *bed.Bed, name string, command []string, env ...string) *exampleProcess {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = slices.Concat(env, []string{"HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1"})
	in := bed.Must(cmd.StdinPipe())(t)
	out := bed.Must(cmd.StdoutPipe())(t)
	process := bed.Must(b.NewProcess(name, cmd))(t)
	t.Cleanup(func() { bed.OK(t, process.Stop()) })
	return &exampleProcess{
		secrecy: b.Secrecy, in: in, out: bufio.NewReader(out),
		logFile: filepath.Join(b.LogDir(), name+".log"),
	}
}

// list lets the broker list the MCP server's tools, and returns its answer.
func (p *exampleProcess) list(t *testing.T) string {
	t.Helper()
	return p.tell(t, "")
}

// tell writes a line to the process, and returns its answer.
func (p *exampleProcess) tell(t *testing.T, line string) string {
	t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		t.Fatal("the broker has ended: ", err)
	}
	answer, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal("the broker has ended: ", err)
	}
	if leaks := p.secrecy.ScanText("the broker's answer", []byte(answer)); len(leaks) > 0 {
		t.Fatal(leaks)
	}
	return strings.TrimSuffix(answer, "\n")
}

func (p *exampleProcess) wantTools(t *testing.T) {
	t.Helper()
	if got := p.list(t); got != "tools: forecast" {
		t.Fatalf("the broker says %q, want the MCP server's tool", got)
	}
}

func (p *exampleProcess) awaitTools(t *testing.T) {
	t.Helper()
	bed.Until(t, 2*time.Minute, "tools", func() bool { return strings.HasPrefix(p.list(t), "tools: ") })
}

func (p *exampleProcess) log(t *testing.T) string {
	t.Helper()
	content := bed.Must(os.ReadFile(p.logFile))(t)
	return string(content)
}

func freePort(t *testing.T) string {
	t.Helper()
	ports := bed.Must(bed.FreePorts(1))(t)
	return strconv.Itoa(ports[0])
}

type manifest map[string]any

// manifests returns the objects of a YAML file of examples/, by kind.
func manifests(t *testing.T, file string) map[string]manifest {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(example(t, file)))
	all := map[string]manifest{}
	for {
		var m manifest
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		kind, _ := m["kind"].(string)
		if kind == "" || m["apiVersion"] == nil || m.at("metadata", "name") == nil || all[kind] != nil {
			t.Fatalf("%s: an object without kind, apiVersion or name, or a second one of its kind", file)
		}
		all[kind] = m
	}
}

// at returns the value at a path of names and indices.
func (m manifest) at(path ...any) any {
	var value any = map[string]any(m)
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, _ := value.(map[string]any)
			if object == nil {
				nested, _ := value.(manifest)
				object = nested
			}
			value = object[step]
		case int:
			list, _ := value.([]any)
			if step >= len(list) {
				return nil
			}
			value = list[step]
		}
	}
	return value
}

// The manifests agree on the token path, the Secret, the role and the header. No cluster runs them here.
func TestExampleManifestsAgree(t *testing.T) {
	t.Parallel()
	annotation := func(name string) []any {
		return []any{"spec", "template", "metadata", "annotations", "vault.hashicorp.com/" + name}
	}
	agentTemplate := regexp.MustCompile(`(?s)contents\s*= <<EOT\n(.*)\nEOT`).FindStringSubmatch(example(t, "vault-agent/agent.hcl"))
	if agentTemplate == nil {
		t.Fatal("vault-agent/agent.hcl has no template")
	}
	// An annotation is a single line, so its template needs no hyphens to trim line ends.
	oneLine := strings.NewReplacer("{{-", "{{", "-}}", "}}", "\n", "").Replace(agentTemplate[1])
	const (
		operator  = "kubernetes/vault-secrets-operator.yaml"
		external  = "kubernetes/external-secrets-operator.yaml"
		injector  = "kubernetes/agent-injector.yaml"
		gateway   = "kuadrant/mcp-server-registration.yaml"
		policy    = "kuadrant/authpolicy.yaml"
		authorino = "authorino/authconfig.yaml"

		tokenURL = "https://vault.example.com:8200/v1/" + exampleToken
		header   = "auth.metadata.vault.data.authorization"

		// TestErrorsHaveNoAuthorization checks that errors do not match.
		tokenFound = "has(auth.metadata.vault) && has(auth.metadata.vault.data) && has(" + header + ")"
	)
	// The role of docs/deployments.md has this audience.
	page := bed.Must(os.ReadFile("../docs/deployments.md"))(t)
	role := regexp.MustCompile(`(?s)vault write auth/kubernetes/role/mcp-broker .*? audience=(\w+) `).FindSubmatch(page)
	if role == nil {
		t.Fatal("the page has no role with an audience")
	}
	audience := string(role[1])
	for _, c := range []struct {
		file, kind string
		want       any // nil: the field must not exist
		path       []any
	}{
		{operator, "VaultDynamicSecret", "secrets.hashicorp.com/v1beta1", []any{"apiVersion"}},
		{operator, "VaultDynamicSecret", bed.Mount, []any{"spec", "mount"}},
		{operator, "VaultDynamicSecret", "token/files", []any{"spec", "path"}},
		{operator, "VaultDynamicSecret", true, []any{"spec", "allowStaticCreds"}},
		{operator, "VaultDynamicSecret", nil, []any{"spec", "params"}},
		{operator, "VaultDynamicSecret", nil, []any{"spec", "requestHTTPMethod"}},
		{operator, "VaultDynamicSecret", "files-token", []any{"spec", "destination", "name"}},
		{operator, "VaultDynamicSecret", true, []any{"spec", "destination", "create"}},
		{operator, "VaultDynamicSecret", "true", []any{"spec", "destination", "labels", "mcp.kuadrant.io/secret"}},
		{operator, "VaultDynamicSecret", true, []any{"spec", "destination", "transformation", "excludeRaw"}},
		{operator, "VaultDynamicSecret", []any{"^authorization$"}, []any{"spec", "destination", "transformation", "includes"}},
		{operator, "VaultDynamicSecret", "mcp-broker", []any{"spec", "vaultAuthRef"}},
		{operator, "VaultAuth", "mcp-broker", []any{"metadata", "name"}},
		{operator, "VaultAuth", "vault", []any{"spec", "vaultConnectionRef"}},
		{operator, "VaultAuth", []any{audience}, []any{"spec", "kubernetes", "audiences"}},
		{operator, "VaultConnection", "vault", []any{"metadata", "name"}},

		{external, "VaultDynamicSecret", "generators.external-secrets.io/v1alpha1", []any{"apiVersion"}},
		{external, "VaultDynamicSecret", exampleToken, []any{"spec", "path"}},
		{external, "VaultDynamicSecret", "GET", []any{"spec", "method"}},
		{external, "VaultDynamicSecret", "Data", []any{"spec", "resultType"}},
		{external, "VaultDynamicSecret", "files-token", []any{"metadata", "name"}},
		{external, "VaultDynamicSecret", []any{audience}, []any{"spec", "provider", "auth", "kubernetes", "serviceAccountRef", "audiences"}},
		{external, "ExternalSecret", "VaultDynamicSecret", []any{"spec", "dataFrom", 0, "sourceRef", "generatorRef", "kind"}},
		{external, "ExternalSecret", "files-token", []any{"spec", "dataFrom", 0, "sourceRef", "generatorRef", "name"}},
		{external, "ExternalSecret", "files-token", []any{"spec", "target", "name"}},
		{external, "ExternalSecret", "{{ .authorization }}", []any{"spec", "target", "template", "data", "authorization"}},
		{external, "ExternalSecret", "true", []any{"spec", "target", "template", "metadata", "labels", "mcp.kuadrant.io/secret"}},

		// TestExampleAgentKeepsAFile runs this template.
		{injector, "Deployment", oneLine, annotation("agent-inject-template-authorization")},
		{injector, "Deployment", exampleToken, annotation("agent-inject-secret-authorization")},
		{injector, "Deployment", "true", annotation("agent-inject")},
		{injector, "Deployment", "true", annotation("error-on-missing-key-authorization")},
		{injector, "Deployment", "mcp-broker", annotation("role")},
		{injector, "Deployment", "vault-login", annotation("agent-service-account-token-volume-name")},
		{injector, "Deployment", "vault-login", []any{"spec", "template", "spec", "volumes", 0, "name"}},
		{injector, "Deployment", audience, []any{"spec", "template", "spec", "volumes", 0, "projected", "sources", 0, "serviceAccountToken", "audience"}},
		{injector, "Deployment", nil, annotation("agent-pre-populate-only")}, // the agent must keep running
		{injector, "Deployment", "true", annotation("agent-run-as-same-user")},
		// The webhook takes the user only from this field, and refuses a pod without it.
		{injector, "Deployment", 1000, []any{"spec", "template", "spec", "containers", 0, "securityContext", "runAsUser"}},

		{gateway, "MCPServerRegistration", "files-token", []any{"spec", "credentialRef", "name"}},
		{gateway, "MCPServerRegistration", "authorization", []any{"spec", "credentialRef", "key"}},
		{gateway, "MCPServerRegistration", "HTTPRoute", []any{"spec", "targetRef", "kind"}},

		{authorino, "AuthConfig", tokenURL, []any{"spec", "metadata", "vault", "http", "url"}},
		{authorino, "AuthConfig", "auth.metadata.login.auth.client_token", []any{"spec", "metadata", "vault", "http", "headers", "X-Vault-Token", "expression"}},
		{authorino, "AuthConfig", nil, []any{"spec", "metadata", "login", "http", "sharedSecretRef"}}, // a Vault token in this field would not be renewed
		{authorino, "AuthConfig", header, []any{"spec", "response", "success", "headers", "authorization", "plain", "expression"}},
		{authorino, "AuthConfig", tokenFound, []any{"spec", "authorization", "a-token-was-found", "patternMatching", "patterns", 0, "predicate"}},
		{authorino, "AuthConfig", 10, []any{"spec", "metadata", "vault", "cache", "ttl"}},
	} {
		m := manifests(t, c.file)[c.kind]
		if m == nil {
			t.Errorf("%s: there is no %s", c.file, c.kind)
			continue
		}
		if got := m.at(c.path...); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %s %v is %v, want %v", c.file, c.kind, c.path, got, c.want)
		}
	}
	for _, file := range []string{operator, external, injector, gateway, policy} {
		bed.WantText(t, file, example(t, file), "# Not run: it needs a cluster.")
	}
	// The AuthPolicy has the same rules as the AuthConfig, which a test runs.
	rules, _ := manifests(t, policy)["AuthPolicy"].at("spec", "rules").(manifest)
	for part, rule := range rules {
		if want := manifests(t, authorino)["AuthConfig"].at("spec", part); !reflect.DeepEqual(rule, want) {
			t.Errorf("%s: the %s is %v, want that of the AuthConfig, %v", policy, part, rule, want)
		}
	}
	if len(rules) != 4 {
		t.Errorf("%s has %d kinds of rules, want 4", policy, len(rules))
	}
	// The comment in the file and TestPollerNeverHoldsExpiredToken have the same limit.
	interval, err := time.ParseDuration(fmt.Sprint(manifests(t, external)["ExternalSecret"].at("spec", "refreshInterval")))
	if err != nil || interval >= 5*time.Minute/4 {
		t.Errorf("the interval is %s, %v; want less than a quarter of 5 minutes", interval, err)
	}
}

// Authorino reads an answer of Vault as JSON and ignores its status. Only this field shows whether it has a token.
func TestErrorsHaveNoAuthorization(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	u.write(t, "role/"+u.name+"/refused", map[string]any{"resource": "https://nowhere.example.com", "verify": false})
	u.write(t, "config/"+u.name+"-away", u.settings(map[string]any{"token_url": "http://127.0.0.1:1/token", "verify": false}))
	for path, want := range map[string]int{
		"": http.StatusOK, "/refused": http.StatusBadRequest, "-nowhere": http.StatusNotFound,
		"-away": http.StatusBadGateway, "/denied": http.StatusForbidden,
	} {
		login := http.Header{"X-Vault-Token": {u.root.Token()}}
		if want == http.StatusForbidden {
			login = nil
		}
		a := bed.Must(ask(t.Context(), u.mountURL()+"token/"+u.name+path, "", login))(t)
		var answer struct{ Data map[string]any }
		err := json.Unmarshal([]byte(a.body), &answer)
		if media := a.header.Get("Content-Type"); a.status != want || err != nil || media != "application/json" {
			t.Errorf("%s: status %d, %s, %v; want %d with JSON", path, a.status, media, err, want)
		}
		_, found := answer.Data["authorization"]
		if good := want == http.StatusOK; found != good || !good && answer.Data != nil {
			t.Errorf("%s: status %d, and an authorization: %t", path, a.status, found)
		}
		if value, ok := answer.Data["access_token"].(string); ok {
			u.bed.Secrecy.AddToken(value)
		}
	}
}

// Vault reads Terraform's settings back as written. Otherwise every plan would show a change. The settings hold no
// secret, because Terraform keeps them in its state.
func TestExampleTerraformSettingsAreReadAsWritten(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	written := terraformData(t, "mcp-oauth/config/files", "mcp-oauth/role/files/writer")
	config, role := written[0], written[1]
	for _, field := range []string{"client_secret", "private_key", "client_certificate_key"} {
		if _, ok := config[field]; ok {
			t.Errorf("the state would hold %s", field)
		}
	}
	config["server_url"], config["client_id"] = u.mcp.URL, u.client.ID
	u.write(t, "config/"+u.name, config)
	wantReadAsWritten(t, u, "config/"+u.name, config)
	u.write(t, "role/"+u.name+"/writer", role)
	wantReadAsWritten(t, u, "role/"+u.name+"/writer", role)
}

// wantReadAsWritten checks the rule of ignore_absent_fields: each field that a read returns equals the written one.
func wantReadAsWritten(t *testing.T, u *upstream, path string, written map[string]any) {
	t.Helper()
	read, compared := u.read(t, path), 0
	for field, want := range written {
		got, ok := read[field]
		if !ok {
			continue
		}
		compared++
		if text(got) != text(want) {
			t.Errorf("%s: %s was written as %s and is read as %s", path, field, text(want), text(got))
		}
	}
	if compared == 0 {
		t.Errorf("%s: a read returns none of the written fields", path)
	}
}

// terraformData returns the example's data for each path. The arguments of jsonencode are lines with a name and a
// JSON value.
func terraformData(t *testing.T, paths ...string) []map[string]any {
	t.Helper()
	resource := regexp.MustCompile(`(?s)\n\s*path\s*= "([^"]+)"\n.*?jsonencode\(\{\n(.*?)\n\s*\}\)`)
	found := map[string]map[string]any{}
	for _, match := range resource.FindAllStringSubmatch(example(t, "terraform/main.tf"), -1) {
		data := map[string]any{}
		for line := range strings.Lines(match[2]) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			name, value, _ := strings.Cut(line, "=")
			var decoded any
			if err := json.Unmarshal([]byte(value), &decoded); err != nil {
				t.Fatalf("%s: %q: %v", match[1], line, err)
			}
			data[strings.TrimSpace(name)] = decoded
		}
		found[match[1]] = data
	}
	var all []map[string]any
	for _, path := range paths {
		if len(found[path]) == 0 {
			t.Fatalf("the example writes nothing to %s", path)
		}
		all = append(all, found[path])
	}
	return all
}
