package acceptance

import (
	"cmp"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/servers"
)

// onOpenBao replaces commands that differ on OpenBao, as in docs/openbao.md.
var onOpenBao = strings.NewReplacer("vault plugin reload -type=secret ", "vault plugin reload ")

// readersOwn lists the placeholders of the pages. Blocks are pasted with only these and the differences of OpenBao
// replaced.
func (w *walkthrough) readersOwn() []readersOwn {
	port, published := freePort(w.t), filepath.Join(w.dir, "published.git")
	return []readersOwn{
		{"README.md docs/releases.md", "/etc/vault.d/plugins", w.bed.PluginDir()},
		{"README.md docs/deployments.md docs/keys.md docs/identity.md", "https://files.example.com/mcp", w.mcp.URL},
		{"README.md docs/providers.md", "scopes=files:read", "scopes=tools:list"},
		{"docs/deployments.md docs/metrics.md", "https://vault.example.com:8200", w.bed.Vault.Address},
		{"docs/deployments.md", "127.0.0.1:8100", "127.0.0.1:" + port},
		{"docs/deployments.md", "127.0.0.1:8300", "127.0.0.1:" + freePort(w.t)},
		{"docs/deployments.md", "127.0.0.1:8301", "127.0.0.1:" + freePort(w.t)},
		{"docs/deployments.md", "https://idp.example.com/realms/mcp", w.bed.AS.Issuer},
		{"docs/deployments.md", "bound_audiences=mcp-gateway", "bound_audiences=" + w.mcp.URL},
		{"docs/keys.md docs/identity.md", "https://vault.example.com", w.bed.Vault.Address},
		// The bed's authorization server has a certificate of a private CA.
		{"docs/keys.md", "client_certificate=@cert.pem", "client_certificate=@cert.pem ca_cert=@ca.pem"},
		{"docs/metrics.md", "/var/lib/vault-agent-prometheus", w.dir + "/var/lib/vault-agent-prometheus"},
		{"docs/metrics.md", "-o prometheus", "-o " + strconv.Itoa(os.Getuid())},
		{"docs/providers.md", "https://mcp.example.com/mcp", w.mcp.URL},
		{"docs/providers.md", "client_id=CLIENT_ID", "client_id=" + w.client.ID},
		{"docs/releases.md", "https://github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth", published},
	}
}

// A readersOwn is a placeholder of a page.
type readersOwn struct{ pages, name, is string }

// notRun lists the commands that no test runs, by page and first line, with the reason in the page's words.
var notRun = map[string]string{
	"acceptance/README.md: make soak                            # 2 minutes, as in make test": "as in make test",

	"README.md: make demo    # the whole flow, in two minutes":                                  "CI runs demo and tests too",
	"docs/deployments.md: node broker.ts mcp-oauth/token/files https://files.example.com/mcp":   "For an older Node.js, as in the tests",
	"docs/deployments.md: vault auth enable kubernetes":                                         "needs a cluster, and was not run either",
	"examples/kuadrant/README.md: export GATEWAY_SIGNING_KEY=$(openssl rand -hex 32)":           "it was run with 0.7.1",
	"docs/identity.md: vault write -f mcp-oauth/refresh/files":                                  "Once the authorization server has them",
	"docs/migrate.md: vault delete oauth2/self/files":                                           "oauthapp was not run here",
	"docs/performance.md: make bench                       # into bench/results, about an hour": "No test runs all of it, since it takes long",
	"docs/releases.md: cosign verify-blob --bundle SHA256SUMS.sigstore.json \\":                 "nothing is signed yet",
}

// elsewhere lists other blocks that this test skips, by page and language.
var elsewhere = map[string]string{
	"README.md: mermaid":           "a picture",
	"docs/identity.md: mermaid":    "a picture",
	"docs/deployments.md: mermaid": "a picture",
	"docs/openbao.md: hcl":         "TestDeclaredPlugin, TestDeclaredPluginFromAnImage",
	"docs/openbao.md: sh":          "TestUpgradeReachesEveryNode, TestNamespaces",
	"docs/providers.md: toml":      "a setting of WSO2's",
	"docs/security.md: hcl":        "TestPoliciesOfTheSecurityPage",

	"acceptance/README.md: text":    "what one run printed",
	"docs/architecture.md: mermaid": "a picture, which make lint checks",
}

