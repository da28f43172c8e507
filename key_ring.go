package mcpoauth

import (
	"slices"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// The times of a rotation of plugin-made keys. A new key is published before it is
// used, because authorization servers keep the key set that they fetched; the old one
// stays published after, for assertions under way and servers that are slow to look.
const (
	jwksMaxAge           = 5 * time.Minute  // for how long a fetched key set may be kept
	jwksMaxAgeReplaced   = 10 * time.Second // the same while sets that were fetched before a replacement may be kept
	defaultActivateAfter = 10 * time.Minute
	maxActivateAfter     = 30 * 24 * time.Hour
	publishedAfterUse    = 24 * time.Hour
)

// maxPublished bounds the keys that rotations in a row keep published: each is part of the config's entry,
// and of a key set that authorization servers limit.
const maxPublished = 8

// defaultKeyType is the type of a key that the plugin makes unasked: every
// authorization server that knows private_key_jwt accepts RS256.
const defaultKeyType = grant.RSA2048

// keyTypes are the types of key that the plugin makes.
var keyTypes = []grant.KeyType{grant.RSA2048, grant.ECP256, grant.Ed25519}

// signingKey is a key of private_key_jwt (RFC 7523 section 2.2), as it is stored.
type signingKey struct {
	// ID is the key's id (kid).
	ID string `json:"id"`
	// PEM is the private key in PKCS#8.
	PEM string `json:"pem"`
	// ActiveFrom is when the key is first used; zero for a config's first key.
	ActiveFrom time.Time `json:"active_from,omitzero"`
}

// newSigningKey makes a key that never leaves the plugin.
func newSigningKey(kind grant.KeyType, activeFrom time.Time) (signingKey, error) {
	key, err := grant.GenerateKey(kind)
	if err != nil {
		return signingKey{}, err
	}
	return storedKey(key, activeFrom)
}

// storedKey is a key in the form in which it is stored.
func storedKey(key *grant.Key, activeFrom time.Time) (signingKey, error) {
	pem, err := key.PEM()
	if err != nil {
		return signingKey{}, err
	}
	return signingKey{ID: key.ID, PEM: pem, ActiveFrom: activeFrom}, nil
}

// keyRing is the signing keys of a config, in the order in which they become active.
type keyRing []signingKey

// activeAt is the index of the key to sign with; -1 if the ring is empty. It is the oldest if none is
// active yet: a clock that was set back must not leave the client without a key.
func (r keyRing) activeAt(now time.Time) int {
	for i := len(r) - 1; i > 0; i-- {
		if !r[i].ActiveFrom.After(now) {
			return i
		}
	}
	return min(0, len(r)-1)
}

// publishedAt are the keys to publish: the active one, the one to come, and those
// that went out of use not long ago.
func (r keyRing) publishedAt(now time.Time) keyRing {
	for i := range r {
		if i+1 == len(r) || now.Before(r[i+1].ActiveFrom.Add(publishedAfterUse)) {
			return r[i:]
		}
	}
	return nil
}

// pendingAt is the key that is published and not used yet; nil if there is none.
func (r keyRing) pendingAt(now time.Time) *signingKey {
	if last := len(r) - 1; last > r.activeAt(now) {
		return &r[last]
	}
	return nil
}

// fullUntil is when a key leaves the published ones, if these are too many for another rotation.
func (r keyRing) fullUntil(now time.Time) (until time.Time, full bool) {
	published := r.publishedAt(now)
	if len(published) < maxPublished {
		return time.Time{}, false
	}
	return published[1].ActiveFrom.Add(publishedAfterUse), true
}

// replaced is the ring of a key that takes the place of all at once. It is the ring as it was if that key
// is its only one.
func (r keyRing) replaced(key signingKey, now time.Time) keyRing {
	if len(r) == 1 && r[0].ID == key.ID && r[0].PEM == key.PEM {
		return r
	}
	if len(r) > 0 {
		key.ActiveFrom = now.UTC().Round(0)
	}
	return keyRing{key}
}

// rotated is the ring with a new key, used from then on; what is no longer published
// goes.
func (r keyRing) rotated(key signingKey, now time.Time) keyRing {
	return append(slices.Clone(r.publishedAt(now)), key)
}
