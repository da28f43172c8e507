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

// keySets are the key sets of the configs that publish theirs, in memory: the paths that answer
// with them are unauthenticated, so they must cost no storage read.
type keySets struct {
	mu   sync.RWMutex      // guards the maps
	sets map[string]keySet // by public id
	ids  map[string]string // the public ids, by server

	// loaded closes when every config has been looked at since the start.
	loaded   chan struct{}
	loadOnce sync.Once
}

// keySet is the public keys of a config, with what the documents that lead to them say.
type keySet struct {
	keys      []publicKey
	identity  identity
	publicURL string // of the mount, for an identity
}

func newKeySets() *keySets {
	return &keySets{sets: map[string]keySet{}, ids: map[string]string{}, loaded: make(chan struct{})}
}

// lookedAtAll notes that every config has been looked at since the start.
func (k *keySets) lookedAtAll() { k.loadOnce.Do(func() { close(k.loaded) }) }

// update takes over the config that storage holds for a server; nil for none. The server's write
// lock is held, so no other update comes between.
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

// identitiesElsewhere returns the servers whose configs have an identity at another URL of the mount, sorted.
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

// keySetWait is how long a request waits for the mount to look at all configs after its start, so that
// an authorization server is not told that a key does not exist.
const keySetWait = 5 * time.Second

// await returns the key set of a public id whose config has one of the identities; false if there is none.
func (k *keySets) await(ctx context.Context, id string, of []identity) (keySet, bool) {
	set, ok := k.of(id, of)
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
	return k.of(id, of)
}

// of is await without the wait.
func (k *keySets) of(id string, of []identity) (keySet, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	set, ok := k.sets[id]
	return set, ok && slices.Contains(of, set.identity)
}

// at returns the keys that are published at a time.
func (s keySet) at(now time.Time) []publicKey {
	return slices.DeleteFunc(slices.Clone(s.keys), func(key publicKey) bool {
		return !key.until.IsZero() && !now.Before(key.until)
	})
}

// maxAge is for how long the set may be kept. The oldest key of a ring that was rotated became active long ago.
// One that became active just now has replaced the others, and the operator may replace it again.
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
	alg   string    // that it signs with
	from  time.Time // the beginning of its use; zero for a config's first key
	until time.Time // the end of its publication; zero: until further notice
}

// publicKeys are the keys of a config to publish, now and later.
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