// pages are the pages with commands, in order.
var pages = []struct {
	file   string
	follow func(*walkthrough)
}{
	{"docs/releases.md", followReleases}, // installs the plugin
	{"docs/api.md", followAPI},
	{"docs/operations.md", followOperations},
	{"docs/discovery.md", followDiscovery},
	{"docs/keys.md", followKeys},
	{"docs/identity.md", followIdentity},
	{"docs/migrate.md", followMigrate},
	{"docs/deployments.md", followDeployments},
	{"docs/metrics.md", followMetrics},
	{"docs/security.md", followSecurity},
	{"docs/providers.md", followProviders},
	{"brokerauth/README.md", followBrokerauth},
}

// Every command of the other pages is pasted, page after page into one Vault, unless the page gives a reason.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	checkBlocks(t)
	u := newReadersOwn(t)
	for _, page := range pages {
		t.Run(page.file, func(t *testing.T) {
			w := u.walk(t, page.file)
			if page.file != "docs/releases.md" {
				w.fresh()
			}
			page.follow(w)
			w.finish()
		})
	}
}

// checkBlocks checks that every page is listed, and that notRun and elsewhere have no stale entry.
func checkBlocks(t *testing.T) {
	t.Helper()
	followed := map[string]bool{"README.md": true}
	for _, page := range pages {
		followed[page.file] = true
	}
	stale := map[string]bool{}
	for key := range notRun {
		stale[key] = true
	}
	for key := range elsewhere {
		stale[key] = true
	}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../*/README.md", "../examples/*/README.md"} {
		files := bed.Must(filepath.Glob(pattern))(t)
		for _, file := range files {
			page := strings.TrimPrefix(file, "../")
			content := bed.Must(os.ReadFile(file))(t)
			prose := strings.Join(strings.Fields(string(content)), " ")
			for _, b := range blocksOf(t, page) {
				delete(stale, b.key())
				delete(stale, page+": "+b.language)
				why := notRun[b.key()]
				if why != "" && !strings.Contains(prose, why) {
					t.Errorf("%s: the page does not say that it is not run: %q", b, why)
				}
				if why == "" && elsewhere[page+": "+b.language] == "" && !followed[page] {
					t.Errorf("%s is not run, and not listed", b)
				}
			}
		}
	}
	for key := range stale {
		t.Errorf("the block %q no longer exists", key)
	}
}

// fresh deletes the config, and gives its client a new secret.
func (w *walkthrough) fresh() {
	w.t.Helper()
	bed.Must(w.root.Logical().DeleteWithContext(w.t.Context(), bed.Mount+"/config/"+w.name))(w.t)
	w.registerAs(w.t, bed.Client{Secret: newSecret()})
	w.put("client-secret", w.client.Secret+"\n")
}

// prepare runs a script to meet a page's precondition, and returns its output.
func (w *walkthrough) prepare(script string) string {
	w.t.Helper()
	out := bed.Must(w.run(block{page: "before a block"}, script))(w.t)
	return out
}

