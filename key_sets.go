package mcpoauth

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// keySets holds the published key sets in memory: the paths that return them are unauthenticated, so they must not
// cause storage reads.
type keySets struct {
	mu   sync.RWMutex      // guards the maps
	sets map[string]keySet // by public id
	ids  map[string]string // public ids by server

	// loaded closes when every config has been read since the start.
	loaded   chan struct{}
	loadOnce sync.Once
}

// keySet holds a config's public keys, and the identity and URL for the documents that lead to them.
type keySet struct {
	keys      []publicKey
	identity  identity
	publicURL string // the mount's, for an identity
}

func newKeySets() *keySets {
	return &keySets{sets: map[string]keySet{}, ids: map[string]string{}, loaded: make(chan struct{})}
}

// markLoaded records that every config has been read since the start.
func (k *keySets) markLoaded() { k.loadOnce.Do(func() { close(k.loaded) }) }

// update replaces a server's key set by that of c, the stored config; nil if it was deleted. The caller holds the
// server's write lock, so updates keep the order of writes.
func (k *keySets) update(server string, c *config) error {
	id := c.publicID(server)
	var set keySet
	if id != "" {
		keys, err := c.publicKeys(time.Now())
		if err != nil {
			return err
		}
		set = keySet{keys: keys, identity: c.Identity, publicURL: c.PublicURL}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.sets, k.ids[server])
	delete(k.ids, server)
	if id != "" {
		k.sets[id], k.ids[server] = set, id
	}
	return nil
}

// identitiesElsewhere returns the servers with an identity at another URL of the mount, sorted.
func (k *keySets) identitiesElsewhere(publicURL string) []string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var servers []string
	for server, id := range k.ids {
		if set := k.sets[id]; set.identity != identityStatic && set.publicURL != publicURL {
			servers = append(servers, server)
		}
	}
	slices.Sort(servers)
	return servers
}

// keySetWait bounds how long a request waits, after the mount's start, until all configs have been read. A 404 before
// that could deny an existing key.
const keySetWait = 5 * time.Second

// await returns the key set of a public id if its config has one of the identities.
func (k *keySets) await(ctx context.Context, id string, identities []identity) (keySet, bool) {
	set, ok := k.of(id, identities)
	if ok {
		return set, true
	}
	timer := time.NewTimer(keySetWait)
	defer timer.Stop()
	select {
	case <-k.loaded:
	case <-timer.C:
	case <-ctx.Done():
	}
	return k.of(id, identities)
}

// of is await without the wait.
func (k *keySets) of(id string, identities []identity) (keySet, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	set, ok := k.sets[id]
	return set, ok && slices.Contains(identities, set.identity)
}

// at returns the keys that are published at now.
func (s keySet) at(now time.Time) []publicKey {
	return slices.DeleteFunc(slices.Clone(s.keys), func(key publicKey) bool {
		return !key.until.IsZero() && !now.Before(key.until)
	})
}

// maxAge returns the lifetime of the set in caches. If the oldest key became active just now it has replaced the
// others, and the operator may replace it again soon; after a rotation the oldest has been active for long.
func (s keySet) maxAge(now time.Time) time.Duration {
	if len(s.keys) > 0 && !s.keys[0].from.IsZero() && now.Sub(s.keys[0].from) < jwksMaxAge {
		return jwksMaxAgeReplaced
	}
	return jwksMaxAge
}

// jwkSet is the form of a JWK Set (RFC 7517 section 5).
type jwkSet struct {
	Keys []rawJWK `json:"keys"`
}

// rawJWK is a JWK (RFC 7517 section 4) in its encoded form.
type rawJWK = json.RawMessage

// publicKey is a key as it is published.
type publicKey struct {
	jwk   rawJWK
	alg   string    // its signing algorithm
	from  time.Time // when its use begins; zero for a config's first key
	until time.Time // when its publication ends; zero: not yet known
}

// publicKeys returns the config's keys to publish now or later.
func (c *config) publicKeys(now time.Time) ([]publicKey, error) {
	published := c.Keys.publishedAt(now)
	keys := make([]publicKey, len(published))
	for i, stored := range published {
		key, err := c.key(stored)
		if err != nil {
			return nil, err
		}
		data, err := grant.PublicJWKS(key)
		if err != nil {
			return nil, err
		}
		var set jwkSet
		if err := json.Unmarshal(data, &set); err != nil {
			return nil, fmt.Errorf("encoding a public key: %w", err)
		}
		keys[i] = publicKey{jwk: set.Keys[0], alg: key.Alg, from: stored.ActiveFrom}
		if i+1 < len(published) {
			keys[i].until = published[i+1].ActiveFrom.Add(publishedAfterUse)
		}
	}
	return keys, nil
}
