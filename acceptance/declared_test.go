package acceptance

import (
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The declaration of docs/openbao.md, as pasted but for the sum, takes the place of the registration.
func TestDeclaredPlugin(t *testing.T) {
	t.Parallel()
	needs(t, bed.OpenBao)
	sum, err := bed.BuildPlugin(t.Context(), t.TempDir(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	var declaration string
	for _, block := range blocksOf(t, "docs/openbao.md") {
		if block.heading == "Declare the plugin" {
			declaration = block.text
		}
	}
	if !strings.Contains(declaration, strings.Repeat("0", len(sum))) {
		t.Fatalf("the page's declaration has no sum of zeros to replace:\n%s", declaration)
	}
	b := bed.New(t, bed.Options{Bare: true, Config: strings.Replace(declaration, strings.Repeat("0", len(sum)), sum, 1)})
	r := &release{t: t, bed: b, plugins: b.PluginDir()}
	r.registered(r.version(bed.PluginName))
	r.vault("secrets", "enable", "-path="+bed.Mount, bed.PluginName)
	u := newUpstream(t, b, "", 5*time.Minute)
	u.configure(t, nil)
	u.token(t, "token/"+u.name)
}