// This follows the page from a download to an upgrade and a rollback. The next version is installed by the same
// commands.
func followReleases(w *walkthrough) {
	t, r := w.t, &release{t: w.t, bed: w.bed, plugins: w.dir}
	const (
		archive = "vault-plugin-mcp-oauth_0.2.0_linux_amd64.tar.gz"
		pin     = "sys/plugins/pins/secret/" + bed.PluginName
	)
	r.build("v0.2.0", bed.PluginName)
	w.prepare("tar -czf " + archive + " " + bed.PluginName + "; rm " + bed.PluginName + "; sha256sum " + archive + " > SHA256SUMS")
	w.paste("sha256sum")
	install, register := w.next("sh", "VERSION=0.2.0\ntar"), w.next("sh", "VERSION=0.2.0\nvault plugin register")
	w.prepare(install.text)
	w.prepare(register.text)
	w.paste("vault secrets enable")
	r.runs("v0.2.0", "v0.2.0")
	w.configure(t, nil)
	token := w.token(t, "token/files")

	r.build("v0.3.0", bed.PluginName)
	w.prepare("tar -czf " + strings.Replace(archive, "0.2.0", "0.3.0", 1) + " " + bed.PluginName)
	for _, b := range []block{install, register} {
		w.prepare(strings.Replace(b.text, "VERSION=0.2.0", "VERSION=0.3.0", 1))
	}
	r.runs("v0.2.0", "v0.2.0")
	tune := w.next("sh", "vault secrets tune")
	w.prepare(tune.text)
	r.runs("v0.3.0", "v0.3.0")
	reload := w.bed.Vault.Product.ReloadPlugin()
	if w.bed.Vault.Product.PinsVersions() {
		w.paste("vault write sys/plugins/pins")
		r.refused("a pinned version v0.3.0 is in effect", "secrets", "tune", "-plugin-version=v0.2.0", bed.Mount)
		r.vault("write", pin, "version=v0.2.0")
		r.vault(reload...)
		r.runs("v0.3.0", "v0.2.0")
		r.vault("delete", pin)
	} else {
		w.next("sh", "vault write sys/plugins/pins")
	}
	w.prepare(strings.Replace(tune.text, "v0.3.0", "v0.2.0", 1))
	r.runs("v0.2.0", "v0.2.0")
	w.wantToken(t, "token/files", token)

	// The old version is removed.
	r.vault("secrets", "tune", "-plugin-version=v0.3.0", bed.Mount)
	r.vault(reload...)
	w.paste("vault plugin deregister")
	r.registered("v0.3.0")

	w.prepare("git clone -q --bare '" + absolute(t, "..") + "' published.git; git -C published.git tag -f v0.2.0")
	if out := w.paste("git clone"); !regexp.MustCompile(`(?m)^[0-9a-f]{64}  plugin$`).MatchString(out) {
		t.Errorf("the build printed no sum: %s", out)
	}
}

func followAPI(w *walkthrough) {
	t := w.t
	w.configure(t, nil)
	out, err := w.shell(t.Context(), "vault patch mcp-oauth/config/files audience=x", w.bed.Vault.RootToken).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Code: 405") || !strings.Contains(string(out), "use vault write") {
		t.Errorf("the answer to a patch is %v\n%s", err, out)
	}
}

// The installer's policy permits the installation in releases.md, and no reads of tokens.
func followOperations(w *walkthrough) {
	t := w.t
	w.configure(t, nil)
	token := w.token(t, "token/files")
	w.paste("vault policy write mcp-oauth-installer")
	installer := strings.TrimSpace(commandSays(t, w.bed, "token", "create", "-policy=mcp-oauth-installer", "-field=token"))
	for script, permitted := range map[string]bool{
		`SHA=$(vault read -field=sha256 sys/plugins/catalog/secret/vault-plugin-mcp-oauth version=v0.3.0)
		vault plugin register -sha256="$SHA" -command=vault-plugin-mcp-oauth-v0.3.0 -version=v0.3.0 secret vault-plugin-mcp-oauth
		vault secrets tune -plugin-version=v0.3.0 mcp-oauth
		vault plugin reload -type=secret -plugin=vault-plugin-mcp-oauth
		vault secrets list -detailed`: true,
		"vault read mcp-oauth/token/files": false, "vault read mcp-oauth/config/files": false,
		"vault plugin deregister -version=v0.3.0 secret another-plugin": false,
	} {
		cmd := w.shell(t.Context(), w.replace(script), installer)
		out, err := cmd.CombinedOutput()
		if (err == nil) != permitted || !permitted && !strings.Contains(string(out), "403") {
			t.Errorf("%s: %v\n%s", script, err, w.bed.Secrecy.Redact(out))
		}
	}
	move := w.next("sh", "vault secrets move")
	if out, err := w.shell(t.Context(), move.text, installer).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", move, err, w.bed.Secrecy.Redact(out))
	}
	w.prepare("vault secrets move mcp-tokens/ mcp-oauth/")
	w.wantToken(t, "token/files", token)
	w.wantTuned("vault secrets tune", "response", w.read(t, "token/files"))
}

func followDiscovery(w *walkthrough) {
	w.write(w.t, "config/files", w.discovered(map[string]any{"client_secret": w.client.Secret}))
	asked := w.mcp.Counts().Requests
	w.paste("vault write mcp-oauth/config/files rediscover=true")
	if w.mcp.Counts().Requests == asked {
		w.t.Error("the MCP server was not asked again")
	}
	w.token(w.t, "token/files")
}

