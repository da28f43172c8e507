package mcpoauth

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// keySets are the key sets of the configs that publish theirs, in memory: whoever asks
// for one is not authenticated, so it must cost no storage read.
type keySets struct {
	mu      sync.RWMutex // guards sets, writes and reloads
	sets    map[string][]publicKey
	writes  uint64            // counts the configs that were written
	reloads map[string]reload // of the servers whose set is to be loaded again

	// complete tells that every config has been looked at since the start.
	complete atomic.Bool
}

// update takes over what has been written for a server; nil for a config that is gone.
func (k *keySets) update(server string, c *config) error {
	keys, err := keysToPublish(c)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writes++
	k.set(server, keys)
	return nil
}

// load takes over what was read from storage, unless a config was written since the
// given count of writes: what was read may be older then.
func (k *keySets) load(server string, c *config, writes uint64) (loaded bool, err error) {
	keys, err := keysToPublish(c)
	if err != nil {
		return false, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.writes != writes {
		return false, nil
	}
	k.set(server, keys)
	return true, nil
}

// reload is when a load will do for a server's set that has to be loaded again.
type reload struct {
	writes uint64    // the least count of writes at its beginning
	from   time.Time // the earliest time of its beginning
}

// outdated notes that storage may hold something else than memory, of which update has not
// been told, and may change until the given time: what is being loaded is void, and the
// server's set is to be loaded again. It tells whether somebody has to start that: a reload
// under way goes on until it is done.
func (k *keySets) outdated(server string, until time.Time) (start bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writes++
	if k.reloads == nil {
		k.reloads = map[string]reload{}
	}
	_, underWay := k.reloads[server]
	k.reloads[server] = reload{writes: k.writes, from: until}
	return !underWay
}

// reloaded tells whether a load that began at the given time and count of writes was all
// that a server's set needed, and else in how long to load it again.
func (k *keySets) reloaded(server string, began time.Time, writes uint64) (done bool, again time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.reloads[server]
	if writes < r.writes || began.Before(r.from) {
		return false, time.Until(r.from)
	}
	delete(k.reloads, server)
	return true, 0
}

// written counts the writes.
func (k *keySets) written() uint64 {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.writes
}

// set replaces a server's set, by none where keys is nil. mu is held.
func (k *keySets) set(server string, keys []publicKey) {
	if keys == nil {
		delete(k.sets, server)
		return
	}
	if k.sets == nil {
		k.sets = map[string][]publicKey{}
	}
	k.sets[server] = keys
}

// at is the key set of a server; false where none is published.
func (k *keySets) at(server string, now time.Time) (jwkSet, bool) {
	k.mu.RLock()
	keys, ok := k.sets[server]
	k.mu.RUnlock()
	set := jwkSet{Keys: []json.RawMessage{}}
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
}

// publicKey is a key as it is published.
type publicKey struct {
	jwk   json.RawMessage // RFC 7517 section 4
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
		keys[i].jwk = set.Keys[0]
		if i+1 < len(published) {
			keys[i].until = published[i+1].ActiveFrom.Add(publishedAfterUse)
		}
	}
	return keys, nil
}

// keysToPublish are the public keys of a config that publishes them; nil otherwise.
func keysToPublish(c *config) ([]publicKey, error) {
	if c == nil || !c.PublishJWKS {
		return nil, nil
	}
	return c.publicKeys(time.Now())
}
