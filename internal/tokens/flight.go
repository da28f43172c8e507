package tokens

import (
	"context"
	"errors"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// flight is one fetch of a name's token, shared by all callers who wait for it. It runs on
// a context of the engine's, never on a caller's.
type flight struct {
	name Name
	// replaces is the ID of the token to be replaced; empty if any valid token will do.
	replaces string
	// background ends, by promote, when a caller waits for the flight.
	background context.Context
	promote    context.CancelFunc
	// timed reports whether the token's own timer started the flight.
	timed bool
	// shape is that of the terms that the flight has read; empty before. Guarded by slot.mu.
	shape string
	// done closes when the results stand.
	done chan struct{}

	// The results: written before done closes, read after.
	token   *Token // nil if err says why there is none
	fetched bool   // token came from the authorization server
	err     error
}

// attempt is one try under one revision of the name's terms. It is void once that has changed.
type attempt struct {
	ctx      context.Context // ends when the attempt becomes void, or with the engine
	revision uint64
	load     bool // storage has not been looked into since the slot was made
}

// outcome is what an attempt came to.
type outcome struct {
	// terms are those that were read; nil if err says why not.
	terms *Terms
	// stored is the token in storage, if the attempt was to load it; nil if there is none.
	stored *Token
	// token came from the authorization server; nil if it was not asked, or failed.
	token *Token
	// saved reports whether token is in storage, or need not be.
	saved bool
	// failure is why the authorization server gave no token; nil if it was not asked.
	failure *failure
	// err is why there is no outcome: storage failed, or the name is not configured.
	err error
}

// waitMost is how long a caller waits for a flight, its time in queues included. Vault's
// seal and step-down wait for the requests under way, so no request may wait for long,
// whatever an authorization server does.
const waitMost = 5 * time.Second

// wait waits for the flight, at most until ctx ends.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return gaveUp(ctx, f.name)
	}
}

// gaveUp is the error of a caller whose wait ended; nil while ctx goes on.
func gaveUp(ctx context.Context, name Name) error {
	if ctx.Err() == nil {
		return nil
	}
	return &WaitError{Name: name, Cause: context.Cause(ctx)}
}

// launch starts a flight. mu is held, and no flight is under way. It returns ErrClosed when
// the engine is closing.
func (s *slot) launch(replaces string) error {
	f := &flight{name: s.name, replaces: replaces, done: make(chan struct{})}
	f.background, f.promote = context.WithCancel(context.Background())
	s.stopTimer()
	a := s.begin()
	s.flight.Store(f)
	if !s.engine.spawn(func() { s.fly(f, a) }) {
		s.flight.Store(nil)
		s.endAttempt()
		return ErrClosed
	}
	return nil
}

// begin opens an attempt. mu is held.
func (s *slot) begin() attempt {
	ctx, cancel := context.WithCancel(s.engine.ctx)
	s.cancelAttempt = cancel
	return attempt{ctx: ctx, revision: s.revision, load: !s.loaded}
}

// endAttempt frees the attempt's context. mu is held.
func (s *slot) endAttempt() {
	if s.cancelAttempt != nil {
		s.cancelAttempt()
		s.cancelAttempt = nil
	}
}

// fly runs a flight to its end: it looks into storage, asks the authorization server if that
// is still needed, and begins again whenever the name's terms have changed meanwhile.
func (s *slot) fly(f *flight, a attempt) {
	defer f.promote() // frees the context
	var terms *Terms  // once they have been read
	for {
		o, unlock := outcome{}, func() {}
		if terms == nil {
			// This read comes before every call to an authorization server: a plugin whose
			// Vault is gone must not call any.
			o = s.look(a.ctx, a.load)
		} else {
			o = s.ask(a, f, terms)
			o, unlock = s.save(a, o)
		}
		progress, next := s.commit(f, a, o)
		unlock()
		switch progress {
		case ended:
			return
		case looked:
			terms = o.terms
		case voided:
			// The change that made the attempt void may hold the write lock. What it publishes
			// may be all that is needed, so it comes first.
			if unlock, err := s.engine.lock(s.engine.ctx, s.name.Server); err == nil {
				unlock()
			}
			a, terms = next, nil
		}
	}
}

// look reads the terms, and the stored token if load says so.
func (s *slot) look(ctx context.Context, load bool) (o outcome) {
	if o.terms, o.err = s.engine.store.Terms(ctx, s.name); o.err != nil || !load {
		return o
	}
	if o.stored, o.err = s.engine.store.Load(ctx, s.name); o.err != nil {
		o.terms = nil
	}
	return o
}