// The administrator's part is left out, because this authorization server does not accept issuers.
func followIdentity(w *walkthrough) {
	out := w.paste("vault write mcp-oauth/settings")
	for _, field := range []string{"issuer", "subject", "audience", "jwks_uri"} {
		shown, _ := w.read(w.t, "keys/files")[field].(string)
		bed.WantText(w.t, "the output", out, cmp.Or(shown, field+" in keys/files"))
	}
}

func followKeys(w *walkthrough) {
	t := w.t
	bed.WantText(t, "the write", w.paste("vault write mcp-oauth/settings"), "a signing key was made")
	var keys struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(w.paste("vault read -format=json")), &keys); err != nil || len(keys.Keys) != 1 {
		t.Errorf("the output is not a JWK Set: %v", err)
	}
	// Before the client is registered, a read is refused.
	if status := readStatus(t.Context(), w.root, "token/files"); status != http.StatusBadRequest {
		t.Errorf("before the key is registered a read has the status %d, want 400", status)
	}
	w.registerMadeKey(t)
	w.paste("vault write mcp-oauth/config/files client_id=mcp-broker")
	w.token(t, "token/files")

	w.checkRotation(w.paste("vault write -f mcp-oauth/keys/files/rotate"), 0)
	w.fresh()
	w.write(t, "config/files", w.discovered(publishedKey("ec-p256")(t, w.upstream)))
	w.registerMadeKey(t)
	w.checkRotation(w.paste("vault write mcp-oauth/keys/files/rotate"), 23*time.Hour)

	w.fresh()
	key, _ := operatorKey(p256PKCS8)(t, w.upstream)["private_key"].(string)
	w.put("key.pem", key)
	w.paste("vault write mcp-oauth/config/files")
	w.token(t, "token/files")

	w.fresh()
	fields := certificate(bySubject)(t, w.upstream)
	for file, field := range map[string]string{"cert.pem": "client_certificate", "key.pem": "client_certificate_key", "ca.pem": "ca_cert"} {
		content, _ := fields[field].(string)
		w.put(file, content)
	}
	w.paste("vault write mcp-oauth/config/files")
	w.token(t, "token/files")
}

// checkRotation checks that the rotated key is published, and not used too early.
func (w *walkthrough) checkRotation(out string, least time.Duration) {
	w.t.Helper()
	keys := w.read(w.t, "keys/files")
	if next := printed(out, "key_id"); next == "" || keys["next_key_id"] != next {
		w.t.Errorf("the next key is %v, and %q was printed", keys["next_key_id"], next)
	}
	if in := time.Until(timestamp(w.t, keys, "next_key_active_at")); in < least {
		w.t.Errorf("the next key is used in %s, want %s or more", in, least)
	}
}

// A broker with both policies reads both paths.
func followMigrate(w *walkthrough) {
	t := w.t
	w.prepare("vault auth enable approle")
	w.prepare("vault secrets enable -path=secret kv-v2")
	bed.Eventually(t, 30*time.Second, func() error { // OpenBao sets itself up
		_, err := w.root.Logical().ReadWithContext(t.Context(), "secret/config")
		return err
	})
	w.prepare("vault kv put secret/mcp/files token=pasted")
	w.configure(t, nil)
	broker := newIdentity(t, w.bed, "migrating", example(t, "policy.hcl")+`
path "secret/data/mcp/files" {
  capabilities = ["read"]
}`)
	w.wantStatuses(brokersLogin{client: broker.Client}, map[string]int{
		"token/files": http.StatusOK, "config/files": http.StatusForbidden,
	})
	if secret, err := broker.Client.Logical().ReadWithContext(t.Context(), "secret/data/mcp/files"); err != nil || secret == nil {
		t.Errorf("a broker that moves cannot read the old path: %v", err)
	}
	w.prepare("vault auth disable approle")
	w.paste("vault kv metadata delete")
	if secret, err := w.root.Logical().ReadWithContext(t.Context(), "secret/metadata/mcp/files"); err != nil || secret != nil {
		t.Errorf("KV still has the token: %v", err)
	}
}

