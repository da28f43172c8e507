package tokens

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// slot is all that the engine holds for one name.
type slot struct {
	engine *Engine
	name   Name

	// held is the current token, maybe expired. Stored under mu, read without.
	held atomic.Pointer[Token]
	// failed is the outcome of the latest fetch, nil if it succeeded. Stored
	// under mu, read without.
	failed atomic.Pointer[failure]
	// lastRead is when a caller last asked for the token, in nanoseconds since
	// Engine.epoch; within a second of the truth.
	lastRead atomic.Int64
	// flight is the fetch under way; nil if none is. Stored under mu, read without.
	flight atomic.Pointer[flight]

	mu sync.Mutex // guards the fields below; never held across a call that waits
	// revision counts the changes of the name's terms. An attempt begun under an
	// older one is void, its failure included.
	revision uint64
	// loaded reports whether storage was looked into since the slot was made.
	loaded bool
	// gone reports whether the name is not configured, and the slot no longer in use.
	gone bool
	// idleTimeout is that of the terms last seen.
	idleTimeout time.Duration
	// credentialsFrom is when the credentials last changed: a token that was obtained
	// earlier is due at once.
	credentialsFrom time.Time
	// unsaved reports whether held could not be stored yet.
	unsaved bool
	// storageFailures counts the flights in a row that storage failed; storageRetryAt is
	// the earliest time of the next one in the background.
	storageFailures int
	storageRetryAt  time.Time
	// timer fires when the next background work is due; nil if none is.
	timer *time.Timer
	// cancelAttempt ends the attempt of the flight under way.
	cancelAttempt context.CancelFunc
}

// read is the hot path: it answers with the held token if that is valid, and good enough to
// be handed out without a look at anything else.
func (s *slot) read(now time.Time) (Answer, bool) {
	t := s.held.Load()
	if !t.ValidAt(now) {
		return Answer{}, false
	}
	f := s.failed.Load()
	due := t.RefreshAt
	if f != nil {
		due = f.end(true)
	}
	if left(due, now) <= 0 {
		if t.ShortLived() || s.engine.passive() {
			return Answer{}, false // another token is needed, or another node knows a newer one
		}
		s.touch(now)
		s.overdue(now)
	}
	return s.answer(t, now), true
}

// answer is the held token as it is handed out.
func (s *slot) answer(t *Token, now time.Time) Answer {
	s.touch(now)
	var retry time.Time
	if f := s.failed.Load(); f != nil {
		retry = f.end(true)
	}
	return Answer{Token: t, TTL: t.readAgain(now, retry)}
}

// touch records a read. It writes at most once a second, so that readers on many
// cores do not fight for the cache line.
func (s *slot) touch(now time.Time) {
	at := now.Sub(s.engine.epoch)
	if at-time.Duration(s.lastRead.Load()) > time.Second || at < time.Second {
		s.lastRead.Store(int64(at))
	}
}

// overdue starts a refresh that is due and that no timer started: because nobody had
// read the token for long, or because the wall clock was set ahead.
func (s *slot) overdue(now time.Time) {
	if s.flight.Load() != nil {
		return // all readers come here while a refresh takes long: they need no lock for it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.advance(now)
}

// view is what next decides by. token is the held one, or none if a caller cannot use it.
// mu is held.
func (s *slot) view(now time.Time, token *Token, asked bool) view {
	v := view{
		now:            now,
		token:          token,
		storageRetryAt: s.storageRetryAt,
		lastRead:       s.engine.epoch.Add(time.Duration(s.lastRead.Load())),
		idleTimeout:    s.idleTimeout,
		asked:          asked,
		flying:         s.flight.Load() != nil,
		stopped:        s.gone || s.engine.ctx.Err() != nil || s.engine.passive() && !asked,
	}
	if f := s.failed.Load(); f != nil {
		v.failing, v.failedAt, v.windowEnd = true, f.lastAt(), f.end(token.ValidAt(now))
	}
	return v
}

// advance starts what is due in the background, or sets the timer to the time when something
// will be. It reports whether it started a flight. mu is held.
func (s *slot) advance(now time.Time) (launched bool) {
	t := s.held.Load()
	st := next(s.view(now, t, false))
	if st.do != fetch {
		s.stopTimer()
		return false
	}
	if wait := left(st.at, now); wait > 0 {
		s.setTimer(wait)
		return false
	}
	return s.launch(t.ID()) == nil // fails only when the engine is closing
}

// join returns the held token if it will do, or the flight to wait for. Both are nil if
// looking again is what helps.
func (s *slot) join() (*Token, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, nil, nil
	}
	now := time.Now()
	t := s.held.Load()
	s.lastRead.Store(int64(now.Sub(s.engine.epoch))) // to the instant: wanted compares it
	if s.engine.passive() && t.ValidAt(now) && left(t.RefreshAt, now) <= 0 {
		return nil, nil, ErrReadOnly // the active node knows a newer one, or is told of this reader
	}
	return s.serve(next(s.view(now, t, true)), now, t)
}