// ask asks the authorization server once, when the client and the bounds on fetches permit it.
func (s *slot) ask(a attempt, f *flight, terms *Terms) outcome {
	for {
		leave, waited, err := s.engine.gates.enter(a.ctx, f.background, terms.Host)
		if err != nil {
			return outcome{err: err}
		}
		o, probing := s.askInside(a, f, terms, waited)
		leave()
		if probing == nil {
			return o
		}
		select {
		case <-probing:
		case <-a.ctx.Done():
			return outcome{err: a.ctx.Err()}
		}
	}
}

// askInside is ask once the gates have been passed. It returns a channel if another name
// probes for the same client, which closes when that probe has ended.
func (s *slot) askInside(a attempt, f *flight, terms *Terms, waited bool) (o outcome, probing <-chan struct{}) {
	if waited { // the configuration may have changed
		if o = s.look(a.ctx, false); o.err != nil {
			return o, nil
		}
		terms = o.terms
	}
	o.terms = terms
	c, release := s.engine.clients.use(terms.Client)
	defer release()
	began := time.Now()
	held := s.held.Load().ValidAt(began) && f.background.Err() == nil
	p, refused, probing := c.admit(began, held)
	switch {
	case refused != nil:
		s.engine.log.Debug("token not asked for: the client waits after a failure", "name", s.name.String())
		o.failure = refused
		return o, nil
	case p == nil:
		return o, probing
	}
	defer p.close()
	t, err := s.engine.obtain(a.ctx, terms)
	now := time.Now()
	if a.ctx.Err() != nil {
		return outcome{err: a.ctx.Err()}, nil
	}
	if grant.ClientWide(err) {
		o.failure = p.failed(terms.Host, err, now)
		s.logFailure(o.failure, held, now)
		return o, nil
	}
	if p.succeeded() {
		defer s.engine.wake(c)
	}
	if o.token = t; t.ValidAt(now) {
		return o, nil
	}
	if o.token = nil; err == nil {
		err = &grant.UnavailableError{Reason: "the token had expired when it arrived"}
	}
	o.failure = s.failed.Load().next(terms.Host, err, now)
	s.logFailure(o.failure, held, now)
	return o, nil
}

// obtain asks the authorization server. Of a token that lives a second almost nothing may be
// left, since it counts from a whole second: then the next one is asked for at once.
func (e *Engine) obtain(ctx context.Context, terms *Terms) (*Token, error) {
	for again := false; ; again = true {
		answer, err := e.fetch(ctx, terms)
		if err != nil {
			return nil, err
		}
		t := newToken(answer, terms)
		if again || t.ValidAt(time.Now()) || t.Lifetime() > time.Second {
			return t, nil
		}
	}
}

func (s *slot) logFailure(f *failure, held bool, now time.Time) {
	s.engine.log.Warn("token could not be obtained", "name", s.name.String(), "host", f.host, "error", f.cause,
		"failures", f.count, "next_attempt_in", f.end(held).Sub(now).Round(time.Second).String(),
		"token_held", s.held.Load().ValidAt(now))
}

// save stores a token before it is handed out, so that a failover does not go back a token. It
// returns with the server's write lock held, under which the outcome is to be committed.
func (s *slot) save(a attempt, o outcome) (_ outcome, unlock func()) {
	if o.err != nil {
		return o, func() {}
	}
	unlock, err := s.engine.lock(s.engine.ctx, s.name.Server)
	if err != nil {
		return outcome{err: err}, func() {}
	}
	if o.token != nil && a.ctx.Err() == nil {
		o = s.saved(o)
	}
	return o, unlock
}

// saved stores the outcome's token. The write lock is held.
func (s *slot) saved(o outcome) outcome {
	now := time.Now()
	if prev := s.held.Load(); prev.ValidAt(now) && prev.Shape == o.token.Shape && prev.AccessToken == o.token.AccessToken {
		o.token = prev.repeated(o.token, now)
	}
	// While storage hangs, tokens that wait for it in turn would expire.
	o.saved = o.token.ShortLived() || !s.engine.unsavable.Load() && s.store(o.token) == nil
	return o
}

// slowSave is when a failed save counts as hanging storage.
const slowSave = time.Second

// store stores a token. The write lock is held.
func (s *slot) store(t *Token) error {
	began := time.Now()
	err := s.engine.store.Save(s.engine.ctx, s.name, t)
	s.engine.unsavable.Store(err != nil && time.Since(began) >= slowSave)
	return err
}

// progress is how a flight goes on after an attempt.
type progress int