func followDeployments(w *walkthrough) {
	t := w.t
	w.configure(t, nil)
	w.prepare("vault auth enable approle")
	broker := newIdentity(t, w.bed, "mcp-broker", example(t, "policy.hcl"))
	for file, content := range map[string]string{
		"role-id": broker.RoleID, "secret-id": broker.SecretID,
		"agent.hcl": example(t, "vault-agent/agent.hcl"), "proxy.hcl": w.replace(example(t, tokenProxyExample)),
		"broker.py": example(t, "python/broker.py"), "vault_mcp_auth.py": example(t, "python/vault_mcp_auth.py"),
	} {
		w.put(file, content)
	}
	stop := w.start("export VAULT_ADDR")
	w.checkAuthorization(t, w.await("authorization"))
	stop()

	w.followTokenProxy()

	w.put("proxy.hcl", w.replace(example(t, "vault-proxy/proxy.hcl")))
	defer w.start("export VAULT_ADDR")()
	proxy := w.replace("http://127.0.0.1:8100/v1/mcp-oauth/token/files")
	bed.Until(t, 30*time.Second, "the proxy serves the token", func() bool {
		a, err := ask(t.Context(), proxy, "", http.Header{"X-Vault-Request": {"true"}})
		return err == nil && a.status == http.StatusOK
	})
	var answer struct{ Data bed.Token }
	if err := json.Unmarshal([]byte(w.paste("curl -s")), &answer); err != nil {
		t.Fatal("curl's output is not JSON")
	}
	w.checkAuthorization(t, answer.Data.Authorization)

	if w.has("python3") {
		if out := w.paste("export VAULT_ADDR"); out != "tools: forecast\n" {
			t.Errorf("the broker in Python says %q", w.bed.Secrecy.Redact([]byte(out)))
		}
	}

	w.paste("vault auth enable jwt")
	login := bed.Must(w.root.Logical().WriteWithContext(t.Context(), "auth/jwt/login", map[string]any{
		"role": "mcp-clients", "jwt": w.token(t, "token/files").AccessToken,
	}))(t)
	client := bed.Must(w.bed.Vault.Client(login.Auth.ClientToken))(t)
	w.wantStatuses(brokersLogin{client: client}, map[string]int{
		"token/files": http.StatusOK, "config/files": http.StatusForbidden,
	})
}

// has reports whether a command is installed. If not, it skips the next block.
func (w *walkthrough) has(command string) bool {
	w.t.Helper()
	_, err := exec.LookPath(command)
	if err != nil {
		w.t.Logf("NOT RUN: %s, as there is no %s on this machine.", w.next("sh", ""), command)
	}
	return err == nil
}

func followMetrics(w *walkthrough) {
	t := w.t
	w.configure(t, nil)
	w.token(t, "token/files")
	bed.WantText(t, "the output", w.paste("vault read -format=raw"), `mcp_oauth_token_reads_total{outcome="success"}`)
	// The reader's checkout is as after the quick start.
	w.put("role-id", "the broker's")
	w.put("secret-id", "the broker's")
	bed.OK(t, os.MkdirAll(filepath.Join(w.dir, "examples", "prometheus"), 0o700))
	for _, file := range []string{"examples/prometheus/policy.hcl", "examples/prometheus/agent.hcl"} {
		w.put(file, w.replace(example(t, strings.TrimPrefix(file, "examples/"))))
	}
	w.paste("vault policy write mcp-oauth-metrics")
	for _, file := range []string{"role-id", "secret-id"} {
		if w.await(file) != "the broker's" {
			t.Errorf("the page overwrites the quick start's %s", file)
		}
	}
	stop := w.start("sudo -u prometheus vault agent")
	// The placeholder directory is below the working directory.
	prometheus := bed.Must(w.bed.Vault.Client(w.await(exampleJob(t).HTTPClientConfig.Authorization.CredentialsFile)))(t)
	response, err := prometheus.Logical().ReadRawWithContext(t.Context(), bed.Mount+"/metrics")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the Agent's token does not read the metrics: %v", err)
	}
	w.wantStatuses(brokersLogin{client: prometheus}, map[string]int{"token/files": http.StatusForbidden})
	stop()
}

