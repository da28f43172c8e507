package brokerauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// errStillHeld is what Vault says by naming the refused token.
var errStillHeld = fmt.Errorf("%w: it is too young for that, or the authorization server repeats it", ErrNotReplaced)

var errNotARefresh = errors.New("the answer is not that of a refresh path of vault-plugin-mcp-oauth")

// Replace has Vault replace an access token that the MCP server refused (401, RFC 6750 section 3.1),
// and reads the new one. When it returns nil, Token returns another token than that. A [Transport] calls
// it by itself.
//
// However many report one token, Vault is asked once; and not at all if another token is held by
// now. A standby that answers the read may lag behind: the token path is read for a second, until it has the
// token that Vault named. After a failure, the same token is not named again for a second, then for two and so on up to
// 30 seconds, or to 15 minutes where Vault still holds it: the failure is returned at once.
//
// If the new token is refused in turn, it is not replaced within half a minute of the first, nor the
// next one within a minute, and so on up to 15 minutes: an MCP server that refuses each token would
// otherwise cost the authorization server a request every few seconds. That ends with a token that the
// server has not refused by then and accepts (a status of 2xx), which a [Transport] notices. Without one the
// source hears of refused tokens only; so it ends too when none was refused for the ttl of the last one.
//
// The error wraps [ErrNotReplaced], is an [*Error], whose StatusCode is 403 if the broker's policy
// does not let it write the refresh path, or wraps that of ctx.
func (s *Source) Replace(ctx context.Context, accessToken string) error {
	id := tokenID(accessToken)
	replacing, err := s.replace(id)
	if replacing == nil {
		return err
	}
	return replacing.wait(ctx)
}

// replace returns the call to wait for, or, if there is none, why. That is nil if another token
// is held.
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

// successorWait is how long a read may still bring the refused token after Vault has named its successor: a
// standby that answers reads lags behind the active node, by about a tenth of a second.
const successorWait = time.Second

// refresh names the refused token to Vault and reads the one in its place. While Vault answers 504, the fetch
// goes on: a read may bring its token, and naming the refused one again waits for it.
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

// refreshOnce names the refused token to Vault, and reads its successor if there is or may be one.
func (s *Source) refreshOnce(ctx context.Context, r *replacement) error {
	secret, err := s.vault.Logical().WriteWithContext(ctx, s.refreshPath, map[string]any{"token_id": r.id})
	if err != nil {
		err := failed("refresh", s.refreshPath, err)
		if isGatewayTimeout(err) {
			if err := s.readNow(ctx).wait(context.Background()); err != nil { // it ends with ctx
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

// readSuccessor reads until the token path answers with a token that replaces the refused one, or until successorWait
// is over.
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

// replaced reports whether a valid token that replaces the refused one is held, and counts it as its successor.
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

// readNow starts a read whatever came of earlier ones: Vault has just answered. One that is under way
// began before that: it may hang, or bring the refused token.
func (s *Source) readNow(ctx context.Context) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads.begin(ctx, &s.mu, s.read)
}

// answered notes what the MCP server made of a token: that it refused it (401), or that it took it (2xx).
// Any other answer may come from a proxy or a rate limiter, which have not looked at it.
func (s *Source) answered(with *token, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// While a token is being replaced, the streak does not have its successor yet.
	replacing := s.replacing != nil && s.replacing.calls.current != nil
	if s.streak.count == 0 || replacing || s.held.id != with.id {
		return
	}
	switch {
	case status == http.StatusUnauthorized:
		_ = s.streak.refuse(s.held.id, s.held.ttl(), time.Now()) // no caller asks for another yet
	case status >= 200 && status < 300:
		s.streak.accept(s.held.id, time.Now())
	}
}
