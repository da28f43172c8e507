package brokerauth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/oauth2"
)

// A token is one answer of the token path, with the times that govern it by this machine's clocks.
// It is immutable.
type token struct {
	id       string        // token_id
	value    *oauth2.Token // never handed out itself, as its fields can be set
	header   string        // of the Authorization header
	obtained time.Time     // when Vault obtained it: a whole second, by Vault's clock
	asked    time.Time     // when the read began
	readAt   time.Time     // when reading again is worth while
	expires  time.Time
}

// errNotAToken hides what the answer was: some of it may be a secret.
var errNotAToken = errors.New("the answer is not that of a token path of vault-plugin-mcp-oauth")

// parseToken makes a token of Vault's answer to a read that began at asked.
func parseToken(secret *api.Secret, asked time.Time) (*token, error) {
	data, err := json.Marshal(secret.Data)
	if err != nil {
		return nil, errNotAToken
	}
	var answer struct {
		AccessToken string    `json:"access_token"`
		TokenType   string    `json:"token_type"`
		ExpiresAt   time.Time `json:"expires_at"`
		ObtainedAt  time.Time `json:"last_vault_rotation"`
		Scope       string    `json:"scope"`
		TTL         int64     `json:"ttl"` // seconds
	}
	if err := json.Unmarshal(data, &answer); err != nil || answer.AccessToken == "" || answer.TTL < 1 ||
		answer.ObtainedAt.IsZero() {
		return nil, errNotAToken
	}
	// Vault gives no expired token, both times by one clock, and a ttl that ends before the token does,
	// except the least, a second, in a token's last one. If the token looks expired, or good for less
	// than a longer ttl, this machine's clock is ahead of Vault's; if it looks good for longer than its
	// whole lifetime, it is behind.
	ttl := time.Duration(answer.TTL) * time.Second
	lifetime := answer.ExpiresAt.Sub(answer.ObtainedAt)
	remaining := min(answer.ExpiresAt.Sub(asked.Round(0)), lifetime)
	if ttl > time.Second || remaining <= 0 {
		remaining = max(remaining, ttl)
	}
	t := &token{
		id:       tokenID(answer.AccessToken),
		obtained: answer.ObtainedAt,
		asked:    asked,
		// With a monotonic reading, to be compared with both clocks.
		expires: asked.Add(remaining),
		readAt:  asked.Add(ttl),
	}
	t.value = (&oauth2.Token{
		AccessToken: answer.AccessToken,
		TokenType:   answer.TokenType,
		Expiry:      t.expires,
	}).WithExtra(map[string]any{"token_id": t.id, "scope": answer.Scope})
	t.header = t.value.Type() + " " + answer.AccessToken
	return t, nil
}

// handOut returns the token for a caller to keep.
func (t *token) handOut() *oauth2.Token {
	value := *t.value
	return &value
}

// validAt reports whether the token may be handed out at now. A nil one may not.
func (t *token) validAt(now time.Time) bool { return t != nil && left(t.expires, now) > 0 }

// dueAt reports whether the token should be read again at now.
func (t *token) dueAt(now time.Time) bool { return left(t.readAt, now) <= 0 }

// ttl is for how long after the read the token is not due. That of a nil one is 0.
func (t *token) ttl() time.Duration {
	if t == nil {
		return 0
	}
	return t.readAt.Sub(t.asked)
}

// left is the time from now to at, by the clock that says less: the monotonic one stands still while
// a machine sleeps, and the wall clock may be set back.
func left(at, now time.Time) time.Duration {
	return min(at.Sub(now), at.Round(0).Sub(now.Round(0)))
}

// tokenID names an access token without giving it away, as the plugin does: the first 16
// hexadecimal digits of its SHA-256.
func tokenID(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return hex.EncodeToString(sum[:8])
}
