package mcpoauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// The times of a rotation of plugin-made keys. A new key is published before it is
// used, because authorization servers keep the key set that they fetched; the old one
// stays published after, for assertions under way and servers that are slow to look.
const (
	jwksMaxAge           = 5 * time.Minute // for how long a fetched key set may be kept
	defaultActivateAfter = 10 * time.Minute
	maxActivateAfter     = 30 * 24 * time.Hour
	publishedAfterUse    = 24 * time.Hour
	keySetLoaders        = 8 // configs that are looked at at a time at the start
)

// defaultKeyType is the type of a key that the plugin makes unasked: every
// authorization server that knows private_key_jwt accepts RS256.
const defaultKeyType = grant.RSA2048

// signingKey is a key of private_key_jwt (RFC 7523 section 2.2), as it is stored.
type signingKey struct {
	// ID is the key's id (kid).
	ID string `json:"id"`
	// PEM is the private key in PKCS#8.
	PEM string `json:"pem"`
	// ActiveFrom is when the key is first used; zero for the first key.
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

// activeAt is the index of the key to sign with; -1 where there is no key.
func (r keyRing) activeAt(now time.Time) int {
	for i := len(r) - 1; i >= 0; i-- {
		if !r[i].ActiveFrom.After(now) {
			return i
		}
	}
	return -1
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

// pendingAt is the key that is published and not used yet; nil where there is none.
func (r keyRing) pendingAt(now time.Time) *signingKey {
	if last := len(r) - 1; last >= 0 && r[last].ActiveFrom.After(now) {
		return &r[last]
	}
	return nil
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

// jwkSet is the form of a JWK Set (RFC 7517 section 5).
type jwkSet struct {
	Keys []json.RawMessage `json:"keys"`
}

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

// keysToPublish are the public keys of a config that publishes them; nil otherwise.
func keysToPublish(c *config) ([]publicKey, error) {
	if c == nil || !c.PublishJWKS {
		return nil, nil
	}
	return c.publicKeys(time.Now())
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

// putConfig stores a config, and publishes its keys where it says so.
func (b *backend) putConfig(ctx context.Context, server string, c *config) error {
	if err := b.store.putConfig(ctx, server, c); err != nil {
		// The config may be stored all the same.
		b.reloadKeySet(server, time.Now().Add(tokens.LateCommit))
		return err
	}
	return b.keySets.update(server, c)
}

// loadKeySets brings the key sets of all configs that publish theirs into memory. From
// then on memory is all there is to ask.
func (b *backend) loadKeySets(ctx context.Context) {
	b.keySets.complete.Store(b.untilLoaded(ctx, b.loadAllKeySets))
}

// reloadKeySet brings the key set of a server in line with storage, which may change until
// the given time. It does so in the background: the caller holds the server's write lock, or
// must not wait either. However often it is called while storage does not answer, one
// goroutine asks.
func (b *backend) reloadKeySet(server string, until time.Time) {
	if !b.keySets.outdated(server, until) {
		return
	}
	b.engine.Go(func(ctx context.Context) {
		load := func(ctx context.Context) error { return b.loadKeySet(ctx, server) }
		for {
			began, writes := time.Now(), b.keySets.written()
			if !b.untilLoaded(ctx, load) {
				return
			}
			done, again := b.keySets.reloaded(server, began, writes)
			if done {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(again):
			}
		}
	})
}

// untilLoaded loads published keys until storage gives them; false when the engine is
// closed first.
func (b *backend) untilLoaded(ctx context.Context, load func(context.Context) error) bool {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := load(ctx)
		if err == nil || ctx.Err() != nil {
			return err == nil
		}
		b.Logger().Warn("published keys could not be loaded", "error", err, "next_attempt_in", wait.String())
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

func (b *backend) loadAllKeySets(ctx context.Context) error {
	servers, err := b.store.servers(ctx)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(keySetLoaders)
	for _, server := range servers {
		group.Go(func() error { return b.loadKeySet(ctx, server) })
	}
	return group.Wait()
}

// loadKeySet brings the key set of a server in line with storage. A config or a key that
// cannot be read changes nothing until it is written again: one such must not open storage
// to everybody who asks for names at random.
func (b *backend) loadKeySet(ctx context.Context, server string) error {
	for {
		writes := b.keySets.written()
		c, err := b.store.config(ctx, server)
		switch {
		case errors.Is(err, errUnreadable):
			return nil
		case err != nil:
			return err
		}
		loaded, err := b.keySets.load(server, c, writes)
		if err != nil {
			b.Logger().Warn("a key cannot be read, and so the key set is not published", "server", server, "error", err)
			return nil
		}
		if loaded {
			return nil
		}
	}
}

// rotated is the ring with a new key, used from then on; what is no longer published
// goes.
func (r keyRing) rotated(key signingKey, now time.Time) keyRing {
	return append(slices.Clone(r.publishedAt(now)), key)
}
