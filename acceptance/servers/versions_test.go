package servers

import (
	"os"
	"strings"
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

// The versions that docs/providers.md says were run are those that are pinned.
func TestVersionsAreThosePinned(t *testing.T) {
	for pin, content := range map[string]string{
		"<spring-security.version>" + spring.Version + "<": source(t, "acceptance", "servers", "spring", "pom.xml"),
		"github.com/ory/hydra/v2 v" + hydra.Version + " ":  source(t, "tools", "hydra", "go.mod"),
		"authlib==" + authlib.Version + " ":                source(t, "acceptance", "servers", "authlib", "requirements.txt"),
	} {
		if !strings.Contains(content, pin) {
			t.Errorf("%q is not pinned", pin)
		}
	}
}

// What docs/providers.md shows of a Spring application is what was run.
func TestPageShowsSpringsCustomizer(t *testing.T) {
	_, page, _ := strings.Cut(source(t, "docs", "providers.md"), "```java\n")
	shown, _, found := strings.Cut(page, "```")
	// The class indents it.
	method := "    " + strings.ReplaceAll(strings.TrimSpace(shown), "\n", "\n    ")
	class := source(t, "acceptance", "servers", "spring", "src", "main", "java", "servers", "SpringServer.java")
	if !found || !strings.Contains(class, method) {
		t.Errorf("SpringServer.java does not have what the page shows:\n%s", shown)
	}
}
