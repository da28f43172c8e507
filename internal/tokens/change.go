package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// LateCommit is for how long a write that failed may still take effect: storage that ran out
// of time may be waiting for other nodes yet. Vault's raft does; but a leader that does not
// reach them steps down within a few seconds, and then another node's mount is at work.
const LateCommit = 15 * time.Second

// Change is a write to a config or a role.
type Change struct {
	// Write does the write, under the name's write lock. It returns ErrConflict,
	// having written nothing, when what the change was built on has changed.
	Write func(context.Context) error
	// Terms gives what Store.Terms would once Write has succeeded, for the name and, where
	// that is a server, for its roles: without reading again what Write wrote, and for the
	// name itself without storage. Where it is nil, Store.Terms is asked.
	Terms func(context.Context, Name) (*Terms, error)
	// Token is the answer that verified the change, to be saved and published with
	// it; nil when nothing was fetched.
	Token *grant.Token
	// Refresh asks for the tokens that stay in service to be refreshed in the
	// background, because they were obtained with other credentials.
	Refresh bool

	// unsure is not zero when Write has failed: storage may hold the old state or, now or
	// later up to this time, the new one or some of it.
	unsure time.Time
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
	if err == nil {
		defer unlock()
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("nothing was written: the request ended before its turn came to write %q: %w", name, err)
	}
	writeErr := c.Write(e.ctx)
	if errors.Is(writeErr, ErrConflict) {
		return writeErr // nothing was written
	}
	if writeErr != nil {
		c = Change{unsure: e.doubt(name.Server)}
	}
	if c.Token != nil {
		e.claim(name)
	}
	var away error // why storage cannot be read; asking it again for each name would take long
	for _, s := range e.affected(name) {
		away = s.revise(name, c, away)
	}
	return writeErr
}

// claim makes sure that there is a slot to hold the name's token, though nobody has read it: also where a
// flight has just seen that the name is not configured, as it was before the write.
func (e *Engine) claim(name Name) {
	for {
		s := e.slot(name)
		s.mu.Lock()
		gone := s.gone
		if !gone {
			s.supersede() // no flight drops it now: what it saw is of an older revision
		}
		s.mu.Unlock()
		if !gone {
			return
		}
	}
}

// revise brings the slot in line with a change of name. away is why storage cannot be
// read, where that is known already, and is given back. The write lock is held.
func (s *slot) revise(name Name, c Change, away error) error {
	s.mu.Lock()
	s.supersede()
	revision := s.revision
	s.mu.Unlock()

	own := s.name == name
	ask, known := c.Terms, own && c.Terms != nil
	if ask == nil {
		ask = s.engine.store.Terms
	}
	var terms *Terms
	err := away
	if away == nil || known {
		terms, err = ask(s.engine.ctx, s.name)
	}
	stale := s.conform(terms, err, c.unsure)
	if stale {
		s.deleteStored()
	}
	if err != nil {
		if errors.Is(err, ErrNotConfigured) {
			return away
		}
		return err
	}
	verified := own && c.Token != nil
	if verified {
		s.publish(newToken(c.Token, terms), terms, revision)
		s.touch(time.Now()) // as loading does
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch t := s.held.Load(); {
	case s.gone:
	case s.flight.Load() != nil || !s.loaded:
		// A flight looks again by itself, and so does the next one.
		s.renew = s.renew || c.Refresh && !verified
	case c.Refresh && !verified && t.ValidAt(now) && !s.idle:
		s.renew = true             // until there was an attempt: storage may be away
		_ = s.launch(t.ID(), true) // fails only when the engine is closing
	case c.Token != nil && !verified && stale && !s.idle:
		// The new terms work for the name that was changed: spare this one's next
		// reader the wait.
		_ = s.launch("", true)
	default:
		s.schedule(now)
	}
	return away
}

// conform applies the terms, or the error in reading them, to what is held; unsure is not
// zero after a write that failed. It reports whether storage may keep a token that is not
// one any more.
func (s *slot) conform(terms *Terms, err error, unsure time.Time) (stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := !unsure.IsZero()
	if failed {
		s.unsure = unsure
	} else {
		s.failed.Store(nil)
	}
	switch {
	case errors.Is(err, ErrNotConfigured):
		s.drop()
		s.engine.remove(s)
		return false // the write deleted the tokens too
	case err != nil && failed:
		// Neither the write nor a look has come through. What is held goes on serving until
		// storage answers.
		s.schedule(time.Now())
		return false
	case err != nil:
		// Whether the token is still one is not known. Finding out is the next reader's.
		s.engine.log.Error("terms could not be read after a write", "name", s.name.String(), "error", err)
		s.hold(nil)
		s.loaded = false
		return false
	}
	s.idleTimeout = terms.IdleTimeout
	if t := s.held.Load(); t != nil && t.Shape != terms.Shape {
		s.hold(nil)
		return true
	}
	return false
}

// deleteStored deletes the stored token. Should that fail, the token's shape keeps it
// from being used. The write lock is held.
func (s *slot) deleteStored() {
	if err := s.engine.store.Delete(s.engine.ctx, s.name); err != nil {
		s.engine.log.Warn("stored token could not be deleted", "name", s.name.String(), "error", err)
	}
}
