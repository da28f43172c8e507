package measure

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Scope is the scope of the measured tokens.
const Scope = "tools:list tools:call"

// lifetime is so long that tokens are not refreshed during the measurement.
const lifetime = time.Hour

// MountCommand builds a command of bench/cmd into the bed's plugin directory, and mounts it under each name. In
// Vault's catalog, it is "vault-plugin-" followed by the name.
func MountCommand(ctx context.Context, b *bed.Bed, command string, args []string, names ...string) error {
	root, err := b.Vault.Root()
	if err != nil {
		return err
	}
	binary := filepath.Join(b.PluginDir(), command)
	build := bed.GoBuild(ctx, binary, "github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/cmd/"+command)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", command, err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	for _, name := range names {
		plugin := "vault-plugin-" + name
		err := root.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
			Name: plugin, Type: api.PluginTypeSecrets, Command: command, Args: args, SHA256: hex.EncodeToString(sum[:]),
		})
		if err != nil {
			return err
		}
		if err := root.Sys().MountWithContext(ctx, name, &api.MountInput{Type: plugin}); err != nil {
			return err
		}
	}
	return nil
}

// Configure writes a config at a mount of the plugin, for a new client and a new resource, and returns its token.
func Configure(ctx context.Context, b *bed.Bed, mount, name string) (accessToken string, err error) {
	root, err := b.Vault.Root()
	if err != nil {
		return "", err
	}
	client := bed.Client{ID: name, Secret: rand.Text(), Scope: Scope}
	resource := "https://mcp.example.com/" + name
	err = errors.Join(
		b.AS.SetClient(ctx, client),
		b.AS.SetResource(ctx, bed.Resource{URL: resource, Scope: Scope, TTL: lifetime}),
	)
	if err != nil {
		return "", err
	}
	_, err = root.Logical().WriteWithContext(ctx, mount+"/config/"+name, map[string]any{
		"token_url": b.AS.TokenURL(), "client_id": client.ID, "client_secret": client.Secret,
		"resource": resource, "scopes": Scope,
	})
	if err != nil {
		return "", err
	}
	secret, err := root.Logical().ReadWithContext(ctx, mount+"/token/"+name)
	if err != nil {
		return "", err
	}
	accessToken, ok := secret.Data["access_token"].(string)
	if !ok {
		return "", errors.New("the response holds no access token")
	}
	b.Secrecy.AddToken(accessToken)
	return accessToken, nil
}

// LogIn makes an AppRole with a policy, logs in to it, and returns the Vault token. Without withDefault, the token
// has no other policy, not even Vault's default policy.
func LogIn(ctx context.Context, b *bed.Bed, role, policy string, withDefault bool) (token string, err error) {
	root, err := b.Vault.Root()
	if err != nil {
		return "", err
	}
	id, err := b.Vault.NewIdentity(ctx, role, policy)
	if err != nil {
		return "", err
	}
	if withDefault {
		return id.Client.Token(), nil
	}
	_, err = root.Logical().WriteWithContext(ctx, "auth/approle/role/"+role, map[string]any{"token_no_default_policy": true})
	if err != nil {
		return "", err
	}
	if id, err = b.Vault.Login(ctx, role); err != nil {
		return "", err
	}
	// Only the default policy permits a token's look-up of itself.
	self, err := id.Client.Auth().Token().LookupSelfWithContext(ctx)
	if err == nil {
		return "", fmt.Errorf("the token that is to have one policy has %v", self.Data["policies"])
	}
	if status, ok := errors.AsType[*api.ResponseError](err); !ok || status.StatusCode != http.StatusForbidden {
		return "", err
	}
	return id.Client.Token(), nil
}
