package servers

import (
	"os"
	"strings"
	"testing"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// What docs/providers.md shows of a Spring application is what was run.
func TestPageShowsSpringsCustomizer(t *testing.T) {
	read := func(elem ...string) string {
		path, err := bed.SourcePath(elem...)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	_, page, _ := strings.Cut(read("docs", "providers.md"), "```java\n")
	shown, _, found := strings.Cut(page, "```")
	// The class indents it.
	method := "    " + strings.ReplaceAll(strings.TrimSpace(shown), "\n", "\n    ")
	source := read("acceptance", "servers", "spring", "src", "main", "java", "servers", "SpringServer.java")
	if !found || !strings.Contains(source, method) {
		t.Errorf("SpringServer.java does not have what the page shows:\n%s", shown)
	}
}
