package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

const (
	pluginName = "profiled-plugin" // and its mount
	name       = "profile"         // of the config, and of its client
	tokenPath  = pluginName + "/token/" + name
	resource   = "https://mcp.example.com/profile"
	scope      = "tools:list tools:call"
	// lifetime is such that the token is not refreshed while it is measured.
	lifetime = time.Hour
)

// A stage is a Vault with the plugin and one token, and readers of it.
type stage struct {
	options
	bed    *bed.Bed
	root   *api.Client
	plugin *http.Client // of the plugin's socket
	// Readers by the name of their role.
	readers map[string][]*measure.Reader
}

// The roles of the readers. Whoever logs in gets Vault's default policy too, where the role does not
// say otherwise.
const (
	usual         = "reader"
	noDefault     = "reader-no-default-policy"
	readersPolicy = "reader"
)

func newStage(ctx context.Context, b *bed.Bed, o options) (*stage, error) {
	s := &stage{options: o, bed: b}
	var err error
	if s.root, err = b.Vault.Root(); err != nil {
		return nil, err
	}
	s.root.SetClientTimeout(o.Duration + time.Minute)
	if err := s.enablePlugin(ctx); err != nil {
		return nil, err
	}
	if err := s.configure(ctx); err != nil {
		return nil, err
	}
	rules := fmt.Sprintf("path %q { capabilities = [\"read\"] }\n", tokenPath)
	if err := b.Vault.PutPolicy(ctx, readersPolicy, rules); err != nil {
		return nil, err
	}
	s.readers = make(map[string][]*measure.Reader)
	return s, nil
}

// connect logs in to a new role and connects its readers. They must read soon: Vault closes a
// connection that brings no request in its first ten seconds.
func (s *stage) connect(ctx context.Context, role string) error {
	id, err := s.bed.Vault.NewIdentity(ctx, role, readersPolicy)
	if err != nil {
		return err
	}
	if role == noDefault {
		_, err := s.root.Logical().WriteWithContext(ctx, "auth/approle/role/"+role, map[string]any{"token_no_default_policy": true})
		if err != nil {
			return err
		}
		if id, err = s.bed.Vault.Login(ctx, role); err != nil {
			return err
		}
	}
	for range s.Readers {
		r, err := measure.NewReader(ctx, s.bed.Vault.Address, id.Client.Token(), "v1/"+tokenPath)
		if err != nil {
			return err
		}
		s.readers[role] = append(s.readers[role], r)
	}
	return nil
}

func (s *stage) close() (err error) {
	for _, group := range s.readers {
		for _, r := range group {
			err = errors.Join(err, r.Close())
		}
	}
	return err
}

// enablePlugin builds the plugin with a socket for profiles and mounts it.
func (s *stage) enablePlugin(ctx context.Context) error {
	binary := filepath.Join(s.bed.PluginDir(), pluginName)
	build := bed.GoBuild(ctx, binary,
		"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/cmd/"+pluginName)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the plugin: %w\n%s", err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	socket := filepath.Join(s.bed.Dir, "profiles.sock")
	err = s.root.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name:    pluginName,
		Type:    api.PluginTypeSecrets,
		Command: pluginName,
		Args:    []string{"-profile-socket=" + socket},
		SHA256:  hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return err
	}
	s.plugin = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true, // Vault may start another process
	}}
	return s.root.Sys().MountWithContext(ctx, pluginName, &api.MountInput{Type: pluginName})
}

// configure writes the config whose token is read, and reads it for the first time.
func (s *stage) configure(ctx context.Context) error {
	client := bed.Client{ID: name, Secret: rand.Text(), Scope: scope}
	err := errors.Join(
		s.bed.AS.SetClient(ctx, client),
		s.bed.AS.SetResource(ctx, bed.Resource{URL: resource, Scope: scope, TTL: lifetime}),
	)
	if err != nil {
		return err
	}
	_, err = s.root.Logical().WriteWithContext(ctx, pluginName+"/config/"+name, map[string]any{
		"token_url":     s.bed.AS.TokenURL(),
		"client_id":     client.ID,
		"client_secret": client.Secret,
		"resource":      resource,
		"scopes":        scope,
	})
	if err != nil {
		return err
	}
	secret, err := s.root.Logical().ReadWithContext(ctx, tokenPath)
	if err != nil {
		return err
	}
	token, ok := secret.Data["access_token"].(string)
	if !ok {
		return errors.New("the answer holds no access token")
	}
	s.bed.Secrecy.AddToken(token)
	return nil
}

// fromPlugin reads what the plugin's process serves at a path.
func (s *stage) fromPlugin(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://plugin/"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.plugin.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s of the plugin: %s", path, resp.Status)
	}
	return body, err
}

// counters are what the plugin's process says of itself.
type counters struct {
	PID      int    `json:"pid"`
	VaultPID int    `json:"vault_pid"`
	Objects  uint64 `json:"objects"` // allocated since its start
	Bytes    uint64 `json:"bytes"`
}

func (s *stage) counters(ctx context.Context) (c counters, err error) {
	body, err := s.fromPlugin(ctx, "counters")
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(body, &c)
}

// vaultProfile is Vault's own CPU profile of some seconds.
func (s *stage) vaultProfile(ctx context.Context, seconds int) ([]byte, error) {
	resp, err := s.root.Logical().ReadRawWithDataWithContext(ctx, "sys/pprof/profile",
		map[string][]string{"seconds": {fmt.Sprint(seconds)}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
