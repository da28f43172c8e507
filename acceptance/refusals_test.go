package acceptance

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// If the authorization server refuses, the answer is a 400 with the server's error code, and nothing is stored.
func TestRefusalsAreReportedAsSuch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		credentials credentials
		fields      map[string]any
		code        string
	}{
		{"scope", nil, map[string]any{"scopes": "tools:list,admin"}, "invalid_scope"},
		{"resource", nil, map[string]any{"resource": "https://elsewhere.example/mcp"}, "invalid_target"},
		{"two resources", nil, map[string]any{"resource": "https://elsewhere.example/mcp,https://nowhere.example/mcp"}, "invalid_target"},
		{"secret", func(t *testing.T, u *upstream) map[string]any {
			wrong := newSecret()
			u.bed.Secrecy.AddClientSecret(u.client.ID, wrong)
			return map[string]any{"client_secret": wrong}
		}, nil, "invalid_client"},
		{"key", func(t *testing.T, u *upstream) map[string]any {
			operatorKey(p256PKCS8)(t, u)
			unknown := operatorKey(p256PKCS8)(t, u)
			operatorKey(p256PKCS8)(t, u) // replaces the unknown key at the server
			return unknown
		}, nil, "invalid_client"},
		{"audience of the assertion", operatorKey(p256PKCS8), map[string]any{"assertion_audience": "https://elsewhere.example"}, "invalid_client"},
		{"certificate", func(t *testing.T, u *upstream) map[string]any {
			return certificate(func(c *bed.Client, _ *bed.Certificate) { c.SANDNS = "somebody.example" })(t, u)
		}, nil, "invalid_client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, shared(t), "", 5*time.Minute)
			fields := map[string]any{"client_secret": u.client.Secret}
			if c.credentials != nil {
				fields = c.credentials(t, u)
			}
			settings := u.discovered(fields)
			for field, value := range c.fields {
				settings[field] = value
			}
			u.refuse(t, "config/"+u.name, settings, http.StatusBadRequest, c.code)
			for _, path := range []string{"config/" + u.name, "token/" + u.name} {
				wantStatus(t, u.root, path, http.StatusNotFound)
			}
			requests := u.requests(t)
			if len(requests) != 1 || requests[0].Error != c.code {
				t.Errorf("token requests %+v, want one that was answered with %s", requests, c.code)
			}
		})
	}
}

// A refused role has the same error, and does not affect the config's token.
func TestRefusedRoleChangesNothing(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	u.write(t, "config/"+u.name, u.discovered(map[string]any{"client_secret": u.client.Secret}))
	before := u.token(t, "token/"+u.name)
	role := "role/" + u.name + "/other"
	u.refuse(t, role, map[string]any{"scopes": "admin"}, http.StatusBadRequest, "invalid_scope")
	u.refuse(t, role, map[string]any{"resource": "https://elsewhere.example/mcp"}, http.StatusBadRequest, "invalid_target")
	wantStatus(t, u.root, role, http.StatusNotFound)
	u.wantToken(t, "token/"+u.name, before)
}

// If the authorization server drops a scope, the config write and the status have a warning, and the token shows the
// granted scopes.
func TestDroppedScopeIsReported(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	answer := u.write(t, "config/"+u.name, u.discovered(map[string]any{
		"client_secret": u.client.Secret,
		"scopes":        "tools:list,no-such-scope",
	}))
	if answer == nil || !strings.Contains(strings.Join(answer.Warnings, "\n"), "no-such-scope") {
		t.Errorf("the write's answer %+v does not warn of the scope", answer)
	}
	if got := u.token(t, "token/"+u.name).Scope; got != "tools:list" {
		t.Errorf("scope %q, want the granted one", got)
	}
	bed.WantText(t, "the status", text(u.read(t, "status/"+u.name)), "no-such-scope")
}

// If the authorization server's CA is unknown, the server gets no request.
func TestUnknownAuthorityIsRefused(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	fields := certificate(byName)(t, u)
	delete(fields, "ca_cert")
	u.refuse(t, "config/"+u.name, u.discovered(fields), http.StatusBadGateway, "certificate")
	u.wantRequests(t, 0)
}
