package acceptance

import (
	"net/http"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Two brokers with AppRoles and policies of their own: each reads its own server's token and
// nothing else.
func TestBrokersReadTheirOwnTokensOnly(t *testing.T) {
	t.Parallel()
	b := shared(t)
	one, two := newConfigured(t, b, "-one", 5*time.Minute), newConfigured(t, b, "-two", 5*time.Minute)
	one.write(t, "role/"+one.name+"/reader", map[string]any{"scopes": "tools:list"})

	for _, c := range []struct{ own, other *upstream }{{one, two}, {two, one}} {
		client := c.own.broker(t).Client
		token := bed.Must(b.ReadToken(t.Context(), client, "token/"+c.own.name))(t)
		if err := c.own.mcp.Check(token.AccessToken); err != nil {
			t.Errorf("%s: own server: %v", c.own.name, err)
		}
		if err := c.other.mcp.Check(token.AccessToken); err == nil {
			t.Errorf("%s: its token is good for %s too", c.own.name, c.other.name)
		}
		for _, path := range []string{
			"token/" + c.other.name,
			"token/" + one.name + "/reader",
			"config/" + c.own.name,
			"config/" + c.other.name,
			"role/" + one.name + "/reader",
			"status/" + c.own.name,
		} {
			wantStatus(t, client, path, http.StatusForbidden)
		}
		for _, path := range []string{"config/", "role/" + one.name + "/", "status/"} {
			if got := listStatus(t.Context(), client, path); got != http.StatusForbidden {
				t.Errorf("%s: list %s: status %d, want 403", c.own.name, path, got)
			}
		}
		secret, err := client.Logical().WriteWithContext(t.Context(), bed.Mount+"/config/"+c.own.name, c.own.settings(nil))
		if got := status(secret, err); got != http.StatusForbidden {
			t.Errorf("%s: write its config: status %d, want 403", c.own.name, got)
		}
	}
}

// One templated policy serves all brokers: each reads the role that is named by its entity id.
func TestTemplatedPolicyByEntityID(t *testing.T) {
	t.Parallel()
	b := shared(t)
	u := newConfigured(t, b, "", 5*time.Minute)
	const rules = `path "mcp-oauth/token/+/{{identity.entity.id}}" { capabilities = ["read"] }`
	lister := newIdentity(t, b, u.name+"-lister", rules)
	caller := newIdentity(t, b, u.name+"-caller", rules)
	scopes := map[*bed.Identity]string{lister: "tools:list", caller: "tools:call"}
	for id, scope := range scopes {
		u.write(t, "role/"+u.name+"/"+id.EntityID, map[string]any{"scopes": scope})
	}

	for id, scope := range scopes {
		token := bed.Must(b.ReadToken(t.Context(), id.Client, "token/"+u.name+"/"+id.EntityID))(t)
		if err := u.mcp.Check(token.AccessToken); err != nil {
			t.Error(err)
		}
		if token.Scope != scope {
			t.Errorf("%s has a token with scope %q, want %q", id.Name, token.Scope, scope)
		}
		for other := range scopes {
			if other == id {
				continue
			}
			path := "token/" + u.name + "/" + other.EntityID
			wantStatus(t, id.Client, path, http.StatusForbidden)
		}
		wantStatus(t, id.Client, "token/"+u.name, http.StatusForbidden)
	}
}
