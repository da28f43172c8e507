package tokens

import (
	"context"
	"errors"
	"time"
	"unique"
)

// apply applies the outcome of a valid attempt to the slot, and returns the outcome's own error. Answers of storage
// and of authorization servers reach readers only through apply. mu is held.
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
	if !s.loaded {
		s.applyStored(o.stored, o.terms, now)
	}
	s.loaded = true
	switch {
	case o.failure != nil:
		s.failed.Store(o.failure)
		s.triedRun = later(s.triedRun, o.tried)
	case o.token != nil:
		s.publish(o.token, o.saved, now)
	}
	return nil
}

// applyTerms drops a token of another shape, and voids a flight of another shape. It also voids a flight that has not
// read its terms yet: they may be older than these. mu is held.
func (s *slot) applyTerms(terms *Terms) {
	s.idleTimeout, s.host = terms.IdleTimeout, unique.Make(terms.Host)
	if f := s.flight.Load(); f != nil && f.shape != terms.Shape {
		s.supersede()
	}
	if t := s.held.Load(); t != nil && t.Shape != terms.Shape {
		s.hold(nil)
	}
}

// applyStored holds the stored token, if it is valid. mu is held.
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

// publish makes t the held token. If it could not be saved, it is served from memory and saved later. mu is held.
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
	s.unsaved = false // held is still t: publishing needs the write lock
	return nil
}
