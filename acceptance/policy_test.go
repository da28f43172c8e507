package acceptance

import (
	"net/http"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Two brokers have a policy each. Each reads its own server's token, which only that server accepts.
// TestPoliciesOfTheSecurityPage tries the other paths.
func TestBrokersReadTheirOwnTokensOnly(t *testing.T) {
	t.Parallel()
	b := shared(t)
	one, two := newConfigured(t, b, "-one", 5*time.Minute), newConfigured(t, b, "-two", 5*time.Minute)
	for _, c := range []struct{ own, other *upstream }{{one, two}, {two, one}} {
		client := c.own.broker(t).Client
		token := bed.Must(b.ReadToken(t.Context(), client, "token/"+c.own.name))(t)
		bed.OK(t, c.own.mcp.Check(token.AccessToken))
		if err := c.other.mcp.Check(token.AccessToken); err == nil {
			t.Errorf("%s: %s accepts its token too", c.own.name, c.other.name)
		}
		wantStatus(t, client, "token/"+c.other.name, http.StatusForbidden)
	}
}

// One templated policy serves all brokers: each reads the role with its entity id as name.
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
		bed.OK(t, u.mcp.Check(token.AccessToken))
		if token.Scope != scope {
			t.Errorf("%s has a token with scope %q, want %q", id.Name, token.Scope, scope)
		}
		for other := range scopes {
			if other != id {
				wantStatus(t, id.Client, "token/"+u.name+"/"+other.EntityID, http.StatusForbidden)
			}
		}
		wantStatus(t, id.Client, "token/"+u.name, http.StatusForbidden)
	}
}
