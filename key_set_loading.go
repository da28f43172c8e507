package mcpoauth

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// keySetLoaders is the number of configs loaded at a time at the start.
const keySetLoaders = 8

// keySetTask identifies a retry of tokens.Engine that brings a key set in line with storage.
type keySetTask struct {
	server string // empty: all servers
}

// putConfig stores a config and updates its published keys. The caller holds the server's write lock.
func (b *backend) putConfig(ctx context.Context, server string, c *config) error {
	if err := b.store.putConfig(ctx, server, c); err != nil {
		b.reloadKeySetAfterFailure(server)
		return err
	}
	return b.keySets.update(server, c)
}

// loadKeySets loads the published key sets of all configs in the background. The unauthenticated paths read memory
// only.
func (b *backend) loadKeySets() {
	b.engine.Retry(keySetTask{}, time.Now(), "published keys could not be listed", func(ctx context.Context) error {
		servers, err := b.store.servers(ctx)
		if err != nil {
			return err
		}
		b.engine.Go(func(ctx context.Context) {
			var group errgroup.Group
			group.SetLimit(keySetLoaders)
			for _, server := range servers {
				group.Go(func() error {
					if ctx.Err() == nil && b.loadKeySet(ctx, server) != nil {
						b.reloadKeySet(server)
					}
					return nil
				})
			}
			_ = group.Wait()
			b.keySets.markLoaded()
		})
		return nil
	})
}

// reloadKeySet brings a server's key set in line with storage, in the background.
func (b *backend) reloadKeySet(server string) {
	b.engine.Retry(keySetTask{server}, time.Now(), keySetComplaint, func(ctx context.Context) error {
		return b.loadKeySet(ctx, server)
	})
}

// reloadKeySetAfterFailure is reloadKeySet after a failed write, which may still take effect later.
func (b *backend) reloadKeySetAfterFailure(server string) {
	b.engine.RetryAfterFailedWrite(keySetTask{server}, keySetComplaint, func(ctx context.Context) error {
		return b.loadKeySet(ctx, server)
	})
}

const keySetComplaint = "published keys could not be loaded"

// loadKeySet brings a server's key set in line with storage under the server's write lock. An unreadable config or
// key is skipped until it is written again.
func (b *backend) loadKeySet(ctx context.Context, server string) error {
	return b.engine.Locked(ctx, server, func(ctx context.Context) error {
		c, err := b.store.config(ctx, server)
		switch {
		case errors.Is(err, errUnreadable):
			return nil
		case err != nil:
			return err
		}
		if err := b.keySets.update(server, c); err != nil {
			b.Logger().Warn("a key cannot be read, and so the key set is not published", "server", server, "error", err)
		}
		return nil
	})
}
