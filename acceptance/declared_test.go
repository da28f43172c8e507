package acceptance

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The declaration of docs/openbao.md, as pasted but for the sum and the version, takes the place of the registration.
func TestDeclaredPlugin(t *testing.T) {
	t.Parallel()
	needs(t, bed.OpenBao)
	dir := t.TempDir()
	sum, err := bed.BuildPlugin(t.Context(), dir, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	version := (&release{t: t, plugins: dir}).version(bed.PluginName)
	var declaration string
	for _, block := range blocksOf(t, "docs/openbao.md") {
		if block.heading == "Declare the plugin" {
			declaration = block.text
		}
	}
	if !strings.Contains(declaration, strings.Repeat("0", len(sum))) {
		t.Fatalf("the page's declaration has no sum of zeros to replace:\n%s", declaration)
	}
	built := strings.NewReplacer(strings.Repeat("0", len(sum)), sum, `"v0.2.0"`, `"`+version+`"`)
	b := bed.New(t, bed.Options{Bare: true, Config: built.Replace(declaration)})
	r := &release{t: t, bed: b, plugins: b.PluginDir()}
	r.registered(version)
	r.vault("secrets", "enable", "-path="+bed.Mount, bed.PluginName)
	u := newUpstream(t, b, "", 5*time.Minute)
	u.configure(t, nil)
	u.token(t, "token/"+u.name)

	// A version without its v keeps the node from becoming active, however often it tries.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	active := make(chan error, 1)
	go func() { active <- b.Nodes[0].Reconfigure(ctx, `version   = "v`, `version   = "`) }()
	bed.Eventually(t, time.Minute, func() error {
		log, err := os.ReadFile(b.Nodes[0].Log)
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
