// Package brokerauth is for brokers in Go: it brings the access tokens that the plugin keeps in
// Vault to the requests that need them.
//
// A [Source] is an [oauth2.TokenSource] over a Vault client and a token path. A [Transport] is an
// [http.RoundTripper] that authorizes the requests to one MCP server with it, and has a token
// replaced that the server refuses. An MCP client of the Go SDK has the Transport twice, below it and as
// its OAuth handler, so that a refused token never ends its session if the failure of one call will do:
//
//	source, err := brokerauth.NewSource(brokerauth.Config{Vault: vault, TokenPath: "mcp-oauth/token/weather"})
//	bearer, err := brokerauth.NewTransport(source, endpoint)
//	transport := &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: &http.Client{Transport: bearer}, OAuthHandler: bearer}
//
// # Who logs in to Vault
//
// This package never logs in, and uses whatever token, address and
// namespace the client has at each call. So it works with a Vault token that something else renews
// (an [api.LifetimeWatcher] and [api.Client.SetToken]), and, with no token at all in the client,
// with the listener of a Vault Agent or Vault Proxy that has auto-auth. Paths are relative to the
// client's namespace.
//
// # When Vault is away
//
// A broker that holds a valid token does not wait for Vault. When it is time to read again (the
// ttl of Vault's answer, in seconds, is over) a call still returns the held token at once, and
// starts one read in the background. While reads fail, for whatever reason, the held token is
// handed out until it expires; Vault is asked again after a second, then after two, four and so
// on up to 30, less some jitter. [Source.Err] returns why the last read failed. A broker whose access
// is taken away in Vault thus keeps the token that it has until that expires.
//
// When that is depends on this machine's clock being right. If it is ahead of Vault's, a token serves
// for its ttl at least, and if it is behind, from the read on for no longer than the lifetime that the
// token was issued with: too long by its age at the read at most.
//
// Nothing runs between calls: a Source needs no closing, and a call to Vault is given up after 30
// seconds.
package brokerauth

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/oauth2"
)

// Config says where in Vault a token is.
type Config struct {
	// Vault is the client to read with. It may be changed while in use in the ways that it allows
	// itself, such as SetToken.
	Vault *api.Client

	// TokenPath is the path of the token, relative to the client's namespace: the plugin's mount,
	// then token/ and the MCP server's name, or its name and a role's. An example is
	// mcp-oauth/token/weather.
	TokenPath string

	// RefreshPath is where the plugin has a refused token replaced. Default: TokenPath with refresh/
	// in place of token/. To be set only if a server named token makes that ambiguous.
	RefreshPath string
}

// A Source hands out the access token of one MCP server. It is an [oauth2.TokenSource]. Several goroutines
// may use it at once.
//
// Don't put it behind [oauth2.ReuseTokenSource], nor in [oauth2.NewClient], which does so: a token
// that was replaced would be used until it expires.
type Source struct {
	vault       *api.Client
	tokenPath   string
	refreshPath string

	mu        sync.Mutex   // guards what follows
	held      *token       // the last one read, nil before the first
	reads     calls        // of the token path
	replacing *replacement // the latest one, nil before the first
	streak    streak       // of replacements that were refused in turn
}

// NewSource returns a Source. It does not contact Vault.
func NewSource(c Config) (*Source, error) {
	if c.Vault == nil {
		return nil, errors.New("brokerauth: Config.Vault is missing")
	}
	s := &Source{
		vault:       c.Vault,
		tokenPath:   strings.Trim(c.TokenPath, "/"),
		refreshPath: strings.Trim(c.RefreshPath, "/"),
	}
	if s.tokenPath == "" {
		return nil, errors.New("brokerauth: Config.TokenPath is missing")
	}
	if s.refreshPath == "" {
		var err error
		if s.refreshPath, err = refreshPath(s.tokenPath); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Token returns a token that is valid now. It waits for Vault only if none is held: at first,
// and after one has expired while Vault was away; then for 30 seconds at most. The error is an
// [*Error].
//
// The token's Extra holds token_id and scope, see the plugin's token path.
func (s *Source) Token() (*oauth2.Token, error) {
	return s.TokenContext(context.Background())
}

// TokenContext is Token with a context to wait on. A read that others may be waiting for goes on
// when ctx is done. The error is an [*Error], or wraps that of ctx.
func (s *Source) TokenContext(ctx context.Context) (*oauth2.Token, error) {
	valid, err := s.valid(ctx)
	if err != nil {
		return nil, err
	}
	return valid.handOut(), nil
}

// valid returns a token that is valid now, as TokenContext does.
func (s *Source) valid(ctx context.Context) (*token, error) {
	held, reading, err := s.look()
	if held != nil {
		return held, nil
	}
	if err != nil {
		return nil, err
	}
	err = reading.wait(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held.validAt(time.Now()) {
		return s.held, nil // from whichever read
	}
	if err == nil {
		err = failed("read", s.tokenPath, errExpired)
	}
	return nil, err
}

// Err returns why the last read of the token path failed, nil if it did not. A broker may be
// served with the held token nevertheless: it is for health checks and logs.
func (s *Source) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads.err
}

// RetryAfter returns how long it is until Vault is asked for a token again: 0 unless the last read failed a
// moment ago. Until then Token fails at once if no valid token is held.
func (s *Source) RetryAfter() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, time.Until(s.reads.until))
}

// look returns the held token if it is valid; else the read to wait for, or why there is none.
// It starts a read if one is due.
func (s *Source) look() (*token, *call, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.held.validAt(now) {
		reading, err := s.reads.join(&s.mu, s.read)
		return nil, reading, err
	}
	if s.held.dueAt(now) {
		_, _ = s.reads.join(&s.mu, s.read) // in the background; Err returns its failure
	}
	return s.held, nil, nil
}

// errExpired is of an answer that came too late.
var errExpired = errors.New("the token had expired when the answer came")

// read reads the token path and holds what it finds.
func (s *Source) read(ctx context.Context) error {
	// The answer to a slow read may be of no use any more. The next one is of another token.
	for range 2 {
		secret, asked, err := s.answer(ctx)
		if err != nil {
			return err
		}
		read, err := parseToken(secret, asked)
		if err != nil {
			return failed("read", s.tokenPath, err)
		}
		if s.hold(read) {
			return nil
		}
	}
	return failed("read", s.tokenPath, errExpired)
}

// answer reads the token path, and returns when that read began. It reads again while Vault answers 504: the
// plugin is still fetching the token.
func (s *Source) answer(ctx context.Context) (*api.Secret, time.Time, error) {
	var asked time.Time
	var secret *api.Secret
	err := whileFetching(ctx, func() error {
		var err error
		asked = time.Now()
		secret, err = s.vault.Logical().ReadWithContext(ctx, s.tokenPath)
		if err != nil || secret == nil {
			return failed("read", s.tokenPath, err)
		}
		return nil
	})
	return secret, asked, err
}

// hold holds a token that was read, unless it has expired. An old answer never takes the place of a
// newer one: a read may have been overtaken by that of a replaced token.
func (s *Source) hold(read *token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !read.validAt(time.Now()) {
		return false
	}
	if s.held == nil || !read.asked.Before(s.held.asked) {
		s.held = read
	}
	return true
}
