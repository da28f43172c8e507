//go:build servers

package acceptance

import (
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/servers"
)

// The server restarts and changes its signing key, and the plugin's signing key rotates, while 30 s tokens are read
// all the time. Every token read is valid, and reads fail only while the server is down.
//
// A server may keep a fetched key set for five minutes, so the rotation begins before the other claims and runs
// beside them.
func checkLife(t *testing.T, s *served) {
	const activateAfter = 5 * time.Minute
	byMethod := map[string]*clientOf{}
	if slices.Contains(s.Methods, "private_key_jwt") {
		c := s.newClient(t, "private_key_jwt", func(c *servers.Client) { c.Algorithm = "RS256" })
		c.configure(t, map[string]any{"key_type": "rsa-2048", "publish_jwks": true})
		c.write(t, "keys/"+c.name+"/rotate", map[string]any{"activate_after": activateAfter.String()})
		byMethod["private_key_jwt"] = c
	}
	if _, federates := s.Server.(*servers.Keycloak); federates {
		c := s.newFederated(t)
		c.obtain(t)
		c.write(t, "keys/"+c.name+"/rotate", map[string]any{"activate_after": activateAfter.String()})
		byMethod["identity"] = c
	}
	rotated := time.Now()
	t.Parallel()
	secret := s.newClient(t, s.secretMethods()[0], func(c *servers.Client) { c.ID += "-secret" })
	secret.name += "-secret"
	secret.configure(t, nil)
	byMethod["secret"] = secret
	readers := map[string]*readers{}
	for method, c := range byMethod {
		readers[method] = startReaders(t, c.upstream, "token/"+c.name)
	}

	forgotten := s.newClient(t, s.secretMethods()[0], func(c *servers.Client) { c.ID += "-forgotten" })
	forgotten.name += "-forgotten"
	held := forgotten.configure(t, nil)

	bed.OK(t, s.turns.Acquire(t.Context(), allTurns))
	down := time.Now()
	err := s.Restart(t.Context())
	up := time.Now()
	s.turns.Release(allTurns)
	bed.OK(t, err)
	forgotten.replaceRefused(t, held)
	for method, c := range byMethod {
		var held *bed.Token
		bed.Eventually(t, refreshLimit, func() (err error) {
			held, err = c.bed.ReadToken(t.Context(), c.root, "token/"+c.name)
			return err
		})
		c.awaitRefresh(t, held)
		readers[method].forgive(t, down, up)
	}
	kid := signingKey(t, secret.token(t, "token/"+secret.name))
	bed.OK(t, s.NewSigningKey(t.Context()))
	bed.Until(t, refreshLimit, "tokens are signed with another key", func() bool {
		return signingKey(t, secret.token(t, "token/"+secret.name)) != kid
	})

	for _, method := range []string{"private_key_jwt", "identity"} {
		c := byMethod[method]
		if c == nil {
			continue
		}
		awaitTime(t, rotated.Add(activateAfter+time.Second))
		c.awaitRefresh(t, c.token(t, "token/"+c.name))
		if keys := c.read(t, "keys/"+c.name); keys["next_key_id"] != nil {
			t.Errorf("the new key is not in use: %v", keys["next_key_id"])
		}
	}
	for _, r := range readers {
		r.check(t)
	}
}

// replaceRefused makes an MCP server fetch the keys again. If the authorization server has lost the key of the held
// token, the broker reports the token as refused and gets a valid one.
func (c *clientOf) replaceRefused(t *testing.T, held *bed.Token) {
	t.Helper()
	c.mcp.Trust(c.server.Issuer(c.as.Method))
	refused := c.mcp.Check(held.AccessToken)
	t.Logf("the token from before the restart: %v", refused)
	if refused == nil {
		return
	}
	// A token younger than 10 s is not replaced. A failure while the server was down leaves a backoff window.
	bed.Eventually(t, refreshLimit, func() error {
		reported := map[string]any{"token_id": held.TokenID}
		if _, err := c.root.Logical().WriteWithContext(t.Context(), bed.Mount+"/refresh/"+c.name, reported); err != nil {
			return err
		}
		token, err := c.bed.ReadToken(t.Context(), c.root, "token/"+c.name)
		if err != nil {
			return err
		}
		return c.mcp.Check(token.AccessToken)
	})
}

func awaitTime(t *testing.T, at time.Time) {
	t.Helper()
	select {
	case <-time.After(time.Until(at)):
	case <-t.Context().Done():
	}
}

func signingKey(t *testing.T, token *bed.Token) string {
	t.Helper()
	parsed, err := jwt.ParseSigned(token.AccessToken, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256})
	if err != nil {
		t.Fatal("the token is no JWT")
	}
	return parsed.Headers[0].KeyID
}
