package acceptance

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The commands of docs/releases.md upgrade a mount to the next version and back. Each reload keeps the tokens without
// a token request, and each version reads the other's storage.
func TestUpgradeAndRollbackKeepTokens(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{Bare: true})
	r := &release{t: t, bed: b, plugins: filepath.Join(b.Dir, "plugins")}
	current := r.version(bed.PluginName)
	const next, nextFile = "v999.0.0", bed.PluginName + "-v999.0.0"
	nextSHA := r.build(next, nextFile)

	r.refused("did not match requested version", "plugin", "register", "-sha256="+nextSHA, "-command="+nextFile,
		"-version="+current, "secret", bed.PluginName)
	r.vault("plugin", "register", "-sha256="+b.PluginSHA256, "-version="+current, "secret", bed.PluginName)
	r.vault("secrets", "enable", "-path="+bed.Mount, "-plugin-version="+current, bed.PluginName)
	r.runs(current, current)
	u := newConfigured(t, b, "", 5*time.Minute)
	token := u.token(t, "token/"+u.name)
	requests := len(u.requests(t))

	// Vault registers a wrong sum, and notices it when it runs the binary. Vault's mount keeps working; OpenBao's has
	// no plugin until a reload succeeds.
	r.vault("plugin", "register", "-sha256="+b.PluginSHA256, "-command="+nextFile, "-version="+next, "secret", bed.PluginName)
	r.vault("secrets", "tune", "-plugin-version="+next, bed.Mount)
	reload := b.Vault.Product.ReloadPlugin()
	r.refused("checksums did not match", reload...)
	r.runs(next, current)
	if b.Vault.Product == bed.OpenBao {
		wantStatus(t, u.root, "token/"+u.name, http.StatusNotFound)
	} else {
		u.token(t, "token/"+u.name)
	}

	r.vault("plugin", "register", "-sha256="+nextSHA, "-command="+nextFile, "-version="+next, "secret", bed.PluginName)
	r.registered(current, next)
	for _, step := range []struct {
		from, to, role string
		reload         []string
	}{
		{from: current, to: next, role: "of-the-next", reload: reload},
		{from: next, to: current, role: "of-the-current", reload: []string{"write", "sys/plugins/reload/backend", "mounts=" + bed.Mount}},
	} {
		r.vault("secrets", "tune", "-plugin-version="+step.to, bed.Mount)
		r.runs(step.to, step.from)
		r.vault(step.reload...)
		u.wantToken(t, "token/"+u.name, token)
		r.runs(step.to, step.to)
		u.wantRequests(t, requests)
		// The mount works: a role gets a token. The next version finds both.
		u.write(t, "role/"+u.name+"/"+step.role, map[string]any{"scopes": "tools:list"})
		u.token(t, "token/"+u.name+"/"+step.role)
		requests = len(u.requests(t))
	}
	u.token(t, "token/"+u.name+"/of-the-next")
	u.wantRequests(t, requests)

	if b.Vault.Product.PinsVersions() { // for all mounts
		const pin = "sys/plugins/pins/secret/" + bed.PluginName
		r.vault("write", pin, "version="+next)
		r.refused("a pinned version "+next+" is in effect", "secrets", "tune", "-plugin-version="+current, bed.Mount)
		r.vault(reload...)
		r.runs(current, next)
		r.vault("delete", pin)
		r.vault(reload...)
		r.runs(current, current)
	}

	r.vault("plugin", "deregister", "-version="+next, "secret", bed.PluginName)
	r.registered(current)
}

// A release is several versions of the plugin, and the operator who installs them.
type release struct {
	t       *testing.T
	bed     *bed.Bed
	plugins string // Vault's plugin directory
}

// version returns the version that a binary reports.
func (r *release) version(file string) string {
	r.t.Helper()
	out := bed.Must(exec.CommandContext(r.t.Context(), filepath.Join(r.plugins, file), "-version").Output())(r.t)
	return strings.TrimSpace(string(out))
}

// build builds the plugin as another version, and returns the binary's SHA-256.
func (r *release) build(version, file string) string {
	r.t.Helper()
	binary := filepath.Join(r.plugins, file)
	cmd := exec.CommandContext(r.t.Context(), "go", "build", "-trimpath", "-o", binary,
		"-ldflags=-X github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version.release="+version, "./cmd/"+bed.PluginName)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	output(r.t, cmd)
	if got := r.version(file); got != version {
		r.t.Fatalf("the plugin was built as %s, want %s", got, version)
	}
	content := bed.Must(os.ReadFile(binary))(r.t)
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// vault runs the vault command as the operator, and returns its output.
func (r *release) vault(args ...string) string {
	r.t.Helper()
	return commandSays(r.t, r.bed, args...)
}

// refused runs the vault command, which must fail with the text.
func (r *release) refused(text string, args ...string) {
	r.t.Helper()
	out, err := r.bed.Vault.CLI(r.t.Context(), r.bed.Vault.RootToken, args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), text) {
		r.t.Errorf("vault %s: %v, want an error with %q:\n%s", strings.Join(args, " "), err, text, out)
	}
}

// runs checks the configured and the running version of the mount.
func (r *release) runs(version, running string) {
	r.t.Helper()
	var mounts map[string]struct {
		PluginVersion        string `json:"plugin_version"`
		RunningPluginVersion string `json:"running_plugin_version"`
	}
	bed.OK(r.t, json.Unmarshal([]byte(r.vault("secrets", "list", "-detailed", "-format=json")), &mounts))
	mount := mounts[bed.Mount+"/"]
	if mount.PluginVersion != version || mount.RunningPluginVersion != running {
		r.t.Errorf("the mount is set to %q and runs %q, want %q and %q",
			mount.PluginVersion, mount.RunningPluginVersion, version, running)
	}
}

// registered checks the plugin's versions in Vault's catalog.
func (r *release) registered(want ...string) {
	r.t.Helper()
	var got []string
	for line := range strings.Lines(r.vault("plugin", "list", "secret")) {
		if name, version, _ := strings.Cut(strings.TrimSpace(line), " "); name == bed.PluginName {
			got = append(got, strings.TrimSpace(version))
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("vault plugin list shows the versions %q, want %q", got, want)
	}
}
