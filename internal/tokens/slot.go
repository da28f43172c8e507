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
	// failed is the outcome of the latest fetch, nil when it succeeded. Stored
	// under mu, read without.
	failed atomic.Pointer[failure]
	// lastRead is when somebody last read the token, in nanoseconds since
	// Engine.epoch; within a second of the truth.
	lastRead atomic.Int64

	// flight is the fetch under way; nil when none is. Stored under mu, read without.
	flight atomic.Pointer[flight]

	mu sync.Mutex // guards the fields below; never held across a call that waits
	// revision counts the changes of the name's terms. A fetch begun under an
	// older one is thrown away, its failure included.
	revision uint64
	// loaded tells that storage was looked at since the slot was made.
	loaded bool
	// gone tells that the name is not configured, and the slot no longer in use.
	gone bool
	// idleTimeout is that of the terms last seen.
	idleTimeout time.Duration
	// wanted tells that somebody asked for a token in vain since the last failure.
	wanted bool
	// unsaved tells that held could not be stored yet, and saving that saveLater runs.
	unsaved, saving bool
	// idle tells that the last due refresh was left out because nobody reads.
	idle bool
	// unattended tells that a refresh of held was left out because nobody asked for the
	// token: how late the next one is says nothing then.
	unattended bool
	// unsure is from when on storage tells for good what a write that failed has left: until
	// it has been looked at, held may be of terms that are gone. Zero when nothing is unsure.
	unsure time.Time
	// stumbles counts the flights in a row that ended without an outcome, because
	// storage failed.
	stumbles int
	// timer fires when the next background work is due; nil when none is.
	timer *time.Timer
	// turn counts the timers, so that one that was stopped too late does nothing.
	turn uint64
	// renew tells that the credentials have changed since the token that is held or stored was
	// obtained: it is to be replaced, and there was no attempt yet.
	renew bool
	// cancelAttempt ends the attempt of the flight under way.
	cancelAttempt context.CancelFunc
}

// read is the hot path: it answers with the held token if that is valid.
func (s *slot) read(now time.Time) (Answer, bool) {
	t := s.held.Load()
	if !t.ValidAt(now) {
		return Answer{}, false
	}
	s.touch(now)
	var retry time.Time
	f := s.failed.Load()
	if f != nil {
		retry = f.until
	}
	if left(due(t, f), now) <= 0 {
		s.overdue(now)
	}
	return Answer{Token: t, TTL: t.readAgain(now, retry)}, true
}

// touch records a read. It writes at most once a second, so that readers on many
// cores do not fight for the cache line.
func (s *slot) touch(now time.Time) {
	at := now.Sub(s.engine.epoch)
	if at-time.Duration(s.lastRead.Load()) > time.Second || at < time.Second {
		s.lastRead.Store(int64(at))
	}
}

// due is when a held token is to be refreshed, after the failure if there was one.
func due(t *Token, f *failure) time.Time {
	if f != nil {
		return f.until
	}
	return t.RefreshAt
}

// overdue starts a refresh that is due and that no timer started: because nobody had
// read the token for long, or because the wall clock was set ahead.
func (s *slot) overdue(now time.Time) {
	if s.flight.Load() != nil || s.engine.passive() {
		return // all readers come here while a refresh takes long: they need no lock for it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight.Load() != nil || s.stumbles > 0 && s.timer != nil || s.gone {
		return
	}
	if t := s.held.Load(); t != nil && left(due(t, s.failed.Load()), now) <= 0 {
		_ = s.launch(t.ID(), true) // fails only when the engine is closing
	}
}

// join gives the flight to wait for where no valid token is held. Both results are
// nil when looking again is what helps.
func (s *slot) join() (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.gone || s.held.Load().ValidAt(now) {
		return nil, nil
	}
	s.touch(now)
	if s.flight.Load() != nil {
		s.engine.observer.Shared()
	} else {
		if err := s.inWindow(now); err != nil {
			s.wanted = true
			if s.timer == nil {
				s.schedule(now)
			}
			return nil, err
		}
		if err := s.launch("", true); err != nil {
			return nil, err
		}
	}
	return s.await(), nil
}

// replace gives the flight that replaces the held token if it is the rejected one,
// or else the held token. Both are nil when looking again is what helps.
func (s *slot) replace(rejected string) (*flight, *Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.gone {
		return nil, nil, nil
	}
	t := s.held.Load()
	if t.ValidAt(now) && (rejected != "" && rejected != t.ID() || now.Sub(t.checked) < cooldown) {
		return nil, t, nil
	}
	if s.flight.Load() != nil {
		s.engine.observer.Shared()
	} else {
		if err := s.inWindow(now); err != nil {
			return nil, nil, err
		}
		replaces := ""
		if t.ValidAt(now) {
			replaces = t.ID()
		}
		if err := s.launch(replaces, true); err != nil {
			return nil, nil, err
		}
	}
	return s.await(), nil, nil
}