func followSecurity(w *walkthrough) {
	w.configure(w.t, nil)
	rules := policiesOf(w.t, "../docs/security.md")["operator"]
	bed.OK(w.t, w.bed.Vault.PutPolicy(w.t.Context(), "operator-of-files", rules))
	operator := strings.TrimSpace(commandSays(w.t, w.bed, "token", "create", "-policy=operator-of-files", "-field=token"))
	// The page's operator reads a config and writes it back.
	b := w.next("sh", "vault read -format=json mcp-oauth/config/files")
	cmd := w.shell(w.t.Context(), b.text, operator)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Errorf("%v\n%s", err, w.bed.Secrecy.Redact(out))
	}
	fields := w.read(w.t, "config/files")
	fields["token_id"] = nil // of refresh/
	w.wantTuned("vault secrets tune", "request", fields)
}

// Recipes of servers that cannot run here are written without a request. make test-servers tests the other recipes.
func followProviders(w *walkthrough) {
	t := w.t
	checkRunRecipes(t)
	w.blocks = slices.DeleteFunc(w.blocks, func(b block) bool {
		return slices.ContainsFunc(servers.Kinds, func(kind servers.Kind) bool { return kind.Section == b.heading })
	})
	key, block := rsaPKCS8(t)
	private := string(pem.EncodeToMemory(block))
	w.bed.Secrecy.AddPrivateKey("the recipes' key", private)
	w.put("key.pem", private)
	w.put("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t, key)})))
	w.put("wso2-ca.pem", w.bed.AS.CA.PEM)
	w.put("consumer-secret", w.client.Secret)

	w.paste("vault write mcp-oauth/settings")
	w.configure(t, nil)
	w.client.Secret = newSecret()
	w.setClient(t)
	w.put("new-client-secret", w.client.Secret+"\n")
	w.paste("tr -d '\\n' < new-client-secret")

	server := regexp.MustCompile(`\b(issuer|token_url)=\S+`)
	for len(w.blocks) > 0 {
		w.fresh()
		b := w.next("sh", "")
		recipe := b.heading != "Another server" && b.heading != "oidc-provider"
		script := b.text
		if recipe {
			script = server.ReplaceAllString(strings.TrimSpace(script), "token_url=https://login.example.com/token") + " verify=false"
		}
		if _, err := w.run(b, script); err != nil {
			t.Error(err)
			continue
		}
		if recipe {
			continue
		}
		if strings.Contains(script, "key_type=") {
			w.registerMadeKey(t) // by hand, because the server has fetched another key from this URL
		}
		w.token(t, "token/files")
	}
}

// checkRunRecipes checks that the page's table has exactly the servers that were run, with their versions.
func checkRunRecipes(t *testing.T) {
	t.Helper()
	content := bed.Must(os.ReadFile("../docs/providers.md"))(t)
	want := map[string]string{"oidc-provider": "9"}
	for _, kind := range servers.Kinds {
		if kind.Section != "" {
			want[kind.Section] = kind.Version
		}
	}
	for _, row := range regexp.MustCompile(`(?m)^\| \[(.+?)\]\(#.+?\) \|([^|]*)\|`).FindAllStringSubmatch(string(content), -1) {
		if version, got := want[row[1]], strings.TrimSpace(row[2]); got != version {
			t.Errorf("docs/providers.md says that %s %q was run, want %q", row[1], got, version)
		}
		delete(want, row[1])
	}
	for section := range want {
		t.Errorf("the table of docs/providers.md has no row for %s", section)
	}
}

// The page's Go code compiles. brokerauth's examples run similar code.
func followBrokerauth(w *walkthrough) {
	w.put("main.go", `package main
import (
	"net/http"
	"github.com/hashicorp/vault/api"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/brokerauth"
)
func main() {}
func session(endpoint string) (any, error) {
`+w.next("go", "vault, err").text+`return transport, err
}
func transport(source *brokerauth.Source) (any, error) {
`+w.next("go", "transport, err").text+`return client, err
}
`)
	output(w.t, exec.CommandContext(w.t.Context(), "go", "vet", filepath.Join(w.dir, "main.go")))
	w.configure(w.t, nil)
	broker := newIdentity(w.t, w.bed, "brokerauth", w.next("hcl", "").text)
	w.wantStatuses(brokersLogin{client: broker.Client}, map[string]int{
		"token/files": http.StatusOK, "config/files": http.StatusForbidden,
	})
	if _, err := broker.Client.Logical().WriteWithContext(w.t.Context(), bed.Mount+"/refresh/files", map[string]any{
		"token_id": "0123456789abcdef",
	}); err != nil {
		w.t.Error(err)
	}
}
