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
	// Write does the write, under the name's write lock. It returns ErrConflict,
	// having written nothing, when what the change was built on has changed.
	Write func(context.Context) error
	// Terms returns what Store.Terms would once Write has succeeded, for the name and, if
	// that is a server, for its roles: without reading again what Write wrote, and for the
	// name itself without storage. If it is nil, Store.Terms is asked.
	Terms func(context.Context, Name) (*Terms, error)
	// Token is the answer that verified the change, to be saved and published with
	// it; nil when nothing was fetched.
	Token *grant.Token
	// Refresh asks for the tokens that stay in service to be refreshed in the
	// background, because they were obtained with other credentials.
	Refresh bool
}

// Change carries out a write and brings what is held for the name, and for all its
// roles when it is a server, in line: a token whose shape is no longer that of its
// terms is dropped, and what was being fetched on the old terms is thrown away. When
// Change has returned, no reader gets a token of the old terms.
//
// The error is Write's own, or that of ctx when it ended before the write began.
// Once begun, the write does not end with ctx: a client that hangs up must not leave
// half of it.
func (e *Engine) Change(ctx context.Context, name Name, c Change) error {
	unlock, err := e.lock(ctx, name.Server)
	if err != nil {
		return fmt.Errorf("nothing was written: the request ended before its turn came to write %q: %w", name, err)
	}
	defer unlock()
	err = c.Write(e.ctx)
	if errors.Is(err, ErrConflict) {
		return err // nothing was written
	}
	if err != nil {
		e.writeFailed(name.Server)
		return err
	}
	if c.Token != nil {
		e.ensureSlot(name)
	}
	written := time.Now()
	var storageErr error // reading again for each name would take long
	var stale []*slot
	for _, s := range e.affected(name) {
		var isStale bool
		if isStale, storageErr = s.change(name, c, written, storageErr); isStale {
			stale = append(stale, s)
		}
	}
	e.deleteStored(stale)
	return nil
}

// writeFailed looks at what a write of a server that failed has left: storage may hold the old
// state or, now or later up to LateCommit, the new one or some of it. What is held goes on
// serving until storage answers. The write lock is held.
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
	_ = reread(ctx) // if storage answers at once, so do the slots
	e.RetryAfterFailedWrite(retryKey{rereadTerms, Name{Server: server}}, "terms could not be read after a write that failed", reread)
}

// ensureSlot makes sure that there is a slot to hold the name's token, though no caller has
// read it: also if a flight has just seen that the name is not configured, as it was before
// the write.
func (e *Engine) ensureSlot(name Name) {
	for {
		s := e.slot(name)
		s.mu.Lock()
		s.supersede() // no flight drops it now: what it saw is of an older revision
		gone := s.gone
		s.mu.Unlock()
		if !gone {
			return
		}
	}
}

// change brings the slot in line with a change of name that succeeded at the time written.
// storageErr is why storage cannot be read, if that is known, and is returned. It reports whether
// storage may keep a token of another shape. The write lock is held.
func (s *slot) change(name Name, c Change, written time.Time, storageErr error) (stale bool, _ error) {
	s.mu.Lock()
	s.supersede()
	revision := s.revision
	s.mu.Unlock()

	own := s.name == name
	o := outcome{err: storageErr}
	switch {
	case c.Terms != nil && (own || storageErr == nil):
		o.terms, o.err = c.Terms(s.engine.ctx, s.name)
	case storageErr == nil:
		o.terms, o.err = s.engine.store.Terms(s.engine.ctx, s.name)
	}
	if own && c.Token != nil && o.err == nil {
		o.token = newToken(c.Token, o.terms)
		o = s.saved(o)
	}
	stale = s.applyChange(c, o, written, revision)
	if storageErr == nil && !errors.Is(o.err, ErrNotConfigured) {
		return stale, o.err
	}
	return stale, storageErr
}

// applyChange brings the slot in line with the terms after a write, or with the error in
// reading them. It reports whether storage may keep a token of another shape.
func (s *slot) applyChange(c Change, o outcome, written time.Time, revision uint64) (stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.revision != revision {
		return false // an invalidation, which takes no write lock, came later
	}
	if o.err == nil {
		s.engine.resetClient(o.terms.Client, written, now)
	}
	s.failed.Store(nil)
	t := s.held.Load()
	idle := s.view(now, t, false).leftToExpire()
	stale = o.err == nil && t != nil && t.Shape != o.terms.Shape && o.token == nil
	if s.loaded || o.token != nil || o.err != nil { // else the next flight loads it, and applies the terms
		if err := s.apply(o, now); err != nil && !errors.Is(err, ErrNotConfigured) {
			// Whether the token is still one is not known. Its next reader looks.
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
		// The new terms work for the name that was changed: spare this one's next
		// reader the wait.
		s.refresh(false)
	}
	s.advance(now)
	return stale
}

// resetClient forgets the failure of a client whose configuration was written.
func (e *Engine) resetClient(key string, written, now time.Time) {
	c, release := e.clients.use(key)
	defer release()
	c.reset(written, now)
}

// tidyMost is how long a write deletes stored tokens of older shapes. A config may have thousands of
// roles, and Vault's seal and step-down wait for the requests under way.
const tidyMost = 5 * time.Second

// deleteStored deletes the stored tokens of slots while there is time. The shape of one that stays
// keeps it from being used. The write lock is held.
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
