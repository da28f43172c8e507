package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The README's blocks are pasted one after another, as a reader would.
func TestREADMECommands(t *testing.T) {
	t.Parallel()
	u := newReadersOwn(t)
	w := u.walk(t, "README.md")
	w.dir = absolute(t, "..") // make writes to bin/, which git ignores
	w.paste("make build")

	w.dir = t.TempDir()
	w.put("client-secret", u.client.Secret+"\n")
	u.checkPrintedToken(t, w.paste("tr -d '\\n' < client-secret | vault write mcp-oauth/config/files"))

	w.paste("vault policy write mcp-broker -")
	w.wantStatuses(w.login(), map[string]int{
		"token/files": http.StatusOK, "token/other": http.StatusForbidden,
		"config/files": http.StatusForbidden, "status/files": http.StatusForbidden,
	})

	w.save("agent.hcl")
	stop := w.start("vault agent")
	u.checkAuthorization(t, w.await("files-authorization"))
	stop()

	brokers := w.next("sh", "vault policy write mcp-brokers -")
	for range 2 { // the second time as for the next broker
		bed.Must(w.run(brokers, brokers.text))(t)
	}
	login := w.login()
	entity := login.entity
	u.write(t, "role/files/other", map[string]any{"scopes": "tools:list"})
	w.wantStatuses(w.login(), map[string]int{
		"token/files/" + entity: http.StatusOK, "token/files/other": http.StatusForbidden, "token/files": http.StatusForbidden,
		"role/files/" + entity: http.StatusForbidden,
	})
	token := u.token(t, "token/files/"+entity)
	for path, want := range map[string]bool{"refresh/files/" + entity: true, "refresh/files/other": false} {
		_, err := login.client.Logical().WriteWithContext(t.Context(), bed.Mount+"/"+path, map[string]any{"token_id": token.TokenID})
		if (err == nil) != want {
			t.Errorf("the broker writes %s: %v", path, err)
		}
	}

	states := rowsOf(w.prepare("vault list -detailed mcp-oauth/status"))
	if states["files"]["state"] != "ok" || states["files/"]["state"] != "ok" {
		t.Errorf("the states are %v, want ok for the names that were read", states)
	}
	w.finish()
}

// A block is a fenced block of a page.
type block struct {
	page, heading, language string
	line                    int
	before                  string // the line of the page's text above it
	text                    string
}

func (b block) String() string { return fmt.Sprintf("%s:%d (%s)", b.page, b.line, b.heading) }

// key is the block's key in notRun.
func (b block) key() string {
	first, _, _ := strings.Cut(b.text, "\n")
	return b.page + ": " + first
}

var fence = regexp.MustCompile("^( *)```([a-z]*)$")

// otherCredentials matches the credentials that may replace the secret in a section's recipe.
var otherCredentials = regexp.MustCompile("replace the secret by `([^`]+)`")

var secretFields = regexp.MustCompile(` (?:token_endpoint_auth_method|client_secret)=\S+`)

// with returns a recipe with these credentials instead of its secret. line is where the page names them.
func (b block) with(credentials string, line int) block {
	_, command, _ := strings.Cut(b.text, "| ") // without the secret's file
	b.text = strings.TrimSpace(secretFields.ReplaceAllString(command, "")) + " \\\n  " + credentials + "\n"
	b.line = line
	return b
}

// blocksOf returns the fenced blocks of a page, given by its path in the checkout, and its recipes with other
// credentials.
func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	content := bed.Must(os.ReadFile(filepath.Join("..", page)))(t)
	var blocks []block
	var heading, before, indent string
	open := false
	for i, line := range strings.Split(string(content), "\n") {
		mark := fence.FindStringSubmatch(line)
		switch {
		case mark != nil && !open:
			open, indent = true, mark[1]
			blocks = append(blocks, block{page: page, heading: heading, language: mark[2], line: i + 1, before: before})
		case mark != nil:
			open = false
		case open:
			blocks[len(blocks)-1].text += strings.TrimPrefix(line, indent) + "\n"
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimLeft(line, "# ")
		case strings.TrimSpace(line) != "":
			before = line
			if other := otherCredentials.FindStringSubmatch(line); other != nil {
				recipe := slices.IndexFunc(blocks, func(b block) bool { return b.heading == heading && strings.Contains(b.text, " client_secret=-") })
				if recipe < 0 {
					t.Fatalf("%s:%d: %s has no recipe with a secret", page, i+1, heading)
				}
				blocks = append(blocks, blocks[recipe].with(other[1], i+1))
			}
		}
	}
	if open {
		t.Fatalf("%s: a fence is not closed", page)
	}
	return blocks
}

