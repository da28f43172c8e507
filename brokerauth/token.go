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

// A token is one answer of the token path, with its times by this machine's clocks. It is immutable.
type token struct {
	id       string        // token_id
	value    *oauth2.Token // never returned itself, because its fields can be set
	header   string        // value of the Authorization header
	obtained time.Time     // when Vault obtained it: a whole second, by Vault's clock
	asked    time.Time     // when the read began
	readAt   time.Time     // when the token path should be read again
	expires  time.Time
}

// errNotAToken does not show the answer, which may contain a secret.
var errNotAToken = errors.New("the answer does not come from a token path of vault-plugin-mcp-oauth")

// parseToken parses Vault's answer to a read that began at asked.
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
	// Vault never returns an expired token, and a ttl above its minimum of one second ends before the token does. So
	// if the token looks expired, or valid for less than such a ttl, this machine's clock is ahead of Vault's. If it
	// looks valid for longer than its lifetime, the clock is behind.
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
		// With a monotonic reading, for comparison with both clocks.
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

// validAt reports whether the token may be used at now; false for nil.
func (t *token) validAt(now time.Time) bool { return t != nil && left(t.expires, now) > 0 }

// dueAt reports whether the token should be read again at now.
func (t *token) dueAt(now time.Time) bool { return left(t.readAt, now) <= 0 }

// ttl returns the time from the read until the token should be read again; 0 for nil.
func (t *token) ttl() time.Duration {
	if t == nil {
		return 0
	}
	return t.readAt.Sub(t.asked)
}

// left returns the time from now to at, by the clock that gives less: the monotonic clock stops while a machine
// sleeps, and the wall clock may be set back.
func left(at, now time.Time) time.Duration {
	return min(at.Sub(now), at.Round(0).Sub(now.Round(0)))
}

// tokenID returns the plugin's token_id of an access token: the first 16 hexadecimal digits of its SHA-256.
func tokenID(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return hex.EncodeToString(sum[:8])
}
