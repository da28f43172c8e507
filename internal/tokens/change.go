package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Change is a write to a config or a role.
type Change struct {
	// Write does the write, under the name's write lock. If the configuration has changed since it was read, it
	// writes nothing and returns ErrConflict.
	Write func(context.Context) error
	// Terms returns the terms after Write has succeeded, for the name and, if that is a server, for its roles.
	// For the name itself it needs no storage, and it never reads the written entry again.
	Terms func(context.Context, Name) (*Terms, error)
	// Token is the answer that verified the change. It is saved and published with the change; nil if the change
	// was not verified.
	Token *grant.Token
	// Refresh requests a background refresh of the tokens that stay in service, since they were obtained with
	// other credentials.
	Refresh bool
}

// Change does a write and applies the new terms to the name and, if it is a server, to its roles: it drops tokens
// of another shape, and voids fetches on the old terms. After Change has returned, readers never get a token of the
// old terms.
//
// The error is Write's own, or ctx's if ctx ended before the write began. A write that has begun does not end with
// ctx: a client that hangs up must not leave half of it.
func (e *Engine) Change(ctx context.Context, name Name, c Change) error {
	unlock, err := e.lock(ctx, name.Server)
	if err != nil {
		return fmt.Errorf("nothing was written: the request ended before its turn came to write %q: %w", name, err)
	}
	defer unlock()
	err = c.Write(e.ctx)
	if errors.Is(err, ErrConflict) {
		return err
	}
	if err != nil {
		e.writeFailed(name.Server)
		return err
	}
	if c.Token != nil {
		e.ensureSlot(name)
	}
	if terms, err := c.Terms(e.ctx, name); err == nil {
		e.resetClient(terms.Client)
	}
	var storageErr error // once it is set, terms are not read again: each failed read takes long
	var stale []*slot
	for _, s := range e.affected(name) {
		var isStale bool
		if isStale, storageErr = s.change(name, c, storageErr); isStale {
			stale = append(stale, s)
		}
	}
	e.deleteStored(stale)
	return nil
}

// resetClient forgets the failure of a client whose configuration was written. It is called before the new terms are
// applied: requests on them may fail while they are applied to one name after the other, and that failure stays.
func (e *Engine) resetClient(key string) {
	c, release := e.clients.use(key)
	defer release()
	c.reset(time.Now())
}

// writeFailed reads the terms of a server after a failed write: storage may hold the old state or, now or up to
// LateCommit later, the new state or a part of it. Held tokens serve until storage answers. The write lock is held.
func (e *Engine) writeFailed(server string) {
	reread := func(ctx context.Context) error {
		for _, s := range e.affected(Name{Server: server}) {
			if err := s.reread(ctx); err != nil && !errors.Is(err, ErrNotConfigured) {
				return err
			}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(e.ctx, slowSave)
	defer cancel()
	_ = reread(ctx) // if storage answers at once, readers see the new terms at once
	e.RetryAfterFailedWrite(retryKey{rereadTerms, Name{Server: server}}, "terms could not be read after a write that failed", reread)
}

// ensureSlot makes a slot for the name's token if it has none. It also voids a flight which would drop the slot, since
// the name was not configured before the write.
func (e *Engine) ensureSlot(name Name) {
	for {
		s := e.slot(name)
		s.mu.Lock()
		s.supersede() // flights of an older revision no longer drop it
		gone := s.gone
		s.mu.Unlock()
		if !gone {
			return
		}
	}
}

// change applies a successful change of name to the slot. If storageErr is set, storage failed before and is not read;
// it is returned, or the first error. stale reports whether storage may keep a token of another shape. The write lock is
// held.
func (s *slot) change(name Name, c Change, storageErr error) (stale bool, _ error) {
	s.mu.Lock()
	inLine := s.turn.Load() != nil
	s.supersede()
	revision := s.revision
	s.mu.Unlock()

	own := s.name == name
	o := outcome{err: storageErr}
	if storageErr == nil || own {
		o.terms, o.err = c.Terms(s.engine.ctx, s.name)
	}
	if own && c.Token != nil && o.err == nil {
		o.token = newToken(c.Token, o.terms)
		o = s.saved(o)
	}
	stale = s.applyChange(c, o, revision, inLine)
	if storageErr == nil && !errors.Is(o.err, ErrNotConfigured) {
		return stale, o.err
	}
	return stale, storageErr
}

// applyChange applies the terms after a write, or the error in reading them, to the slot. inLine reports whether the
// write took a refresh out of line. stale reports whether storage may keep a token of another shape.
func (s *slot) applyChange(c Change, o outcome, revision uint64, inLine bool) (stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.revision != revision {
		return false // an invalidation, which takes no write lock, came later
	}
	s.failed.Store(nil)
	t := s.held.Load()
	idle := s.view(now, t, false).leftToExpire()
	stale = o.err == nil && t != nil && t.Shape != o.terms.Shape && o.token == nil
	if s.loaded || o.token != nil || o.err != nil { // else the next flight loads the token and applies the terms
		if err := s.apply(o, now); err != nil && !errors.Is(err, ErrNotConfigured) {
			// The token may be invalid now. Its next reader loads it.
			s.engine.log.Error("terms could not be read after a write", "name", s.name.String(), "error", err)
			s.hold(nil)
			s.loaded = false
		}
	}
	switch {
	case o.token != nil:
		s.touch(now) // as loading does
	case c.Refresh:
		s.renew(now)
	case c.Token != nil && stale && !idle && s.flight.Load() == nil:
		// The new terms are verified for the changed name: fetch now, so that this name's next reader need not
		// wait.
		s.refresh(false)
	}
	if inLine && o.token == nil && s.flight.Load() == nil && !s.gone {
		s.refresh(false) // an earlier write may have asked for it
	}
	s.advance(now)
	return stale
}

// tidyMost is how long a write deletes stored tokens of older shapes. A config may have thousands of roles, and
// Vault's seal and step-down wait for requests.
const tidyMost = 5 * time.Second

// deleteStored deletes the stored tokens of slots, for at most tidyMost. The others stay, and their shape prevents
// their use. The write lock is held.
func (e *Engine) deleteStored(slots []*slot) {
	ctx, cancel := context.WithTimeout(e.ctx, tidyMost)
	defer cancel()
	for i, s := range slots {
		err := e.store.Delete(ctx, s.name)
		if ctx.Err() != nil {
			e.log.Warn("deleting stored tokens of older settings takes too long: the rest stay, unused", "tokens", len(slots)-i)
			return
		}
		if err != nil {
			e.log.Warn("stored token could not be deleted", "name", s.name.String(), "error", err)
		}
	}
}
