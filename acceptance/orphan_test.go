package acceptance

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A plugin whose Vault was killed calls no authorization server, and ends by itself.
func TestOrphanedPluginCallsNoServerAndEnds(t *testing.T) {
	t.Parallel()
	const names = 12
	b := bed.New(t, bed.Options{})
	node := b.Nodes[0]
	var upstreams []*upstream
	for i := range names {
		// Each token is refreshed every 6 s, so some token is always due.
		u := newConfigured(t, b, fmt.Sprintf("-%d", i), 12*time.Second)
		u.token(t, "token/"+u.name)
		upstreams = append(upstreams, u)
	}
	count := func(since time.Time) (n int) {
		for _, u := range upstreams {
			for _, r := range u.requests(t) {
				if r.Time.After(since) {
					n++
				}
			}
		}
		return n
	}
	configured := time.Now()
	bed.Until(t, 30*time.Second, "two refreshes of each token", func() bool { return count(configured) >= 2*names })
	pid := pluginPID(t, node)

	node.Kill()
	killed := time.Now()
	if !bed.Running(pid) {
		t.Error("the plugin ended with Vault, so this test shows nothing")
	}
	bed.Until(t, 10*time.Second, "the plugin ends", func() bool { return !bed.Running(pid) })
	ended := time.Since(killed)
	// Each token would have been refreshed within this time.
	select {
	case <-time.After(time.Until(killed.Add(7 * time.Second))):
	case <-t.Context().Done():
	}
	if n := count(killed.Add(time.Second)); n > 0 {
		t.Errorf("%d token requests more than a second after Vault was killed, want none", n)
	}
	t.Logf("the plugin ended %s after Vault; %d token requests since the kill", round(ended), count(killed))
}

// In a container, Vault is process 1. Elsewhere process 1 adopts orphans.
func TestPluginLivesUnderProcess1(t *testing.T) {
	t.Parallel()
	b, err := bed.Start(t.Context(), bed.Options{Process1: true})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this system does not let tests make process namespaces; cmd/vault-plugin-mcp-oauth tests the rule itself:", err)
	}
	bed.OK(t, err)
	t.Cleanup(func() {
		if _, err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	b.ShowLogs(t)
	u := newConfigured(t, b, "", 12*time.Second)
	first := u.token(t, "token/"+u.name)
	pid := pluginPID(t, b.Nodes[0])
	// A refresh is due after 6 s, and the plugin checks its parent every second.
	u.awaitAnother(t, "token/"+u.name, first, 30*time.Second)
	if now := pluginPID(t, b.Nodes[0]); now != pid {
		t.Errorf("the plugin's process was %d and is %d", pid, now)
	}
}

// Vault's tick, once a minute, restarts a dead plugin even without readers. The plugin then refreshes due tokens.
func TestIdleMountIsRevivedByVault(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{})
	// The refresh is due after 40 s, before or after the plugin's restart.
	u := newConfigured(t, b, "", 70*time.Second)
	killed := bed.Must(b.Nodes[0].KillPlugin())(t)
	bed.Until(t, 120*time.Second, "a refresh", func() bool { return len(u.requests(t)) == 2 })
	if pluginPID(t, b.Nodes[0]) == killed {
		t.Error("the plugin's killed process is running")
	}
}
