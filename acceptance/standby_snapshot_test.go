package acceptance

import (
	"bytes"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// After a restored snapshot, the active node returns the snapshot's token. Standbys return their own token until the
// plugin is reloaded on all nodes.
func TestStandbysKeepTheirTokensThroughARestore(t *testing.T) {
	t.Parallel()
	c, u := ownCluster(t, time.Hour, "")
	path := "token/" + u.name
	old := c.atStandbys(t, u, path)
	var snapshot bytes.Buffer
	bed.OK(t, u.root.Sys().RaftSnapshotWithContext(t.Context(), &snapshot))
	waitForAge(t, time.Now(), cooldown)
	u.write(t, "refresh/"+u.name, map[string]any{"token_id": old.TokenID})
	later := c.atStandbys(t, u, path)
	for _, node := range c.standbys {
		c.waitForOwnAnswer(t, node, path)
	}
	bed.OK(t, u.root.Sys().RaftSnapshotRestoreWithContext(t.Context(), &snapshot, false))
	c.awaitToken(t, c.active, path, old)
	u.write(t, "role/"+u.name+"/after", map[string]any{"scopes": "tools:list"})
	u.token(t, "token/"+u.name+"/after")
	for _, node := range c.standbys {
		c.waitForOwnAnswer(t, node, "token/"+u.name+"/after") // the standby receives changes made after the restore
		c.awaitToken(t, node, path, later)
	}
	commandSays(t, c.bed, "plugin", "reload", "-scope=global", "-plugin="+bed.PluginName)
	for _, node := range c.bed.Nodes {
		c.awaitToken(t, node, path, old)
	}
}
