package tokens

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Token is an access token with the times that govern it. It is immutable once
// published: every change makes a new one.
//
// The times of a token that was obtained or loaded by this process carry a
// monotonic reading, so that they can be compared with both clocks.
type Token struct {
	// AccessToken is the secret itself (RFC 6749 section 1.4).
	AccessToken string
	// Scope is the scope as granted, space-delimited; empty when the
	// authorization server did not say and none was asked (RFC 6749 section 5.1).
	Scope string
	// Shape is the fingerprint of the terms that the token was obtained on. A
	// token of another shape than its name's terms does not exist.
	Shape string
	// Issued is when the request for the token began, rounded down to the second.
	Issued time.Time
	// Expires is when the token stops being valid.
	Expires time.Time
	// RefreshAt is when the background refresh is due. Its jitter is drawn once,
	// when the token is obtained, and only ever makes it earlier.
	RefreshAt time.Time
	// Repeats counts the due refreshes that returned this very token.
	Repeats int

	// checked is when the authorization server last answered with this token;
	// the cooldown of a forced refresh counts from here. Not stored: after a
	// restart it is Issued.
	checked time.Time
	// id and authorization are derived from AccessToken.
	id            string
	authorization string
	// issued and expires are the times as the API spells them.
	issued, expires string
}

// ID names the token without giving it away: the first 16 hexadecimal digits of
// SHA-256(access_token). It is empty for no token.
func (t *Token) ID() string {
	if t == nil {
		return ""
	}
	return t.id
}

// Authorization is the value of the Authorization header (RFC 6750 section 2.1), made once:
// each read wants it, and it is as long as the token.
func (t *Token) Authorization() string { return t.authorization }

// IssuedText is Issued as RFC 3339 has it, in UTC; made once, as each read wants it.
func (t *Token) IssuedText() string { return t.issued }

// ExpiresText is Expires likewise.
func (t *Token) ExpiresText() string { return t.expires }

// Lifetime is the time from Issued to Expires.
func (t *Token) Lifetime() time.Duration { return t.Expires.Sub(t.Issued) }

// RotationPeriod is the refresh interval without its jitter, in whole seconds, at
// least 1. The Vault Secrets Operator refuses less.
func (t *Token) RotationPeriod() int64 {
	l := t.Lifetime()
	return max(1, int64((l-margin(l))/time.Second))
}

// shortest is the lifetime below which a token is neither refreshed ahead nor stored: its
// refreshes would be a request and a write every few seconds, whether it is read or not.
const shortest = 10 * time.Second

// ShortLived reports whether a token of the given lifetime lives too briefly to be refreshed ahead of
// its end: it is fetched when it is read.
func ShortLived(lifetime time.Duration) bool { return lifetime < shortest }

// ValidAt reports whether the token may be handed out at now. The monotonic and the
// wall clock must agree that it may: a wall clock that was set back must not
// revive a token, and one that was set ahead is what its holders will go by.
func (t *Token) ValidAt(now time.Time) bool {
	return t != nil && left(t.Expires, now) > 0
}

// left is the time from now to at, by the clock that says less of the monotonic and
// the wall clock.
func left(at, now time.Time) time.Duration {
	return min(at.Sub(now), at.Round(0).Sub(now.Round(0)))
}

// margin is how long before its end a token of the given lifetime is refreshed.
func margin(lifetime time.Duration) time.Duration {
	return max(lifetime/4, min(30*time.Second, lifetime/2))
}

// jitter draws a duration in [0, limit). All of the package's randomness is here.
func jitter(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	return rand.N(limit) //nolint:gosec // spreads load, guards nothing
}

