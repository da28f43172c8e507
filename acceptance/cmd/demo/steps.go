package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

func (s *story) file(name, content string) {
	ok(os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600))
}

func (s *story) policy(ctx context.Context, name, path string) {
	rules := fmt.Sprintf("path %q {\n  capabilities = [\"read\"]\n}\n", path)
	must(s.runWithText(ctx, rules, "policy", "write", name, "-"))
}

// appRole creates an AppRole with the policy of the same name and logs in with it.
func (s *story) appRole(ctx context.Context, name string) *bed.Identity {
	s.operator(ctx, "write", "auth/approle/role/"+name, "token_policies="+name)
	return must(s.vault.Login(ctx, name))
}

// readToken reads the first broker's token without showing it.
func (s *story) readToken(ctx context.Context) *bed.Token {
	return must(s.bed.ReadToken(ctx, s.id.Client, "token/weather"))
}

// tokenID shows the id of the first broker's current token.
func (s *story) tokenID(ctx context.Context) string {
	return must(s.run(ctx, "WEATHER_BROKER", s.id.Client.Token(), "read", "-field=token_id", "mcp-oauth/token/weather"))
}

// awaitToken waits until Vault holds a token other than before, and returns the last token's id.
func (s *story) awaitToken(ctx context.Context, before string, limit time.Duration) string {
	for start := time.Now(); ; _ = bed.Sleep(ctx, 100*time.Millisecond) {
		token := s.readToken(ctx)
		if token.TokenID != before || time.Since(start) > limit {
			return token.TokenID
		}
	}
}
