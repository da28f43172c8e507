package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// file writes a file into the directory that commands run in. It is not shown.
func (s *story) file(name, content string) error {
	return os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600)
}

// policy writes a policy that allows to read one path.
func (s *story) policy(ctx context.Context, name, path string) error {
	rules := fmt.Sprintf("path %q {\n  capabilities = [\"read\"]\n}\n", path)
	_, err := s.runWithText(ctx, rules, "policy", "write", name, "-")
	return err
}

// appRole creates an AppRole with the policy of the same name and logs in with it.
func (s *story) appRole(ctx context.Context, name string) (*bed.Identity, error) {
	_, err := s.must(ctx, "write", "auth/approle/role/"+name, "token_policies="+name)
	if err != nil {
		return nil, err
	}
	return s.vault.Login(ctx, name)
}

// readToken reads the first broker's token, without showing it.
func (s *story) readToken(ctx context.Context) (*bed.Token, error) {
	return s.bed.ReadToken(ctx, s.id.Client, "token/weather")
}

// tokenID shows the id of the token that the first broker would get now.
func (s *story) tokenID(ctx context.Context) (string, error) {
	return s.run(ctx, "WEATHER_BROKER", s.id.Client.Token(), "read", "-field=token_id", "mcp-oauth/token/weather")
}

// awaitToken waits until Vault holds another token than before, and returns the id of the one
// that it holds at the end.
func (s *story) awaitToken(ctx context.Context, before string, limit time.Duration) (string, error) {
	for start := time.Now(); ; _ = bed.Sleep(ctx, 100*time.Millisecond) {
		token, err := s.readToken(ctx)
		if err != nil {
			return "", err
		}
		if token.TokenID != before || time.Since(start) > limit {
			return token.TokenID, nil
		}
	}
}
