package mcpoauth

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

const keySetLoaders = 8 // configs that are looked at at a time at the start

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
