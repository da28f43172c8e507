package mcpoauth

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// keySetLoaders is how many configs are looked at at a time at the start.
const keySetLoaders = 8

// keySetTask is a key of tokens.Engine.Retry: a key set must be made to match storage.
type keySetTask struct {
	server string // empty: those of all servers are to be loaded
}

// putConfig stores a config, and publishes its keys if it says so. The server's write lock is held.
func (b *backend) putConfig(ctx context.Context, server string, c *config) error {
	if err := b.store.putConfig(ctx, server, c); err != nil {
		b.reloadKeySetAfterFailure(server)
		return err
	}
	return b.keySets.update(server, c)
}

// loadKeySets brings the key sets of all configs that publish theirs into memory, which is all that
// the unauthenticated path looks at.
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
			b.keySets.lookedAtAll()
		})
		return nil
	})
}

// reloadKeySet brings the key set of a server in line with storage, in the background.
func (b *backend) reloadKeySet(server string) {
	b.engine.Retry(keySetTask{server}, time.Now(), keySetComplaint, func(ctx context.Context) error {
		return b.loadKeySet(ctx, server)
	})
}

// reloadKeySetAfterFailure does so after a write that failed.
func (b *backend) reloadKeySetAfterFailure(server string) {
	b.engine.RetryAfterFailedWrite(keySetTask{server}, keySetComplaint, func(ctx context.Context) error {
		return b.loadKeySet(ctx, server)
	})
}

const keySetComplaint = "published keys could not be loaded"

// loadKeySet brings the key set of a server in line with storage, while no config of it is written. A
// config or a key of which no part can be read is left until it is written again.
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
