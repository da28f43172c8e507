package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

const (
	// lifetime is the lifetime of all tokens.
	lifetime = 5 * time.Second
	// role is the name of the role of each server.
	role = "reader"
	// writeEvery is the wait before a failed write is repeated.
	writeEvery = time.Second
)

// A server is an MCP server with a config and a role. Each version of the config has its own client, so a token shows
// the version.
type server struct {
	name  string
	bed   *bed.Bed
	root  *api.Client
	mcp   *bed.MCPServer
	proxy *bed.FaultProxy

	writing sync.Mutex // held by the operator who currently writes to the server

	mu    sync.Mutex // guards state
	state state
}

// A state describes the valid tokens.
type state struct {
	config, role versions
	deleted      bool
	changes      int // number of deletes and later creations
}

// versions are the valid versions of a token.
type versions struct {
	oldest int // of the last finished write
	newest int // of the last started write
}

func (s *server) tokenPaths() []string {
	return []string{"token/" + s.name, "token/" + s.name + "/" + role}
}

func (s *server) now() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *server) change(f func(*state)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
}

func (s *server) clientID(version int) string { return fmt.Sprintf("%s-v%d", s.name, version) }

func (s *server) version(clientID string) (int, error) {
	text, ok := strings.CutPrefix(clientID, s.name+"-v")
	if !ok {
		return 0, fmt.Errorf("%s was given a token of the client %s", s.name, clientID)
	}
	return strconv.Atoi(text)
}

// rewrite writes the config with another client until Vault accepts it, and returns the number of writes. Older
// tokens are invalid from then on.
func (s *server) rewrite(ctx context.Context, verify bool) (writes int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.put(ctx, verify)
}

// put writes the next version. writing is held.
func (s *server) put(ctx context.Context, verify bool) (writes int, err error) {
	version := s.now().config.newest + 1
	client := bed.Client{ID: s.clientID(version), Secret: rand.Text(), Scope: "tools:list tools:call"}
	if err := s.bed.AS.SetClient(ctx, client); err != nil {
		return 0, err
	}
	s.change(func(st *state) {
		st.config.newest, st.deleted = version, false
		st.changes++
	})
	writes, err = s.retryUntilDone(ctx, func() error {
		return s.call(ctx, http.MethodPut, "config/"+s.name, map[string]any{
			"token_url":       s.proxy.TokenURL(),
			"ca_cert":         s.proxy.CA(),
			"server_url":      s.mcp.URL,
			"client_id":       client.ID,
			"client_secret":   client.Secret,
			"request_timeout": 3,
			"verify":          verify,
		})
	})
	if err != nil {
		return writes, err
	}
	s.change(func(st *state) { st.config.oldest = version })
	return writes, s.bed.AS.RemoveClient(ctx, s.clientID(version-1))
}

// rewriteRole gives the role other scopes. Its older tokens are invalid from then on.
func (s *server) rewriteRole(ctx context.Context) (writes int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.putRole(ctx)
}

// putRole writes the next version of the role. writing is held.
func (s *server) putRole(ctx context.Context) (writes int, err error) {
	version := s.now().role.newest + 1
	s.change(func(st *state) { st.role.newest = version })
	writes, err = s.retryUntilDone(ctx, func() error {
		return s.call(ctx, http.MethodPut, "role/"+s.name+"/"+role, map[string]any{"scopes": scopes(version), "verify": false})
	})
	if err == nil {
		s.change(func(st *state) { st.role.oldest = version })
	}
	return writes, err
}

// scopes returns the scopes of a version of the role. Three consecutive versions differ.
func scopes(version int) string {
	return []string{"tools:list", "tools:call", "tools:list tools:call"}[version%3]
}

