// Package brokerauth is for brokers in Go: it reads the access tokens that the plugin keeps in Vault and adds them
// to requests.
//
// A [Source] is an [oauth2.TokenSource] that reads a token path with a Vault client. A [Transport] is an
// [http.RoundTripper] that adds the token to the requests to one MCP server, and replaces the token if the server
// refuses it. An MCP client of the Go SDK uses the Transport twice, in its HTTP client and as its OAuth handler, so
// that a refused token fails one call at most and does not end the session:
//
//	source, err := brokerauth.NewSource(brokerauth.Config{Vault: vault, TokenPath: "mcp-oauth/token/weather"})
//	bearer, err := brokerauth.NewTransport(source, endpoint)
//	transport := &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: &http.Client{Transport: bearer}, OAuthHandler: bearer}
//
// # Who logs in to Vault
//
// This package never logs in. At each call it uses the client's current token, address and namespace. So it works
// with a Vault token renewed by the broker (an [api.LifetimeWatcher] and [api.Client.SetToken]), and without a token
// at the listener of a Vault Agent or Vault Proxy with auto-auth. Paths are relative to the client's namespace.
//
// # When Vault is away
//
// A broker with a valid token does not wait for Vault. When the ttl of Vault's answer is over, a call still returns
// the held token at once, and starts one read in the background. While reads fail, the held token is returned until
// it expires, and Vault is asked again after 1, 2, 4 and so on up to 30 seconds, less jitter. [Source.Err] returns
// the last failure. So a broker that loses its access in Vault keeps its token until the token expires.
//
// If this machine's clock is ahead of Vault's, a token is used for at least its ttl. If the clock is behind, a token
// is used for at most its full lifetime after the read: too long by its age at the read.
//
// Nothing runs between calls, so a Source need not be closed. A call to Vault ends after 30 seconds.
package brokerauth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/oauth2"
)

// Config names a token in Vault.
type Config struct {
	// Vault is the client to read with. Its own methods, such as SetToken, may be called while it is in use.
	Vault *api.Client

	// TokenPath is the token's path, relative to the client's namespace: mount/token/server or
	// mount/token/server/role, for example mcp-oauth/token/weather.
	TokenPath string

	// RefreshPath is the path to replace a refused token. Default: TokenPath with refresh/ in place of token/. Set it
	// only if a server named token makes the default ambiguous.
	RefreshPath string
}

// A Source returns the access token of one MCP server. It is an [oauth2.TokenSource], and safe for concurrent use.
//
// Don't wrap it in [oauth2.ReuseTokenSource] or [oauth2.NewClient], which uses that: they would use a replaced token
// until it expires.
type Source struct {
	vault       *api.Client
	tokenPath   string
	refreshPath string

	mu        sync.Mutex   // guards the fields below
	held      *token       // the last token read, or nil
	reads     calls        // of the token path
	replacing *replacement // the latest replacement, or nil
	streak    streak       // consecutive refused tokens
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

// Token returns a valid token. It waits for Vault only without a valid token: at first, and after the token has
// expired while Vault did not answer. It waits 30 seconds at most. The error is an [*Error].
//
// The token's Extra has token_id and scope, as in the answer of the plugin's token path.
func (s *Source) Token() (*oauth2.Token, error) {
	return s.TokenContext(context.Background())
}

// TokenContext is Token with a context. When ctx is done, the caller returns, but the read continues, because others
// may wait for it. The error is an [*Error], or wraps the error of ctx.
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
		return s.held, nil // from this read or another
	}
	if err == nil {
		err = failed("read", s.tokenPath, errExpired)
	}
	return nil, err
}

// Err returns the error of the last read of the token path, or nil. It is for health checks and logs: the held token
// may still be valid.
func (s *Source) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads.err
}

// RetryAfter returns the time until Vault may be asked for a token again: 0, unless the last read has just failed.
// Until then Token fails at once if a valid token is not held.
func (s *Source) RetryAfter() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, time.Until(s.reads.until))
}

// look returns the held token if it is valid, else the read to wait for, or the error of the last read. It starts a
// read if one is due.
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

var errExpired = errors.New("the token had expired when the answer came")

// read reads the token path and holds its token.
func (s *Source) read(ctx context.Context) error {
	// If the read was slow, its token may have expired. The next answer has another token.
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

// answer reads the token path, and returns when the read began. It reads again while Vault answers 504: the plugin is
// still fetching the token.
func (s *Source) answer(ctx context.Context) (*api.Secret, time.Time, error) {
	var asked time.Time
	var secret *api.Secret
	err := whileFetching(ctx, func() error {
		asked = time.Now()
		response, err := s.vault.Logical().ReadRawWithContext(ctx, s.tokenPath)
		if err == nil && response.StatusCode >= http.StatusMultipleChoices {
			response.Body.Close()
			return &Error{Op: "read", Path: s.tokenPath, StatusCode: response.StatusCode, Err: errRedirected}
		}
		secret, err = s.vault.Logical().ParseRawResponseAndCloseBody(response, err)
		if err != nil || secret == nil {
			return failed("read", s.tokenPath, err)
		}
		return nil
	})
	return secret, asked, err
}

// hold stores a read token, unless it has expired or a later read has stored one. It reports whether the token is
// valid.
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
