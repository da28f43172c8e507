package mcpoauth

import (
	"slices"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// The times of a rotation of plugin-made keys. A new key is published before its use, because authorization servers
// cache key sets. The old key stays published afterwards, for assertions on their way and for slow caches.
const (
	jwksMaxAge           = 5 * time.Minute  // lifetime of a key set in caches
	jwksMaxAgeReplaced   = 10 * time.Second // the same just after a key was replaced
	defaultActivateAfter = 10 * time.Minute
	maxActivateAfter     = 30 * 24 * time.Hour
	publishedAfterUse    = 24 * time.Hour
)

// maxPublished bounds the number of published keys after rotations in a row: all are stored in the config's entry,
// and authorization servers limit key sets.
const maxPublished = 8

// defaultKeyType is the default type of a plugin-made key: every authorization server with private_key_jwt accepts
// RS256.
const defaultKeyType = grant.RSA2048

// keyTypes are the types of keys that the plugin makes.
var keyTypes = []grant.KeyType{grant.RSA2048, grant.ECP256, grant.Ed25519}

// signingKey is a key of private_key_jwt (RFC 7523 section 2.2), as it is stored.
type signingKey struct {
	// ID is the key's id (kid).
	ID string `json:"id"`
	// PEM is the private key in PKCS#8.
	PEM string `json:"pem"`
	// ActiveFrom is when the key's use begins; zero for a config's first key.
	ActiveFrom time.Time `json:"active_from,omitzero"`
}

// newSigningKey generates a key.
func newSigningKey(kind grant.KeyType, activeFrom time.Time) (signingKey, error) {
	key, err := grant.GenerateKey(kind)
	if err != nil {
		return signingKey{}, err
	}
	return storedKey(key, activeFrom)
}

// storedKey converts a key to its stored form.
func storedKey(key *grant.Key, activeFrom time.Time) (signingKey, error) {
	pem, err := key.PEM()
	if err != nil {
		return signingKey{}, err
	}
	return signingKey{ID: key.ID, PEM: pem, ActiveFrom: activeFrom}, nil
}

// keyRing holds a config's signing keys in the order of ActiveFrom.
type keyRing []signingKey

// activeAt returns the index of the key that signs at now; -1 if the ring is empty. If the clock was set back to
// before every ActiveFrom, it returns the oldest: the client still needs a key.
func (r keyRing) activeAt(now time.Time) int {
	for i := len(r) - 1; i > 0; i-- {
		if !r[i].ActiveFrom.After(now) {
			return i
		}
	}
	return min(0, len(r)-1)
}

// publishedAt returns the keys to publish at now: the active one, the next one, and recently retired ones.
func (r keyRing) publishedAt(now time.Time) keyRing {
	for i := range r {
		if i+1 == len(r) || now.Before(r[i+1].ActiveFrom.Add(publishedAfterUse)) {
			return r[i:]
		}
	}
	return nil
}

// pendingAt returns the key that is published but not yet active; nil without one.
func (r keyRing) pendingAt(now time.Time) *signingKey {
	if last := len(r) - 1; last > r.activeAt(now) {
		return &r[last]
	}
	return nil
}

// fullUntil reports whether too many keys are published for another rotation, and returns when the oldest key's
// publication ends.
func (r keyRing) fullUntil(now time.Time) (until time.Time, full bool) {
	published := r.publishedAt(now)
	if len(published) < maxPublished {
		return time.Time{}, false
	}
	return published[1].ActiveFrom.Add(publishedAfterUse), true
}

// replaced returns a ring with key alone. If that is r's only key already, it returns r.
func (r keyRing) replaced(key signingKey, now time.Time) keyRing {
	if len(r) == 1 && r[0].ID == key.ID && r[0].PEM == key.PEM {
		return r
	}
	if len(r) > 0 {
		key.ActiveFrom = now.UTC().Round(0)
	}
	return keyRing{key}
}

// rotated returns the published keys with key as the next one.
func (r keyRing) rotated(key signingKey, now time.Time) keyRing {
	return append(slices.Clone(r.publishedAt(now)), key)
}