const (
	ended  progress = iota // the results stand
	looked                 // a token has still to be fetched
	voided                 // the terms changed meanwhile: the attempt counts for nothing
)

// commit makes the outcome of an attempt that of its flight. If the attempt is void it returns
// the next one.
func (s *slot) commit(f *flight, a attempt, o outcome) (progress, attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	closing := s.engine.ctx.Err() != nil
	if a.revision != s.revision && !closing && !s.gone {
		f.shape = ""
		return voided, s.begin()
	}
	prev := s.held.Load()
	switch err := s.apply(o, now); {
	case errors.Is(err, ErrNotConfigured):
		f.err = err
	case err != nil && closing:
		f.err = ErrClosed
	case err != nil:
		f.err = err
		s.storageFailed(err, now)
	case o.failure != nil:
		f.err = o.failure.err(s.name, prev.ValidAt(now))
	case o.token != nil:
		f.token, f.fetched = o.token, true
		if f.timed && prev != nil && !now.Before(prev.RefreshAt) {
			s.engine.observer.Refreshed(now.Sub(prev.RefreshAt))
		}
	default:
		if t := s.held.Load(); t.ValidAt(now) && t.ID() != f.replaces {
			f.token = t
		} else if s.engine.passive() {
			f.err = ErrReadOnly
		} else {
			f.shape = o.terms.Shape
			return looked, a
		}
	}
	s.endAttempt()
	s.flight.Store(nil)
	s.advance(now)
	close(f.done)
	return ended, a
}

// apply brings the slot in line with the outcome of an attempt that is not void. It is the only
// place that changes what readers get to something that storage or an authorization server
// answered. mu is held. It returns the outcome's own error.
func (s *slot) apply(o outcome, now time.Time) error {
	switch {
	case s.gone || errors.Is(o.err, ErrNotConfigured):
		s.drop()
		return ErrNotConfigured
	case o.err != nil:
		return o.err
	}
	s.storageFailures, s.storageRetryAt = 0, time.Time{}
	s.applyTerms(o.terms)
	if !s.loaded && o.token == nil {
		s.applyStored(o.stored, o.terms, now)
	}
	s.loaded = true
	switch {
	case o.failure != nil:
		s.failed.Store(o.failure)
	case o.token != nil:
		s.publish(o.token, o.saved, now)
	}
	return nil
}

// applyTerms drops what was obtained, or is being fetched, on terms of another shape. It reports
// whether storage may keep a token of another shape. mu is held.
func (s *slot) applyTerms(terms *Terms) (stale bool) {
	s.idleTimeout = terms.IdleTimeout
	if f := s.flight.Load(); f != nil && f.shape != "" && f.shape != terms.Shape {
		s.supersede()
	}
	if t := s.held.Load(); t != nil && t.Shape != terms.Shape {
		s.hold(nil)
		return true
	}
	return false
}

// applyStored takes over the token that storage holds, if it is valid. mu is held.
func (s *slot) applyStored(stored *Token, terms *Terms, now time.Time) {
	s.touch(now) // loading counts as a read
	if stored == nil {
		return
	}
	stored = stored.rebased(now)
	if !stored.ValidAt(now) || stored.Shape != terms.Shape {
		return
	}
	if stored.checked.Before(s.credentialsFrom) {
		stored = stored.dueBy(now)
	}
	s.hold(stored)
}

// publish hands out a token from now on. One that could not be saved is served from memory, and
// saved later. mu is held.
func (s *slot) publish(t *Token, saved bool, now time.Time) {
	if f := s.failed.Load(); f != nil {
		s.engine.log.Info("token obtained again", "name", s.name.String(), "failures", f.count,
			"failing_for", now.Sub(f.since).Round(time.Second).String())
	}
	s.engine.log.Debug("token obtained", "name", s.name.String(), "token_id", t.ID(),
		"lifetime", t.Lifetime().String(), "repeats", t.Repeats)
	s.failed.Store(nil)
	s.hold(t)
	if s.unsaved = !saved; s.unsaved {
		s.engine.Retry(retryKey{saveToken, s.name}, now.Add(storageRetry(1)), "token could not be stored", s.saveHeld)
	}
}

// saveHeld stores the held token if it is not stored yet.
func (s *slot) saveHeld(ctx context.Context) error {
	unlock, err := s.engine.lock(ctx, s.name.Server)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	t, unsaved := s.held.Load(), s.unsaved
	s.mu.Unlock()
	if !unsaved {
		return nil
	}
	if err := s.store(t); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsaved = s.unsaved && s.held.Load() != t
	return nil
}
