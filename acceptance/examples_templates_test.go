package acceptance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"go.yaml.in/yaml/v3"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A template writes the token as one value of its file, whatever characters it contains. Otherwise one hostile
// authorization server could change every server in the file. The value comes from KV, because the plugin refuses
// such a token. It omits U+007F and U+0085, which JSON does not escape and a YAML string cannot contain.
func TestExampleTemplatesQuoteTheirValues(t *testing.T) {
	t.Parallel()
	b := shared(t)
	root := bed.Must(b.Vault.Root())(t)
	const odd = "Bearer a\"b'c\\d #e: <f>&{{ g }} \u00e9\u2028\u0001\t\n  - name: other\n    url: https://evil.example.com/mcp"
	const mount = "odd-tokens"
	kv := &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}
	bed.OK(t, root.Sys().MountWithContext(t.Context(), mount, kv))
	bed.Must(root.Logical().WriteWithContext(t.Context(), mount+"/token/files", map[string]any{"authorization": odd}))(t)
	place := strings.NewReplacer("mcp-oauth/token/files", mount+"/token/files").Replace
	for file, c := range map[string]struct {
		rendered string
		value    []any // path of the value
		lists    []any // path of a list with one element
	}{
		"kuadrant/config.yaml.ctmpl": {"config.yaml", []any{"servers", 0, "credential"}, []any{"servers"}},
		"envoy/files.yaml.ctmpl": {
			"secrets/files.yaml", []any{"resources", 0, "generic_secret", "secret", "inline_string"}, []any{"resources"},
		},
	} {
		name := filepath.Base(file)
		id := newIdentity(t, b, mount, place(example(t, "policy.hcl")))
		dir := runExample(t, b, id, "agent", "agent.hcl", "", map[string]string{
			"agent.hcl": example(t, filepath.Dir(file)+"/agent.hcl"), name: place(example(t, file)),
		})
		var rendered []byte
		bed.Eventually(t, time.Minute, func() (err error) {
			rendered, err = os.ReadFile(filepath.Join(dir, c.rendered))
			return err
		})
		values := manifest{}
		if err := yaml.Unmarshal(rendered, &values); err != nil {
			t.Fatalf("%s: the rendered file is not YAML: %v", file, err)
		}
		if list, _ := values.at(c.lists...).([]any); len(list) != 1 || values.at(c.value...) != odd {
			t.Errorf("%s: %v, want one with the unchanged value", file, list)
		}
	}
}
