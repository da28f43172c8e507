//go:build servers

package acceptance

import "testing"

func init() {
	claimsOf["Authlib"] = []serverClaim{{"dropped scopes", checkDroppedScopes}}
}

// Authlib drops scopes of other clients. If it drops all, its answer has no scope, but the token does.
func checkDroppedScopes(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newClient(t, s.secretMethods()[0], nil)
	for scopes, warning := range map[string]string{
		"files:delete":            `did not grant "files:delete"; it granted ""`,
		"files:read files:delete": `did not grant "files:delete"; it granted "files:read"`,
	} {
		c.wantWarning(t, c.fields(map[string]any{"scopes": scopes}), warning)
	}
}
