package tokens

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Token is an access token with its times. A published token is immutable: every change makes a new one.
//
// If this process fetched or loaded the token, its times have a monotonic reading, for comparison with both clocks.
type Token struct {
	// AccessToken is the secret itself (RFC 6749 section 1.4).
	AccessToken string
	// Scope is the granted scope, space-delimited; empty if neither the request nor the answer had one (RFC 6749
	// section 5.1).
	Scope string
	// Shape is the shape of the token's terms. A token of another shape than its name's terms is never held.
	Shape string
	// Issued is when the request for the token began, rounded down to the second.
	Issued time.Time
	// Expires is when the token stops being valid.
	Expires time.Time
	// RefreshAt is when the background refresh is due. Its jitter is drawn once, when the token is fetched, and only
	// makes it earlier.
	RefreshAt time.Time
	// Repeats counts the due refreshes that returned the same token.
	Repeats int

	// checked is when the authorization server last answered with this token. The cooldown of a forced refresh counts
	// from here. It is not stored: after a restart it is Issued.
	checked time.Time
	// id and authorization are derived from AccessToken.
	id            string
	authorization string
	// issued and expires are the times in the API's format.
	issued, expires string
}

// ID identifies the token without revealing it: the first 16 hexadecimal digits of SHA-256(access_token). It is empty if
// t is nil.
func (t *Token) ID() string {
	if t == nil {
		return ""
	}
	return t.id
}

// Authorization returns the value of the Authorization header (RFC 6750 section 2.1). It is made once, since each
// read needs it.
func (t *Token) Authorization() string { return t.authorization }

// IssuedText returns Issued in RFC 3339 format, in UTC. It is made once, since each read needs it.
func (t *Token) IssuedText() string { return t.issued }

// ExpiresText returns Expires in the same format.
func (t *Token) ExpiresText() string { return t.expires }

// Lifetime returns the time from Issued to Expires.
func (t *Token) Lifetime() time.Duration { return t.Expires.Sub(t.Issued) }

// RotationPeriod returns the refresh interval without jitter, in whole seconds. It is at least 1: the Vault Secrets
// Operator refuses 0.
func (t *Token) RotationPeriod() int64 {
	l := t.Lifetime()
	return max(1, int64((l-margin(l))/time.Second))
}

// shortest is the lifetime below which a token is neither refreshed ahead nor stored: that would cost a request and a
// write every few seconds, even for an unread token.
const shortest = 10 * time.Second

// ShortLived reports whether a token of the given lifetime is fetched when it is read, and not refreshed ahead.
func ShortLived(lifetime time.Duration) bool { return lifetime < shortest }

// ValidAt reports whether the token may be handed out at now, by both the monotonic and the wall clock. A wall clock
// that was set back must not revive a token. A wall clock that was set ahead counts, since brokers go by theirs.
func (t *Token) ValidAt(now time.Time) bool {
	return t != nil && left(t.Expires, now) > 0
}

// left returns the time from now to at, by the monotonic or the wall clock, whichever gives less.
func left(at, now time.Time) time.Duration {
	return min(at.Sub(now), at.Round(0).Sub(now.Round(0)))
}

// margin returns how long before its end a token of the given lifetime is refreshed.
func margin(lifetime time.Duration) time.Duration {
	return max(lifetime/4, min(30*time.Second, lifetime/2))
}

// jitter draws a duration in [0, limit). It is the package's only source of randomness.
func jitter(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	return rand.N(limit) //nolint:gosec // spreads load, protects nothing
}

// newToken makes a token from the answer of an authorization server.
func newToken(answer *grant.Token, terms *Terms) *Token {
	lifetime := answer.ExpiresIn
	if lifetime == 0 {
		lifetime = terms.DefaultTTL
	}
	if terms.MaxTTL > 0 {
		lifetime = min(lifetime, terms.MaxTTL)
	}
	m := margin(lifetime)
	// A tenth of the margin spreads the refreshes of tokens fetched together, and costs little of their lifetime.
	interval := max(lifetime-m-jitter(m/10), min(time.Second, lifetime))
	// Authorization servers count in whole seconds: if a token was issued half a second into one, its exp (RFC 7519
	// section 4.1.4) is half a second before the end of its expires_in. The earlier one counts.
	issued := answer.RequestedAt.Add(-time.Duration(answer.RequestedAt.Nanosecond()))
	expires := issued.Add(lifetime)
	t := &Token{
		AccessToken: answer.AccessToken,
		Scope:       answer.Scope,
		Shape:       terms.Shape,
		Issued:      issued,
		Expires:     expires,
		// A lifetime of a second may be almost over.
		RefreshAt: minTime(answer.RequestedAt.Add(interval), expires),
		checked:   time.Now(),
	}
	t.seal()
	return t
}

// earlyRetries is how many more refreshes precede the token's end after one that returned the same token.
const earlyRetries = 2

// repeated returns t after the authorization server returned the same token again. Its time of issue stays, and its
// end never moves later while it is valid: the server may announce the full lifetime each time.
func (t *Token) repeated(again *Token, now time.Time) *Token {
	next := *t
	next.checked = again.checked
	next.Scope = again.Scope
	if again.Expires.Before(next.Expires) {
		next.Expires = again.Expires
		next.sealTimes()
	}
	if now.Before(t.RefreshAt) {
		// A forced refresh of a young token: the due refresh stays.
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

// rebased returns a stored token with monotonic readings: its stored times have only the wall clock. Its remaining
// life is capped by its lifetime, in case the wall clock was set back since it was stored.
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

// dueBy returns t with a refresh that is due at now, or earlier.
func (t *Token) dueBy(now time.Time) *Token {
	next := *t
	next.RefreshAt = minTime(next.RefreshAt, now)
	return &next
}

// seal computes the derived fields.
func (t *Token) seal() {
	sum := sha256.Sum256([]byte(t.AccessToken))
	t.id = hex.EncodeToString(sum[:8])
	const scheme = "Bearer "
	t.authorization = scheme + t.AccessToken
	t.AccessToken = t.authorization[len(scheme):] // both share one text in memory
	t.sealTimes()
}

func (t *Token) sealTimes() {
	t.issued = t.Issued.UTC().Format(time.RFC3339)
	t.expires = t.Expires.UTC().Format(time.RFC3339)
}

// readAgain returns the number of whole seconds after which a caller should read the token again, at least 1. retry
// is the time of the next attempt if a refresh has failed, else zero.
//
// Vault Agent reads again after exactly ttl+1 s, without jitter, so the jitter is drawn here. The result ends two seconds
// before the token's end if possible. For lifetimes from 15 s up, that matters only if a refresh is late.
func (t *Token) readAgain(now, retry time.Time) int64 {
	var secs int64
	switch {
	case !retry.IsZero():
		secs = max(3, wholeSeconds(left(retry, now)))
	case left(t.RefreshAt, now) <= 0:
		secs = 3
	default:
		// One second after the refresh is due, for the refresh itself.
		secs = wholeSeconds(left(t.RefreshAt, now)) + 1 + int64(jitter(margin(t.Lifetime())/3)/time.Second)
	}
	return max(1, min(secs, int64(left(t.Expires, now)/time.Second)-2))
}

// wholeSeconds returns d in seconds, rounded up.
func wholeSeconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
