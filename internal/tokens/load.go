package tokens

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// loaders is how many stored tokens are loaded concurrently at the start.
const loaders = 8

// LoadAll loads the stored tokens and sets their timers, in the background. A read meanwhile loads its token at once.
func (e *Engine) LoadAll() {
	e.Retry(retryKey{what: listTokens}, time.Now(), "stored tokens could not be listed", func(ctx context.Context) error {
		names, err := e.store.Names(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			e.slot(name) // so that a change of credentials during the load reaches it
		}
		e.spawn(func() { e.loadEach(names) })
		return nil
	})
}

// loadEach loads names, a few at a time. An error may be permanent for one name, so each name is retried by itself.
func (e *Engine) loadEach(names []Name) {
	var group errgroup.Group
	group.SetLimit(loaders)
	for _, name := range names {
		group.Go(func() error {
			if e.ctx.Err() == nil && e.load(e.ctx, name) != nil {
				e.retryLoad(name, time.Now().Add(storageRetry(1)))
			}
			return nil
		})
	}
	_ = group.Wait()
}

// retryLoad loads a name in the background.
func (e *Engine) retryLoad(name Name, at time.Time) {
	e.Retry(retryKey{loadToken, name}, at, "stored token could not be loaded", func(ctx context.Context) error {
		return e.load(ctx, name)
	})
}

// load loads the stored token of a name, or deletes it if its config is gone.
func (e *Engine) load(ctx context.Context, name Name) error {
	err := e.slot(name).reread(ctx)
	if errors.Is(err, ErrNotConfigured) {
		return e.dropOrphan(ctx, name)
	}
	return err
}

// dropOrphan deletes a stored token whose config or role is gone, after a crash during a delete or a delete on another
// node.
func (e *Engine) dropOrphan(ctx context.Context, name Name) error {
	if e.passive() {
		return nil
	}
	return e.Locked(ctx, name.Server, func(ctx context.Context) error {
		if _, err := e.store.Terms(ctx, name); !errors.Is(err, ErrNotConfigured) {
			return err
		}
		return e.store.Delete(ctx, name)
	})
}

// Invalidate drops the held token and failure of a name, since another node has changed its stored state. If the name
// is a server, it does so for all roles too. It loads the stored state in the background.
func (e *Engine) Invalidate(name Name) {
	for _, s := range e.affected(name) {
		e.reload(s)
	}
}

// InvalidateToken is Invalidate for a change of only the name's token.
func (e *Engine) InvalidateToken(name Name) {
	if s := e.peek(name); s != nil {
		e.reload(s)
	}
}

func (e *Engine) reload(s *slot) {
	if s.forget() {
		e.retryLoad(s.name, time.Now())
	}
}

// forget empties the slot, so that storage is read next. It reports whether to load the slot now: an unloaded slot is
// being loaded already, or its next reader loads it.
func (s *slot) forget() (load bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	load = s.loaded
	s.supersede()
	s.hold(nil)
	s.failed.Store(nil)
	s.loaded = false
	s.stopTimer()
	return load
}

// reread reads the slot's terms from storage, and its token if it is not loaded, and applies them.
func (s *slot) reread(ctx context.Context) error {
	for {
		s.mu.Lock()
		load, revision := !s.loaded, s.revision
		s.mu.Unlock()
		o := s.look(ctx, load)
		if done, err := s.applyReread(o, revision); done {
			return err
		}
	}
}

// applyReread applies the outcome of reread. done is false if the terms have changed meanwhile.
func (s *slot) applyReread(o outcome, revision uint64) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revision != revision {
		return false, nil
	}
	now := time.Now()
	if err := s.apply(o, now); err != nil {
		return true, err
	}
	s.advance(now)
	return true, nil
}
