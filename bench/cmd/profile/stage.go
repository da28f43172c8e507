package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

const (
	mount     = "mcp-profiled"
	name      = "profile" // of the config and its client
	tokenPath = mount + "/token/" + name
)

// A stage is a Vault with the plugin and one token, and the token's readers.
type stage struct {
	options
	bed     *bed.Bed
	root    *api.Client
	plugin  *http.Client // connects to the plugin's socket
	readers []*measure.Reader
}

const readers = "reader" // name of their role and policy

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
	if _, err := measure.Configure(ctx, b, mount, name); err != nil {
		return nil, err
	}
	rules := fmt.Sprintf("path %q { capabilities = [\"read\"] }\n", tokenPath)
	if err := b.Vault.PutPolicy(ctx, readers, rules); err != nil {
		return nil, err
	}
	return s, nil
}

// connect logs in and connects the readers. They must read soon: Vault closes a connection without a request in its
// first ten seconds.
func (s *stage) connect(ctx context.Context) error {
	token, err := measure.LogIn(ctx, s.bed, readers, readers, true)
	if err != nil {
		return err
	}
	for range s.Readers {
		r, err := measure.NewReader(ctx, s.bed.Vault.Address, token, "v1/"+tokenPath)
		if err != nil {
			return err
		}
		s.readers = append(s.readers, r)
	}
	return nil
}

func (s *stage) close() (err error) {
	for _, r := range s.readers {
		err = errors.Join(err, r.Close())
	}
	return err
}

// enablePlugin builds the plugin with a socket for profiles and mounts it.
func (s *stage) enablePlugin(ctx context.Context) error {
	socket := filepath.Join(s.bed.Dir, "profiles.sock")
	s.plugin = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true, // because Vault may start another process
	}}
	return measure.MountCommand(ctx, s.bed, "profiled-plugin", []string{"-profile-socket=" + socket}, mount)
}

// fromPlugin requests a path from the plugin's socket.
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

// counters are the plugin's own figures.
type counters struct {
	PID      int    `json:"pid"`
	VaultPID int    `json:"vault_pid"`
	Objects  uint64 `json:"objects"` // allocated since the process started
	Bytes    uint64 `json:"bytes"`
}

func (s *stage) counters(ctx context.Context) (c counters, err error) {
	body, err := s.fromPlugin(ctx, "counters")
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(body, &c)
}

// vaultProfile returns Vault's own CPU profile of some seconds.
func (s *stage) vaultProfile(ctx context.Context, seconds int) ([]byte, error) {
	resp, err := s.root.Logical().ReadRawWithDataWithContext(ctx, "sys/pprof/profile",
		map[string][]string{"seconds": {fmt.Sprint(seconds)}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
