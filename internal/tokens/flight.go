package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// flight is one fetch of a name's token, shared by all who wait for it. It runs on
// a context of the engine's, never on a caller's.
type flight struct {
	name Name
	// replaces is the ID of the token to be replaced; empty when any valid token
	// will do.
	replaces string
	// patience ends, by hurry, when somebody waits for the flight.
	patience context.Context
	hurry    context.CancelFunc
	// done closes when the results stand.
	done chan struct{}

	// fetch tells that a token is wanted, not only a look into storage. Guarded by
	// slot.mu.
	fetch bool

	// The results: written before done closes, read after.
	token   *Token // nil when none was wanted, or err tells why there is none
	fetched bool   // token came from the authorization server
	err     error
}

// await gives the flight under way, which is one that somebody waits for now. mu is held.
func (s *slot) await() *flight {
	f := s.flight.Load()
	f.fetch = true
	f.hurry()
	return f
}

// wait waits for the flight or the end of ctx.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return gaveUp(ctx, f.name)
	}
}

// gaveUp is the error of a caller who waits no longer. It wraps that of ctx; nil while ctx goes on.
func gaveUp(ctx context.Context, name Name) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the request ended while the token for %q was being obtained, which goes on: %w", name, err)
	}
	return nil
}

// launch starts a flight. s.mu is held, and no flight is under way.
func (s *slot) launch(replaces string, fetch bool) error {
	f := &flight{name: s.name, replaces: replaces, fetch: fetch, done: make(chan struct{})}
	f.patience, f.hurry = context.WithCancel(context.Background())
	s.stopTimer()
	s.wanted, s.idle = false, false
	s.flight.Store(f)
	if !s.engine.spawn(func() { s.fly(f) }) {
		s.flight.Store(nil)
		return ErrClosed
	}
	return nil
}

// fly runs a flight to its end: attempts are repeated for as long as the name's
// terms change under them.
func (s *slot) fly(f *flight) {
	defer f.hurry() // frees the context
	for {
		ctx, revision, gone := s.begin()
		err := ErrNotConfigured
		if !gone {
			err = s.attempt(ctx, f, revision)
		}
		if s.end(f, revision, err) {
			return
		}
		// A change made the attempt void. What it publishes may be all that is needed,
		// so it comes first.
		if unlock, err := s.engine.lock(s.engine.ctx, s.name.Server); err == nil {
			unlock()
		}
	}
}

// begin opens an attempt: its context ends when a change makes it void. Where the slot is gone
// there must be none: no change reaches it any more, and what it stored nobody would delete.
func (s *slot) begin() (ctx context.Context, revision uint64, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithCancel(s.engine.ctx)
	s.cancelAttempt = cancel
	return ctx, s.revision, s.gone
}

// end closes the flight with the outcome of its last attempt; false when that
// attempt is void because the terms changed under it.
func (s *slot) end(f *flight, revision uint64, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancelAttempt()
	s.cancelAttempt = nil
	closing := s.engine.ctx.Err() != nil
	if revision != s.revision && !closing && !s.gone {
		f.token, f.fetched = nil, false
		return false
	}
	_, failed := errors.AsType[*FailedError](err)
	s.stumbles++
	switch {
	case err == nil || failed || errors.Is(err, ErrReadOnly):
		s.stumbles = 0
	case closing:
		err = ErrClosed
	case s.gone || errors.Is(err, ErrNotConfigured):
		err = ErrNotConfigured
		s.drop()
		s.engine.remove(s)
	default:
		s.engine.log.Warn("storage failed while a token was looked after", "name", s.name.String(), "error", err)
	}
	if f.err = err; err != nil {
		f.token = nil
	}
	s.flight.Store(nil)
	if !s.renewHeld() {
		s.schedule(time.Now())
	}
	close(f.done)
	return true
}

