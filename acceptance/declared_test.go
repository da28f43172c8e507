package acceptance

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A declaration as in docs/openbao.md, with another sum and version, registers the plugin.
func TestDeclaredPlugin(t *testing.T) {
	t.Parallel()
	needs(t, bed.OpenBao)
	p := buildDeclared(t)
	b := bed.New(t, bed.Options{Bare: true, Config: p.declaration(t, "command")})
	p.serves(t, b)
	needsItsV(t, b.Nodes[0])
}

// The declaration may name an image, made and pushed as for a release. OpenBao fetches the image on command and when
// it starts.
func TestDeclaredPluginFromAnImage(t *testing.T) {
	t.Parallel()
	needs(t, bed.OpenBao)
	p := buildDeclared(t)
	server := httptest.NewServer(registry.New())
	t.Cleanup(server.Close)
	const published = "ghcr.io/vault-plugin-mcp-oauth/" + bed.PluginName
	local := strings.TrimPrefix(server.URL, "http://") + "/" + bed.PluginName
	push := exec.CommandContext(t.Context(), "go", "run", ".", "-version", p.version, "-license", absolute(t, "../LICENSE"),
		"-push", local+":"+p.version, p.binary)
	push.Dir = "../tools/image"
	output(t, push)
	declaration := strings.Replace(p.declaration(t, "image"), published, local, 1)
	b := bed.New(t, bed.Options{Bare: true, Config: declaration})

	// The plugin's file has another name than the binary in every bed's plugin directory. OpenBao runs this file.
	info := commandSays(t, b, "plugin", "info", "-version="+p.version, "secret", bed.PluginName)
	if file := rowsOf(info)["Command"]["Value"]; !strings.Contains(info, p.sum) || file == bed.PluginName {
		t.Errorf("OpenBao does not run the binary of the image:\n%s", info)
	}
	p.serves(t, b)

	config, plugins := filepath.Join(t.TempDir(), "openbao.hcl"), t.TempDir()
	bed.OK(t, os.WriteFile(config, []byte(declaration), 0o600))
	output(t, b.Vault.CLI(t.Context(), "", "plugin", "init", "-config="+config, "-directory="+plugins))
	files, err := filepath.Glob(filepath.Join(plugins, "*"+bed.PluginName+"*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("bao plugin init left %q in the plugin directory: %v", files, err)
	}
	if got := (&release{t: t, plugins: plugins}).version(filepath.Base(files[0])); got != p.version {
		t.Errorf("bao plugin init fetched %s, want %s", got, p.version)
	}
}

// A declaredPlugin is a build of the plugin that a server's configuration declares.
type declaredPlugin struct{ binary, sum, version string }

func buildDeclared(t *testing.T) declaredPlugin {
	t.Helper()
	dir := t.TempDir()
	sum := bed.Must(bed.BuildPlugin(t.Context(), dir, t.Logf))(t)
	version := (&release{t: t, plugins: dir}).version(bed.PluginName)
	return declaredPlugin{filepath.Join(dir, bed.PluginName), sum, version}
}

// declaration returns the declaration in docs/openbao.md with this attribute, changed for the build.
func (p declaredPlugin) declaration(t *testing.T, attribute string) string {
	t.Helper()
	zeros := strings.Repeat("0", len(p.sum))
	for _, block := range blocksOf(t, "docs/openbao.md") {
		if block.heading != "Declare the plugin" || !strings.Contains(block.text, "\n  "+attribute+" ") {
			continue
		}
		built := strings.NewReplacer(zeros, p.sum, `"v0.2.0"`, `"`+p.version+`"`).Replace(block.text)
		if !strings.Contains(built, p.sum) || !strings.Contains(built, p.version) {
			t.Fatalf("the page's declaration has no sum of zeros or no v0.2.0 to replace:\n%s", block.text)
		}
		return built
	}
	t.Fatalf("the page has no declaration with %s", attribute)
	return ""
}

// serves checks that the server has registered the plugin from its configuration, and runs it.
func (p declaredPlugin) serves(t *testing.T, b *bed.Bed) {
	t.Helper()
	r := &release{t: t, bed: b, plugins: b.PluginDir()}
	r.registered(p.version)
	r.vault("secrets", "enable", "-path="+bed.Mount, bed.PluginName)
	u := newConfigured(t, b, "", 5*time.Minute)
	u.token(t, "token/"+u.name)
}

// needsItsV checks that a node with a version without its v never becomes active.
func needsItsV(t *testing.T, node *bed.Node) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	active := make(chan error, 1)
	go func() { active <- node.Reconfigure(ctx, `version   = "v`, `version   = "`) }()
	bed.Eventually(t, time.Minute, func() error {
		log, err := os.ReadFile(node.Log)
		if n := strings.Count(string(log), "plugin version mismatch: "+bed.PluginName); err == nil && n < 3 {
			err = fmt.Errorf("the node's log has %d mismatches of the version", n)
		}
		return err
	})
	stop()
	if err := <-active; err == nil {
		t.Error("the node is active")
	}
}
