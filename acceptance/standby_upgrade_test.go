package acceptance

import (
	"context"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// An upgrade by the commands of docs/openbao.md reaches every node, and keeps the tokens. A reload without
// -scope=global reaches only one node.
func TestUpgradeReachesEveryNode(t *testing.T) {
	t.Parallel()
	needs(t, bed.OpenBao)
	b := bed.New(t, bed.Options{Bare: true, Nodes: 3})
	r := &release{t: t, bed: b, plugins: b.PluginDir()}
	current := r.version(bed.PluginName)
	const next, nextFile = "v0.3.0", bed.PluginName + "-v0.3.0"
	r.vault("plugin", "register", "-sha256="+b.PluginSHA256, "-version="+current, "secret", bed.PluginName)
	r.vault("secrets", "enable", "-path="+bed.Mount, "-plugin-version="+current, bed.PluginName)
	c := newCluster(t, b)
	u := c.upstream(t, time.Hour)
	u.configure(t, nil)
	token := u.token(t, "token/"+u.name)
	c.wantVersion(t, current, b.Nodes...)
	sum := r.build(next, nextFile)
	r.vault("plugin", "register", "-sha256="+sum, "-command="+nextFile, "-version="+next, "secret", bed.PluginName)
	w := u.walk(t, "docs/openbao.md")
	for _, block := range blocksOf(t, "docs/openbao.md") {
		if block.heading == "Upgrade" {
			bed.Must(w.run(block, block.text))(t)
		}
	}
	c.wantVersion(t, next, b.Nodes...)
	for _, node := range b.Nodes {
		got := bed.Must(b.ReadToken(t.Context(), c.clients[node], "token/"+u.name))(t)
		if got.TokenID != token.TokenID {
			t.Errorf("%s has another token after the upgrade", node.ID)
		}
	}
	u.wantRequests(t, 1)

	r.vault("secrets", "tune", "-plugin-version="+current, bed.Mount)
	r.vault(b.Vault.Product.ReloadPlugin()...)
	c.wantVersion(t, current, c.active)
	// The standbys have received a later write, and still run their version.
	u.write(t, "role/"+u.name+"/after", map[string]any{"scopes": "tools:list"})
	u.token(t, "token/"+u.name+"/after")
	for _, node := range c.standbys {
		c.waitForOwnAnswer(t, node, "token/"+u.name+"/after")
	}
	c.wantVersion(t, next, c.standbys...)
}

// wantVersion waits until these nodes run a version of the plugin.
func (c *cluster) wantVersion(t *testing.T, version string, nodes ...*bed.Node) {
	t.Helper()
	for _, node := range nodes {
		bed.Eventually(t, 30*time.Second, func() error {
			running, err := c.version(t.Context(), node)
			if err == nil && running != version {
				err = fmt.Errorf("%s runs %s, want %s", node.ID, running, version)
			}
			return err
		})
	}
}

var buildVersion = regexp.MustCompile(`^mcp_oauth_build_info\{.*\bversion="([^"]+)"`)

// version returns the plugin version of the node.
func (c *cluster) version(ctx context.Context, node *bed.Node) (string, error) {
	series, err := c.tryMetrics(ctx, node)
	if err != nil {
		return "", err
	}
	for name := range series {
		if match := buildVersion.FindStringSubmatch(name); match != nil {
			return match[1], nil
		}
	}
	return "", fmt.Errorf("the metrics of %s name no version", node.ID)
}