// renewHeld starts to replace what is held, if it was obtained with other credentials than there are
// now. After a failure schedule does, when it is time. mu is held, and no flight is under way.
func (s *slot) renewHeld() bool {
	t := s.held.Load()
	return s.renew && s.stumbles == 0 && s.failed.Load() == nil && t.ValidAt(time.Now()) &&
		!s.gone && !s.engine.passive() && s.launch(t.ID(), true) == nil
}

// attempt does what the flight is for, once: look into storage if nobody has, and
// fetch if that is still needed.
func (s *slot) attempt(ctx context.Context, f *flight, revision uint64) error {
	// This read comes before every call to an authorization server: a plugin whose
	// Vault is gone must not call anybody.
	began := time.Now()
	terms, err := s.engine.store.Terms(ctx, s.name)
	if err != nil {
		return err
	}
	if err := s.settle(ctx, terms, began, revision); err != nil {
		return err
	}
	if s.fulfilled(f) {
		return nil
	}
	if s.engine.passive() {
		return ErrReadOnly
	}
	asked, answer, err := s.ask(ctx, f, terms)
	if asked == nil {
		return err
	}
	return s.conclude(f, revision, asked, answer, err)
}

// ask fetches once, when its turn has come. It gives the terms that it asked on; nil
// terms when there was no outcome to remember.
func (s *slot) ask(ctx context.Context, f *flight, terms *Terms) (*Terms, *grant.Token, error) {
	leave, waited, err := s.engine.gates.enter(ctx, f.patience, terms.Host)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	if waited {
		if terms, err = s.engine.store.Terms(ctx, s.name); err != nil {
			return nil, nil, err
		}
	}
	answer, err := s.engine.fetch(ctx, terms)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	return terms, answer, err
}

// settle brings what is held in line with storage and with the terms, the look at which
// began at the given time.
func (s *slot) settle(ctx context.Context, terms *Terms, began time.Time, revision uint64) error {
	s.mu.Lock()
	loaded := s.loaded
	s.mu.Unlock()
	var stored *Token
	if !loaded {
		var err error
		if stored, err = s.engine.store.Load(ctx, s.name); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.revision {
		return nil // void anyway
	}
	now := time.Now()
	s.idleTimeout = terms.IdleTimeout
	if !began.Before(s.unsure) {
		s.unsure = time.Time{}
	}
	if !s.loaded {
		s.loaded = true
		s.touch(now) // loading counts as a read
		if stored != nil {
			// Readers take no lock, so what they must not see is never stored.
			if stored = stored.rebased(now); stored.ValidAt(now) && stored.Shape == terms.Shape {
				s.hold(stored)
			}
		}
	}
	if t := s.held.Load(); t != nil && t.Shape != terms.Shape {
		s.hold(nil)
	}
	return nil
}

// fulfilled tells whether what is held is what the flight is for.
func (s *slot) fulfilled(f *flight) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.held.Load()
	if t.ValidAt(time.Now()) && t.ID() != f.replaces {
		f.token = t
		return true
	}
	return !f.fetch
}

// conclude records the outcome of a fetch: under the write lock, and only if the
// terms have not changed since.
func (s *slot) conclude(f *flight, revision uint64, terms *Terms, answer *grant.Token, err error) error {
	unlock, lockErr := s.engine.lock(s.engine.ctx, s.name.Server)
	if lockErr != nil {
		return lockErr
	}
	defer unlock()
	if s.changed(revision) {
		return nil // void: end looks again
	}
	var t *Token
	if err == nil {
		t = newToken(answer, terms)
		if !t.ValidAt(time.Now()) {
			err = &grant.UnavailableError{Reason: "the token had expired when it arrived"}
		}
	}
	if err != nil {
		return s.fail(terms.Host, err, revision)
	}
	f.token, f.fetched = s.publish(t, terms, revision), true
	return nil
}

// changed tells whether the terms have changed since the given revision.
func (s *slot) changed(revision uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return revision != s.revision
}

