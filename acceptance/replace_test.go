package acceptance

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// This follows docs/releases.md for a new build of the same version. After a reload or restart, the mount does not
// answer until the operator registers the new sum and reloads the plugin.
func TestReplacingABuildOfTheSameVersion(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{Bare: true})
	r := &release{t: t, bed: b, plugins: b.PluginDir()}
	version := r.version(bed.PluginName)
	register := func(sum string) {
		t.Helper()
		r.vault("plugin", "register", "-sha256="+sum, "-version="+version, "secret", bed.PluginName)
	}
	register(b.PluginSHA256)
	r.vault("secrets", "enable", "-path="+bed.Mount, bed.PluginName)
	u := newConfigured(t, b, "", 5*time.Minute)
	token := u.token(t, "token/"+u.name)

	answers := func(when string, want int) {
		t.Helper()
		wantStatus(t, u.root, "token/"+u.name, want)
		if want != http.StatusOK {
			return
		}
		u.wantToken(t, "token/"+u.name, token)
		u.write(t, "role/"+u.name+"/written", map[string]any{"scopes": "tools:list"})
	}
	// replace replaces the binary by a build with other bytes, and returns its sum.
	replace := func() string {
		t.Helper()
		r.build(version, "replacement")
		file := filepath.Join(r.plugins, "replacement")
		content := bed.Must(os.ReadFile(file))(t)
		content = append(content, []byte(time.Now().String())...)
		bed.OK(t, os.WriteFile(file, content, 0o700))
		bed.OK(t, os.Rename(file, filepath.Join(r.plugins, bed.PluginName)))
		sum := sha256.Sum256(content)
		return hex.EncodeToString(sum[:])
	}
	reload := b.Vault.Product.ReloadPlugin()

	sum := replace()
	answers("before a reload", http.StatusOK) // the old process is still running
	r.refused("checksums did not match", reload...)
	broken := http.StatusInternalServerError
	if b.Vault.Product == bed.OpenBao {
		broken = http.StatusNotFound
	}
	answers("after the reload without a registration", broken)
	register(sum)
	r.vault(reload...)
	answers("after registration and reload", http.StatusOK)

	sum = replace()
	bed.OK(t, b.Nodes[0].Stop())
	bed.OK(t, b.Nodes[0].Start(t.Context()))
	answers("after a restart", http.StatusNotFound)
	register(sum)
	r.vault(reload...)
	answers("after registration and reload", http.StatusOK)
}