// replace returns the held token if it is not the rejected one, or the flight that replaces it.
// Both are nil if looking again is what helps.
func (s *slot) replace(rejected string) (*Token, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, nil, nil
	}
	now := time.Now()
	t := s.held.Load()
	if t.ValidAt(now) && (rejected != "" && rejected != t.ID() || now.Sub(t.checked) < cooldown) {
		return t, nil, nil
	}
	return s.serve(next(s.view(now, nil, true)), now, t)
}

// serve does for a caller what was decided: it returns the held token t, the flight to wait for, or
// the failure whose backoff window lasts. mu is held.
func (s *slot) serve(st step, now time.Time, t *Token) (*Token, *flight, error) {
	switch {
	case st.serve:
		return t, nil, nil
	case st.do == wait:
		s.engine.observer.Shared()
	case left(st.at, now) > 0:
		f := s.failed.Load()
		s.advance(now) // the caller's interest may be what the next attempt waits for
		return nil, nil, f.err(s.name, false)
	default:
		if err := s.launch(t.ID()); err != nil {
			return nil, nil, err
		}
	}
	f := s.flight.Load()
	f.promote()
	return nil, f, nil
}

// setTimer replaces the slot's timer. mu is held.
func (s *slot) setTimer(wait time.Duration) {
	s.stopTimer()
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.timer != timer {
			return // it was stopped or replaced while it fired
		}
		s.timer = nil
		if s.advance(time.Now()) {
			s.flight.Load().timed = true
		}
	})
	s.timer = timer
}

// stopTimer leaves the slot without a timer. mu is held.
func (s *slot) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// storageFailed notes that storage failed a flight. mu is held.
func (s *slot) storageFailed(err error, now time.Time) {
	s.storageFailures++
	s.storageRetryAt = now.Add(storageRetry(s.storageFailures))
	s.engine.log.Warn("storage error during token refresh", "name", s.name.String(), "error", err)
}

// supersede makes whatever is under way for the name void. mu is held.
func (s *slot) supersede() {
	s.revision++
	s.endAttempt()
}

// renew makes the held token due, since it was obtained with other credentials. mu is held.
func (s *slot) renew(now time.Time) {
	s.credentialsFrom = now
	if t := s.held.Load(); t != nil {
		s.held.Store(t.dueBy(now))
	}
}

// drop empties the slot of a name that is not configured. mu is held.
func (s *slot) drop() {
	s.supersede()
	s.gone = true
	s.hold(nil)
	s.failed.Store(nil)
	s.stopTimer()
	s.engine.remove(s)
}

// forget empties the slot, so that the next look goes to storage. It reports whether the slot
// is to be loaded now: one that was not loaded is being loaded, or is left to its next reader.
func (s *slot) forget() (load bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	load = s.loaded
	if s.gone {
		return false
	}
	s.supersede()
	s.hold(nil)
	s.failed.Store(nil)
	s.loaded = false
	s.stopTimer()
	return load
}

// reread brings the slot in line with storage: its terms, and the stored token if it is not
// loaded.
func (s *slot) reread(ctx context.Context) error {
	for {
		s.mu.Lock()
		gone, load, revision := s.gone, !s.loaded, s.revision
		s.mu.Unlock()
		if gone {
			return ErrNotConfigured
		}
		o := s.look(ctx, load)
		if done, err := s.applyReread(o, revision); done {
			return err
		}
	}
}

// applyReread reports whether the look counted: not if the terms have changed meanwhile.
func (s *slot) applyReread(o outcome, revision uint64) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revision != revision && !s.gone {
		return false, nil
	}
	now := time.Now()
	if err := s.apply(o, now); err != nil {
		return true, err
	}
	s.advance(now)
	return true, nil
}

// hold replaces the held token, by none if t is nil. mu is held.
func (s *slot) hold(t *Token) {
	s.held.Store(t)
	s.unsaved = false
}

// stop ends the slot's timer for good: advance sets none once the engine's
// context has ended.
func (s *slot) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimer()
}