// A walkthrough follows a page block by block, in one working directory.
type walkthrough struct {
	*upstream
	t      *testing.T
	dir    string
	bin    string  // directory before the PATH, with the server as vault and a sudo that only runs its arguments
	blocks []block // unused blocks
	own    []readersOwn
	used   map[string]bool // placeholders replaced so far
}

// newReadersOwn starts a Vault without the plugin, and the MCP server "files" with the client mcp-broker.
func newReadersOwn(t *testing.T) *upstream {
	t.Helper()
	b := bed.New(t, bed.Options{Bare: true})
	root := bed.Must(b.Vault.Root())(t)
	u := &upstream{bed: b, root: root, name: "files"}
	u.client = bed.Client{ID: "mcp-broker", Secret: newSecret(), Scope: "tools:list tools:call"}
	u.setClient(t)
	u.serve(t, 5*time.Minute, bed.MCPOptions{})
	return u
}

// walk opens a page.
func (u *upstream) walk(t *testing.T, page string) *walkthrough {
	t.Helper()
	w := &walkthrough{upstream: u, t: t, dir: t.TempDir(), bin: t.TempDir(), used: map[string]bool{}}
	for _, b := range blocksOf(t, page) {
		if notRun[b.key()] == "" && elsewhere[b.page+": "+b.language] == "" {
			w.blocks = append(w.blocks, b)
		}
	}
	w.own = slices.DeleteFunc(w.readersOwn(), func(o readersOwn) bool { return !slices.Contains(strings.Fields(o.pages), page) })
	for _, name := range []string{"vault", u.bed.Vault.Product.Command()} {
		if err := os.Symlink(u.bed.Vault.Binary, filepath.Join(w.bin, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	// sudo does not pass the reader's environment to the other user.
	w.shim("sudo", `[ "$1" != -u ] || shift 2; exec env -u VAULT_ADDR -u VAULT_TOKEN "$@"`)
	return w
}

// finish fails the test if a block or a placeholder of the page was not used.
func (w *walkthrough) finish() {
	w.t.Helper()
	for _, b := range w.blocks {
		w.t.Errorf("%s was not pasted", b)
	}
	for _, o := range w.own {
		if !w.used[o.name] {
			w.t.Errorf("no block of %s has %q", o.pages, o.name)
		}
	}
}

// next takes the page's next block, and checks its language and its beginning.
func (w *walkthrough) next(language, begins string) block {
	w.t.Helper()
	if len(w.blocks) == 0 {
		w.t.Fatalf("there is no block that begins with %q", begins)
	}
	b := w.blocks[0]
	w.blocks = w.blocks[1:]
	if b.language != language || !strings.HasPrefix(b.text, begins) {
		w.t.Fatalf("%s is %s:\n%swant %s that begins with %q", b, b.language, b.text, language, begins)
	}
	b.text = w.replace(b.text)
	return b
}

// replace replaces the placeholders in a text.
func (w *walkthrough) replace(text string) string {
	for _, o := range w.own {
		if strings.Contains(text, o.name) {
			w.used[o.name] = true
			text = strings.ReplaceAll(text, o.name, o.is)
		}
	}
	if w.bed.Vault.Product == bed.OpenBao {
		text = onOpenBao.Replace(text)
	}
	return text
}

// paste runs the next block in a new shell, and returns its output.
func (w *walkthrough) paste(begins string) string {
	w.t.Helper()
	b := w.next("sh", begins)
	out := bed.Must(w.run(b, b.text))(w.t)
	return out
}

// run runs the script made from a block.
func (w *walkthrough) run(b block, script string) (string, error) {
	cmd := w.shell(w.t.Context(), script, w.bed.Vault.RootToken)
	cmd.Stdin = strings.NewReader("\n") // answers prompts with Enter
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", b, err, script, w.bed.Secrecy.Redact(out))
	}
	return string(out), nil
}

// shell prepares a shell for the script. token, if given, is available through the token helper of vault login, and
// VAULT_TOKEN is not set.
func (w *walkthrough) shell(ctx context.Context, script, token string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = w.dir
	// HOME is the user's, because go has its caches there.
	cmd.Env = slices.Concat(w.bed.Vault.CLI(ctx, "").Env, []string{
		"HOME=" + os.Getenv("HOME"), "PATH=" + w.bin + ":" + os.Getenv("PATH"),
	})
	if token != "" {
		w.shim("vault-login", "printf %s "+token) // replaces ~/.vault-token
		config := filepath.Join(w.bin, "login.hcl")
		bed.OK(w.t, os.WriteFile(config, []byte(`token_helper = "`+filepath.Join(w.bin, "vault-login")+`"`), 0o600))
		cmd.Env = append(cmd.Env, "VAULT_CONFIG_PATH="+config)
	}
	return cmd
}

// start runs the next block until stop is called, on a host without a Vault token.
func (w *walkthrough) start(begins string) (stop func()) {
	w.t.Helper()
	b := w.next("sh", begins)
	// With exec, stop reaches the command itself.
	lines := strings.Split(strings.TrimSpace(b.text), "\n")
	lines[len(lines)-1] = "exec " + lines[len(lines)-1]
	process := bed.Must(w.bed.NewProcess("docs", w.shell(context.Background(), strings.Join(lines, "\n"), "")))(w.t)
	return func() {
		w.t.Helper()
		select {
		case <-process.Done():
			w.t.Errorf("%s ended by itself", b)
		default:
		}
		bed.OK(w.t, process.Stop())
	}
}

func (w *walkthrough) put(name, content string) {
	w.t.Helper()
	bed.OK(w.t, os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600))
}

// save writes the next block to the file named above it.
func (w *walkthrough) save(name string) {
	w.t.Helper()
	b := w.next("hcl", "")
	if !strings.Contains(b.before, "`"+name+"`") {
		w.t.Errorf("%s: the line above does not say that this is %s", b, name)
	}
	w.put(name, b.text)
}

func (w *walkthrough) await(name string) string {
	w.t.Helper()
	var content []byte
	bed.Eventually(w.t, 30*time.Second, func() (err error) {
		content, err = os.ReadFile(filepath.Join(w.dir, name))
		if err == nil && len(content) == 0 {
			err = errors.New(name + " is empty")
		}
		return err
	})
	return string(content)
}

// shim puts a command before the PATH.
func (w *walkthrough) shim(name, script string) {
	w.t.Helper()
	bed.OK(w.t, os.WriteFile(filepath.Join(w.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
}

// A brokersLogin is a login with the role-id and secret-id from a page.
type brokersLogin struct {
	client *api.Client
	entity string
}

// login logs in with the files role-id and secret-id.
func (w *walkthrough) login() brokersLogin {
	w.t.Helper()
	client := bed.Must(w.bed.Vault.Client(""))(w.t)
	answer := bed.Must(client.Logical().WriteWithContext(w.t.Context(), "auth/approle/login", map[string]any{
		"role_id": w.await("role-id"), "secret_id": w.await("secret-id"),
	}))(w.t)
	client.SetToken(answer.Auth.ClientToken)
	return brokersLogin{client, answer.Auth.EntityID}
}

// wantStatuses checks the statuses of reads below the mount.
func (w *walkthrough) wantStatuses(login brokersLogin, want map[string]int) {
	w.t.Helper()
	for path, status := range want {
		wantStatus(w.t, login.client, path, status)
	}
}

// wantTuned runs the next block, and compares the mount's audit log settings with the block and with the fields.
func (w *walkthrough) wantTuned(begins, kind string, fields map[string]any) {
	w.t.Helper()
	var want []string
	for _, match := range regexp.MustCompile(`-audit-non-hmac-`+kind+`-keys=(\w+)`).FindAllStringSubmatch(w.blocks[0].text, -1) {
		want = append(want, match[1])
		if _, known := fields[match[1]]; !known {
			w.t.Errorf("%s: no %s has %s", w.blocks[0], kind, match[1])
		}
	}
	w.paste(begins)
	tune := commandSays(w.t, w.bed, "read", "sys/mounts/"+bed.Mount+"/tune")
	tuned := strings.Fields(strings.Trim(printed(tune, "audit_non_hmac_"+kind+"_keys"), "[]"))
	if len(want) == 0 || !slices.Equal(tuned, want) {
		w.t.Errorf("the mount is tuned to show %q of a %s, want %q", tuned, kind, want)
	}
}

// printed returns a value from a table that the vault command has printed.
func printed(out, field string) string {
	match := regexp.MustCompile(`(?m)^` + field + ` +(.*?) *$`).FindStringSubmatch(out)
	if match == nil {
		return ""
	}
	return match[1]
}

// checkPrintedToken checks that a command printed a token for the MCP server.
func (u *upstream) checkPrintedToken(t *testing.T, out string) {
	t.Helper()
	u.bed.Secrecy.AddToken(printed(out, "access_token"))
	if authorization := printed(out, "authorization"); authorization != "Bearer "+printed(out, "access_token") {
		t.Fatal("the command printed no token, or a different one as authorization")
	}
	u.checkAuthorization(t, printed(out, "authorization"))
}