// fail remembers a failure, unless an invalidation overtook it.
func (s *slot) fail(host string, cause error, revision uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.revision {
		return nil // void: end looks again
	}
	now := time.Now()
	f := s.failed.Load().next(host, cause, now)
	s.failed.Store(f)
	s.renew = false // the next attempt is with the credentials that there are now
	s.engine.log.Warn("token could not be obtained", "name", s.name.String(), "host", host, "error", cause,
		"failures", f.count, "next_attempt_in", f.until.Sub(now).Round(time.Second).String(),
		"token_held", s.held.Load().ValidAt(now))
	return f.err(s.name)
}

// publish saves a token and then hands it out: in this order, so that a failover
// does not go back a token. A token that cannot be saved is served from memory, and
// saved later. One that an invalidation overtook, which takes no write lock, is not
// handed out: storage is looked at again. The write lock is held.
func (s *slot) publish(t *Token, terms *Terms, revision uint64) *Token {
	now := time.Now()
	prev := s.held.Load()
	if prev.ValidAt(now) && prev.Shape == t.Shape && prev.AccessToken == t.AccessToken {
		t = prev.repeated(t, now)
	}
	// Where storage hangs, tokens that wait for it in turn would expire meanwhile.
	saved := !s.engine.unsavable.Load() && s.save(t)

	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.revision {
		return t
	}
	if f := s.failed.Load(); f != nil {
		s.engine.log.Info("token obtained again", "name", s.name.String(), "failures", f.count,
			"failing_for", now.Sub(f.since).Round(time.Second).String())
	}
	s.engine.log.Debug("token obtained", "name", s.name.String(), "token_id", t.ID(),
		"lifetime", t.Lifetime().String(), "repeats", t.Repeats)
	if prev != nil && !now.Before(prev.RefreshAt) && !s.unattended {
		s.engine.observer.Refreshed(now.Sub(prev.RefreshAt))
	}
	s.loaded = true
	s.idleTimeout = terms.IdleTimeout
	s.failed.Store(nil)
	s.hold(t)
	s.idle, s.renew = false, false
	s.unsaved = !saved
	if !saved && !s.saving {
		s.saving = true
		s.engine.spawn(s.saveLater)
	}
	return t
}

// slowSave is from when on a save in vain costs those that wait for it: one that fails at once does not.
const slowSave = time.Second

// save stores a token. The write lock is held.
func (s *slot) save(t *Token) bool {
	began := time.Now()
	err := s.engine.store.Save(s.engine.ctx, s.name, t)
	s.engine.unsavable.Store(err != nil && time.Since(began) >= slowSave)
	if err != nil {
		s.engine.log.Error("token could not be stored; it is served from memory until it can", "name", s.name.String(), "error", err)
		return false
	}
	return true
}

// saveLater tries to store the held token until it is stored, or none is held. Of all names one tries at a
// time, and leaves storage and the write lock alone for a while when that was in vain.
func (s *slot) saveLater() {
	ctx := s.engine.ctx
	wait := time.Second
	for again := pause(ctx, wait); again; wait = min(2*wait, time.Minute) {
		if s.engine.saver.Acquire(ctx, 1) != nil {
			return
		}
		again = !s.saveHeld() && pause(ctx, wait)
		s.engine.saver.Release(1)
	}
}

// saveHeld tells whether the held token is stored, or none is held, or the engine ends.
func (s *slot) saveHeld() bool {
	unlock, err := s.engine.lock(s.engine.ctx, s.name.Server)
	if err != nil {
		return true
	}
	defer unlock()
	t, unsaved := s.unsavedToken()
	if unsaved && !s.save(t) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held.Load() == t {
		s.unsaved = false
	}
	s.saving = false
	return true
}

// unsavedToken is the held token, and whether it could not be stored yet.
func (s *slot) unsavedToken() (*Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held.Load(), s.unsaved
}

// pause waits for so long. It tells whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
