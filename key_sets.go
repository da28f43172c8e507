package mcpoauth

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// keySets are the key sets of the configs that publish theirs, in memory: the path that answers
// with them is unauthenticated, so it must cost no storage read.
type keySets struct {
	mu   sync.RWMutex           // guards the maps
	sets map[string][]publicKey // by public id
	ids  map[string]string      // the public ids, by server

	// loaded closes when every config has been looked at since the start.
	loaded   chan struct{}
	loadOnce sync.Once
}

func newKeySets() *keySets {
	return &keySets{sets: map[string][]publicKey{}, ids: map[string]string{}, loaded: make(chan struct{})}
}

// lookedAtAll notes that every config has been looked at since the start.
func (k *keySets) lookedAtAll() { k.loadOnce.Do(func() { close(k.loaded) }) }

// update takes over the config that storage holds for a server; nil for none. The server's write
// lock is held, so no other update comes between.
func (k *keySets) update(server string, c *config) error {
	keys, err := keysToPublish(c)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.sets, k.ids[server])
	delete(k.ids, server)
	if id := c.publicID(server); id != "" {
		k.sets[id], k.ids[server] = keys, id
	}
	return nil
}

// keySetWait is how long a request waits for the mount to look at all configs after its start, so that
// an authorization server is not told that a key does not exist.
const keySetWait = 5 * time.Second

// await returns the key set of a public id; false if none is published.
func (k *keySets) await(ctx context.Context, id string) (jwkSet, bool) {
	set, ok := k.at(id, time.Now())
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
	return k.at(id, time.Now())
}

// at is the key set of a public id in memory; false if there is none.
func (k *keySets) at(id string, now time.Time) (jwkSet, bool) {
	k.mu.RLock()
	keys, ok := k.sets[id]
	k.mu.RUnlock()
	set := jwkSet{Keys: []json.RawMessage{}, maxAge: jwksMaxAge}
	// The oldest key of a ring that was rotated became active long ago. One that became active just now has
	// replaced the others, and the operator may replace it again.
	if len(keys) > 0 && !keys[0].from.IsZero() && now.Sub(keys[0].from) < jwksMaxAge {
		set.maxAge = jwksMaxAgeReplaced
	}
	for _, key := range keys {
		if key.until.IsZero() || now.Before(key.until) {
			set.Keys = append(set.Keys, key.jwk)
		}
	}
	return set, ok
}

// jwkSet is the form of a JWK Set (RFC 7517 section 5).
type jwkSet struct {
	Keys []json.RawMessage `json:"keys"`

	maxAge time.Duration // for how long the set may be kept
}

// publicKey is a key as it is published.
type publicKey struct {
	jwk   json.RawMessage // RFC 7517 section 4
	from  time.Time       // the beginning of its use; zero for a config's first key
	until time.Time       // the end of its publication; zero: until further notice
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
		keys[i].jwk, keys[i].from = set.Keys[0], stored.ActiveFrom
		if i+1 < len(published) {
			keys[i].until = published[i+1].ActiveFrom.Add(publishedAfterUse)
		}
	}
	return keys, nil
}

// keysToPublish are the public keys of a config that publishes them; nil otherwise.
func keysToPublish(c *config) ([]publicKey, error) {
	if !c.publishes() {
		return nil, nil
	}
	return c.publicKeys(time.Now())
}
