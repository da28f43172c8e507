package servers

import (
	"os"
	"testing"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// source returns a file of the checkout.
func source(t *testing.T, elem ...string) string {
	t.Helper()
	path := bed.Must(bed.SourcePath(elem...))(t)
	content := bed.Must(os.ReadFile(path))(t)
	return string(content)
}

// docs/providers.md names the pinned versions.
func TestVersionsAreThosePinned(t *testing.T) {
	for pin, content := range map[string]string{
		"<spring-security.version>" + spring.Version + "<": source(t, "acceptance", "servers", "spring", "pom.xml"),
		"github.com/ory/hydra/v2 v" + hydra.Version + " ":  source(t, "tools", "hydra", "go.mod"),
		"authlib==" + authlib.Version + " ":                source(t, "acceptance", "servers", "authlib", "requirements.txt"),
	} {
		bed.WantText(t, "the file of pins", content, pin)
	}
}
