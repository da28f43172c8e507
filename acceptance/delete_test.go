package acceptance

import (
	"net/http"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Deleting a config ends its token and its roles at once. No token is served or refreshed afterwards, and a new
// config of the same name has none of the old roles.
func TestDeletingConfigEndsTokensAndRoles(t *testing.T) {
	t.Parallel()
	const lifetime = 10 * time.Second // refreshed every 5 s
	u := newConfigured(t, shared(t), "", lifetime)
	role := "role/" + u.name + "/reader"
	u.write(t, role, map[string]any{"scopes": "tools:list"})
	paths := []string{"config/" + u.name, role, "token/" + u.name, "token/" + u.name + "/reader", "status/" + u.name}
	for _, path := range paths {
		if got := readStatus(t.Context(), u.root, path); got != http.StatusOK {
			t.Fatalf("read %s: status %d, want 200", path, got)
		}
	}

	bed.Must(u.root.Logical().DeleteWithContext(t.Context(), bed.Mount+"/config/"+u.name))(t)
	deleted := time.Now()
	// Both tokens would be refreshed within this time.
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for time.Since(deleted) < lifetime {
		for _, path := range paths {
			if got := readStatus(t.Context(), u.root, path); got != http.StatusNotFound {
				t.Fatalf("read %s %s after the delete: status %d, want 404", path, time.Since(deleted), got)
			}
		}
		<-tick.C
	}
	for _, r := range u.requests(t) {
		// A request under way at the delete may still arrive.
		if r.Time.After(deleted.Add(time.Second)) {
			t.Errorf("a token was requested %s after its config was deleted", r.Time.Sub(deleted))
		}
	}

	u.configure(t, nil)
	u.token(t, "token/"+u.name)
	for _, path := range []string{role, "token/" + u.name + "/reader"} {
		if got := readStatus(t.Context(), u.root, path); got != http.StatusNotFound {
			t.Errorf("read %s of the new config: status %d, want 404", path, got)
		}
	}
}