// load gives the flight that looks into storage, nil when that has been done.
func (s *slot) load() (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.loaded {
		return nil, nil
	}
	return s.look()
}

// look gives a flight that looks into storage at the terms, and at the stored token if
// nobody has, and fetches nothing of its own accord. mu is held.
func (s *slot) look() (*flight, error) {
	if s.flight.Load() == nil {
		if err := s.launch("", false); err != nil {
			return nil, err
		}
	}
	return s.flight.Load(), nil
}

// inWindow gives the remembered failure while the backoff window lasts. mu is held.
func (s *slot) inWindow(now time.Time) error {
	if f := s.failed.Load(); f != nil && left(f.until, now) > 0 {
		return f.err(s.name)
	}
	return nil
}

// schedule sets the timer to what is next. mu is held.
func (s *slot) schedule(now time.Time) {
	s.stopTimer()
	t, f := s.held.Load(), s.failed.Load()
	var at time.Time
	switch {
	case s.gone || s.flight.Load() != nil || s.engine.ctx.Err() != nil || s.engine.passive():
		return
	case t.ValidAt(now) && f == nil && s.renew:
		at = now
	case t.ValidAt(now) || f != nil && s.wanted:
		at = due(t, f)
	default:
		return
	}
	wait := left(at, now)
	if !s.unsure.IsZero() {
		wait = min(wait, s.unsure.Sub(now))
	}
	if s.stumbles > 0 {
		wait = max(wait, storageRetry(s.stumbles))
	}
	s.wake(wait)
}

// wake sets the timer, of which there is none. mu is held.
func (s *slot) wake(wait time.Duration) {
	turn := s.turn
	// Never at once: timers that are due when they are set, by several goroutines, crash a
	// testing/synctest bubble under the race detector (go.dev/issue/78156).
	s.timer = time.AfterFunc(max(time.Nanosecond, wait), func() { s.fire(turn) })
}

// stopTimer leaves the slot without a timer. mu is held.
func (s *slot) stopTimer() {
	s.turn++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// fire runs when the timer of the given turn does.
func (s *slot) fire(turn uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn != turn {
		return // the timer was stopped or replaced while it fired
	}
	s.timer = nil
	if s.flight.Load() != nil {
		return
	}
	now := time.Now()
	if !s.unsure.IsZero() && !now.Before(s.unsure) {
		_, _ = s.look() // fails only when the engine is closing
		return
	}
	t, replaces := s.held.Load(), ""
	if t != nil {
		if s.idle = s.idleAt(now, t); s.idle {
			s.unattended = true
			s.engine.log.Debug("token is left to expire: nobody reads it", "name", s.name.String())
			if !s.unsure.IsZero() {
				s.wake(s.unsure.Sub(now))
			}
			return
		}
		replaces = t.ID()
	}
	if s.failed.Load() != nil && !t.ValidAt(now) && !s.wanted {
		s.unattended = true
		return // nobody asked since the last attempt: the next reader will
	}
	_ = s.launch(replaces, true) // fails only when the engine is closing
}

// idleAt tells whether the token has gone unread for long enough. mu is held.
func (s *slot) idleAt(now time.Time, t *Token) bool {
	unread := now.Sub(s.engine.epoch) - time.Duration(s.lastRead.Load())
	return s.idleTimeout > 0 && unread > max(s.idleTimeout, t.Lifetime())
}

// supersede makes whatever is under way for the name void. mu is held.
func (s *slot) supersede() {
	s.revision++
	if s.cancelAttempt != nil {
		s.cancelAttempt()
	}
}

// drop empties the slot of a name that is not configured any more. mu is held.
func (s *slot) drop() {
	s.gone = true
	s.hold(nil)
	s.renew = false
	s.failed.Store(nil)
	s.stopTimer()
}

// forget empties the slot, so that the next look goes to storage. It tells whether the slot
// is to be loaded now: one that was not loaded is being loaded, or is left to its next reader.
func (s *slot) forget() (load bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	load = s.loaded
	if s.gone {
		return load
	}
	s.supersede()
	s.hold(nil)
	s.failed.Store(nil)
	s.loaded = false
	s.stopTimer()
	return load
}

// hold replaces the held token, by none where t is nil. mu is held.
func (s *slot) hold(t *Token) {
	s.held.Store(t)
	s.unsaved, s.unattended = false, false
}

// stop ends the slot's timer for good: schedule sets none once the engine's
// context has ended.
func (s *slot) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimer()
}
