package acceptance

import (
	"reflect"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A restart of Vault keeps configs, roles and tokens, and causes no token request.
func TestRestartKeepsConfigsAndTokens(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{})
	u := newConfigured(t, b, "", 5*time.Minute)
	u.write(t, "role/"+u.name+"/reader", map[string]any{"scopes": "tools:list"})
	id := u.broker(t)
	paths := []string{"config/" + u.name, "role/" + u.name + "/reader"}
	entries, tokens := map[string]map[string]any{}, map[string]*bed.Token{}
	for _, path := range paths {
		entries[path] = u.read(t, path)
	}
	for _, path := range []string{"token/" + u.name, "token/" + u.name + "/reader"} {
		tokens[path] = u.token(t, path)
	}
	requests := len(u.requests(t))

	for range 2 {
		bed.OK(t, b.Nodes[0].Stop())
		bed.OK(t, b.Nodes[0].Start(t.Context()))
		for path, want := range entries {
			if got := u.read(t, path); !reflect.DeepEqual(got, want) {
				t.Errorf("%s was %v and is %v after the restart", path, want, got)
			}
		}
		for path, want := range tokens {
			got := u.token(t, path)
			if got.TokenID != want.TokenID || !got.ExpiresAt.Equal(want.ExpiresAt) || !got.LastVaultRotation.Equal(want.LastVaultRotation) {
				t.Errorf("%s: token %s expiring %s became %s expiring %s", path, want.TokenID, want.ExpiresAt, got.TokenID, got.ExpiresAt)
			}
		}
	}
	// A broker's login survives the restart.
	if _, err := b.ReadToken(t.Context(), id.Client, "token/"+u.name); err != nil {
		t.Error(err)
	}
	u.wantRequests(t, requests)
}