// newToken makes the token to hold from the answer of an authorization server.
func newToken(answer *grant.Token, terms *Terms) *Token {
	lifetime := answer.ExpiresIn
	if lifetime == 0 {
		lifetime = terms.DefaultTTL
	}
	if terms.MaxTTL > 0 {
		lifetime = min(lifetime, terms.MaxTTL)
	}
	m := margin(lifetime)
	// A tenth of the margin spreads the refreshes of tokens that were obtained
	// together, and costs little of their life.
	interval := max(lifetime-m-jitter(m/10), min(time.Second, lifetime))
	// Authorization servers count in whole seconds: of a token that was issued half a second
	// into one, the exp (RFC 7519 section 4.1.4) comes half a second before the end of its
	// expires_in. The sooner one is its end.
	issued := answer.RequestedAt.Add(-time.Duration(answer.RequestedAt.Nanosecond()))
	expires := issued.Add(lifetime)
	t := &Token{
		AccessToken: answer.AccessToken,
		Scope:       answer.Scope,
		Shape:       terms.Shape,
		Issued:      issued,
		Expires:     expires,
		// Of a lifetime of a second, next to nothing may be left.
		RefreshAt: minTime(answer.RequestedAt.Add(interval), expires),
		checked:   time.Now(),
	}
	t.seal()
	return t
}

// earlyRetries is how often a refresh that returned the same token is tried
// again before the token's end.
const earlyRetries = 2

// repeated is t after the authorization server handed it out once more, as again.
// Its rotation time stays. Its end never moves out while it is valid: a server
// that repeats a token until it expires may still announce the full lifetime.
func (t *Token) repeated(again *Token, now time.Time) *Token {
	next := *t
	next.checked = again.checked
	next.Scope = again.Scope
	if again.Expires.Before(next.Expires) {
		next.Expires = again.Expires
		next.sealTimes()
	}
	if now.Before(t.RefreshAt) {
		// A forced refresh of a young token: the due one is still to come.
		next.RefreshAt = minTime(next.RefreshAt, again.RefreshAt)
		return &next
	}
	next.Repeats++
	if next.Repeats <= earlyRetries {
		next.RefreshAt = now.Add(next.Expires.Sub(now) / 2)
	} else {
		next.RefreshAt = next.Expires
	}
	return &next
}

// rebased is a stored token, whose times are wall-clock only, tied to the
// monotonic clock at now. What remains of it is capped by its lifetime, in case
// the wall clock was set back since it was stored.
func (t *Token) rebased(now time.Time) *Token {
	wall := now.Round(0)
	lifetime := t.Lifetime()
	next := *t
	next.Expires = now.Add(min(t.Expires.Sub(wall), lifetime))
	next.Issued = next.Expires.Add(-lifetime)
	next.RefreshAt = next.Expires.Add(-min(t.Expires.Sub(t.RefreshAt), lifetime))
	next.checked = next.Issued
	next.seal()
	return &next
}

// dueBy is t, due for its refresh at now at the latest.
func (t *Token) dueBy(now time.Time) *Token {
	next := *t
	next.RefreshAt = minTime(next.RefreshAt, now)
	return &next
}

// seal computes what is derived from the token.
func (t *Token) seal() {
	sum := sha256.Sum256([]byte(t.AccessToken))
	t.id = hex.EncodeToString(sum[:8])
	const scheme = "Bearer "
	t.authorization = scheme + t.AccessToken
	t.AccessToken = t.authorization[len(scheme):] // one text in memory is both
	t.sealTimes()
}

func (t *Token) sealTimes() {
	t.issued = t.Issued.UTC().Format(time.RFC3339)
	t.expires = t.Expires.UTC().Format(time.RFC3339)
}

// readAgain is the number of whole seconds after which reading the token again is
// useful: at least 1. retry is the time of the next attempt if a refresh has failed,
// else zero.
//
// Vault Agent reads again after exactly ttl+1 s, without jitter of its own, hence
// the one drawn here. The result stays two seconds clear of the token's end if
// there are two, which for lifetimes from 15 s up binds only when a refresh is
// late.
func (t *Token) readAgain(now, retry time.Time) int64 {
	var secs int64
	switch {
	case !retry.IsZero():
		secs = max(3, wholeSeconds(left(retry, now)))
	case left(t.RefreshAt, now) <= 0:
		secs = 3
	default:
		// One second more than the refresh needs to be due, for the refresh itself.
		secs = wholeSeconds(left(t.RefreshAt, now)) + 1 + int64(jitter(margin(t.Lifetime())/3)/time.Second)
	}
	return max(1, min(secs, int64(left(t.Expires, now)/time.Second)-2))
}

// wholeSeconds is d in seconds, rounded up.
func wholeSeconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
