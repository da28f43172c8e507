package brokerauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// errStillHeld is Vault's answer to a refresh that still names the refused token.
var errStillHeld = fmt.Errorf("%w: it is less than 10 seconds old, or the authorization server returned it again", ErrNotReplaced)

var errNotARefresh = errors.New("the answer does not come from a refresh path of vault-plugin-mcp-oauth, or Vault has no active node")

// Replace asks Vault to replace an access token refused by the MCP server (401, RFC 6750 section 3.1), and reads the
// new token. If it returns nil, Token returns a different token. A [Transport] calls it itself.
//
// If several goroutines report one token, Vault is asked once. If another token is held by then, Vault is not asked.
// Because a standby may lag, the token path is read repeatedly, for up to a second, until it returns the token named
// by Vault. After a failure there is a backoff window: one second at first, then up to 30 seconds, or up to 15
// minutes if Vault still holds the token. In the window the failure is returned at once.
//
// If the MCP server refuses the new token too, it is replaced after half a minute at the earliest, the next one after
// a minute, and so on up to 15 minutes. Otherwise an MCP server that refuses every token would cost the authorization
// server a request every few seconds. This ends when a [Transport] sees the server accept a token (status 2xx), or
// when the ttl of the last token passes without another refusal.
//
// The error wraps [ErrNotReplaced] or the error of ctx, or is an [*Error], with StatusCode 403 if the broker's policy
// does not permit to write the refresh path.
func (s *Source) Replace(ctx context.Context, accessToken string) error {
	id := tokenID(accessToken)
	replacing, err := s.replace(id)
	if replacing == nil {
		return err
	}
	return replacing.wait(ctx)
}

// replace returns the call to wait for, or an error. Both are nil if another token is held already.
func (s *Source) replace(id string) (*call, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	replacing := s.replacing
	if replacing == nil || replacing.id != id {
		replacing = &replacement{id: id}
		if s.held != nil && s.held.id == id {
			replacing.obtained = s.held.obtained
		}
	}
	if s.held.validAt(now) && replacing.isReplacedBy(s.held) {
		return nil, nil
	}
	if err := s.streak.refuse(id, s.held.ttl(), now); err != nil {
		return nil, err
	}
	s.replacing = replacing
	return replacing.calls.join(&s.mu, func(ctx context.Context) error { return s.refresh(ctx, replacing) })
}

// successorWait bounds how long reads may still return the refused token after Vault has named its successor.
// Standbys lag behind the active node by about a tenth of a second.
const successorWait = time.Second

// refresh names the refused token to Vault and reads the new one. While Vault answers 504, the plugin's fetch
// continues: a read may return its token, and naming the refused token again waits for it.
func (s *Source) refresh(ctx context.Context, r *replacement) error {
	return whileFetching(ctx, func() error {
		err := s.refreshOnce(ctx, r)
		switch {
		case (err == nil || isGatewayTimeout(err)) && s.replaced(r):
			return nil
		case err == nil:
			return errStillHeld
		}
		return err
	})
}

// refreshOnce names the refused token to Vault, and reads the successor if Vault names one.
func (s *Source) refreshOnce(ctx context.Context, r *replacement) error {
	secret, err := s.vault.Logical().WriteWithContext(ctx, s.refreshPath, map[string]any{"token_id": r.id})
	if err != nil {
		err := failed("refresh", s.refreshPath, err)
		if isGatewayTimeout(err) {
			if err := s.readNow(ctx).wait(context.Background()); err != nil { // the read ends with ctx
				return err
			}
		}
		return err
	}
	var successor string
	if secret != nil {
		successor, _ = secret.Data["token_id"].(string)
	}
	switch successor {
	case "":
		return failed("refresh", s.refreshPath, errNotARefresh)
	case r.id:
		return errStillHeld
	}
	s.mu.Lock()
	r.successor = successor
	s.mu.Unlock()
	return s.readSuccessor(ctx, r)
}

// readSuccessor reads the token path until it returns a token that replaces the refused one, or until
// successorWait is over.
func (s *Source) readSuccessor(ctx context.Context, r *replacement) error {
	began := time.Now()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := s.readNow(ctx).wait(context.Background()) // it ends with ctx
		if err != nil || s.holdsSuccessor(r) || time.Since(began)+pause > successorWait {
			return err
		}
		wait(ctx, time.NewTimer(pause))
	}
}

// holdsSuccessor reports whether the held token replaces the refused one.
func (s *Source) holdsSuccessor(r *replacement) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.isReplacedBy(s.held)
}

// replaced reports whether a valid token that replaces the refused one is held. If so, it adds it to the streak.
func (s *Source) replaced(r *replacement) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.held.validAt(now) || !r.isReplacedBy(s.held) {
		return false
	}
	s.streak.replace(s.held.ttl(), now)
	return true
}

// readNow starts a read even in the backoff window, because Vault has just answered. It does not wait for a read in
// flight, which may hang or return the refused token.
func (s *Source) readNow(ctx context.Context) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads.begin(ctx, &s.mu, s.read)
}

// answered records that the MCP server refused a token (401) or accepted it (2xx). Another status may come from a
// proxy or a rate limiter, which don't check tokens.
func (s *Source) answered(with *token, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// While a replacement is in flight, the streak does not include the successor yet.
	replacing := s.replacing != nil && s.replacing.calls.current != nil
	if s.streak.count == 0 || replacing || s.held.id != with.id {
		return
	}
	switch {
	case status == http.StatusUnauthorized:
		_ = s.streak.refuse(s.held.id, s.held.ttl(), time.Now()) // the caller has not asked for a replacement yet
	case status >= 200 && status < 300:
		s.streak.accept(s.held.id, time.Now())
	}
}