// rotate gives the client another secret, at the authorization server and then in the config.
func (s *server) rotate(ctx context.Context) (writes int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	client := bed.Client{ID: s.clientID(s.now().config.oldest), Secret: rand.Text(), Scope: "tools:list tools:call"}
	if err := s.bed.AS.SetClient(ctx, client); err != nil {
		return 0, err
	}
	return s.retryUntilDone(ctx, func() error {
		return s.call(ctx, http.MethodPut, "config/"+s.name, map[string]any{"client_secret": client.Secret})
	})
}

// recreate deletes the config, waits, and creates it and its role again.
func (s *server) recreate(ctx context.Context, away time.Duration) (writes int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.change(func(st *state) { st.changes++ })
	writes, err = s.retryUntilDone(ctx, func() error {
		return s.call(ctx, http.MethodDelete, "config/"+s.name, nil)
	})
	if err != nil {
		return writes, err
	}
	s.change(func(st *state) { st.deleted = true })
	if err := bed.Sleep(ctx, away); err != nil {
		return writes, err
	}
	more, err := s.put(ctx, false)
	writes += more
	if err != nil {
		return writes, err
	}
	more, err = s.putRole(ctx)
	return writes + more, err
}

// call makes a request. Only its own status is a success: Vault's client accepts a second redirect as an answer.
func (s *server) call(ctx context.Context, method, path string, body map[string]any) error {
	req := s.root.NewRequest(method, "/v1/"+bed.Mount+"/"+path)
	if body != nil {
		if err := req.SetJSONBody(body); err != nil {
			return err
		}
	}
	resp, err := s.root.RawRequestWithContext(ctx, req) //nolint:staticcheck // the others hide the status
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

// retryUntilDone repeats a write until Vault accepts it. A failover or an outage may make it fail.
func (s *server) retryUntilDone(ctx context.Context, write func() error) (writes int, err error) {
	for {
		writes++
		if err = write(); err == nil {
			return writes, nil
		}
		select {
		case <-ctx.Done():
			return writes, errors.Join(ctx.Err(), err)
		case <-time.After(writeEvery):
		}
	}
}

// read reads a token and checks it. The error is a violation if the token is invalid, or the reason why the read
// failed.
func (s *server) read(ctx context.Context, client *api.Client, path string) error {
	before, begun := s.now(), time.Now()
	token, err := s.bed.ReadToken(ctx, client, path)
	after := s.now()
	if err != nil {
		return err
	}
	claims, err := s.mcp.CheckAt(token.AccessToken, begun)
	if err != nil {
		return violation{fmt.Sprintf("%s: not valid when it was asked for: %v", path, err)}
	}
	version, err := s.version(claims.ClientID)
	if err != nil {
		return violation{err.Error()}
	}
	switch {
	case before.deleted && after.changes == before.changes:
		return violation{path + ": a token of a config that had been deleted"}
	case version < before.config.oldest:
		return violation{fmt.Sprintf("%s: a token of version %d after %d had been written", path, version, before.config.oldest)}
	case version > after.config.newest:
		return violation{fmt.Sprintf("%s: a token of version %d, which has not been written", path, version)}
	case strings.HasSuffix(path, "/"+role) && !permits(before.role.oldest, after.role.newest, string(claims.Scope)):
		return violation{fmt.Sprintf("%s: a token with scope %s, after version %d of the role had been written", path, claims.Scope, before.role.oldest)}
	}
	return nil
}

// permits reports whether the scope belongs to one of these versions of the role.
func permits(oldest, newest int, scope string) bool {
	for version := oldest; version <= newest; version++ {
		if scopes(version) == scope {
			return true
		}
	}
	return false
}

// A violation is an answer that the plugin must never give.
type violation struct{ what string }

func (v violation) Error() string { return v.what }

// outcome returns a read's result in a word or two.
func outcome(err error) string {
	if err == nil {
		return "a token"
	}
	if errors.Is(err, bed.ErrNotFound) {
		return "404"
	}
	if refused, ok := errors.AsType[*api.ResponseError](err); ok {
		return strconv.Itoa(refused.StatusCode)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	return "no answer"
}
