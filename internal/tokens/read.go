package tokens

import (
	"time"
)

// Answer is a token to hand out.
type Answer struct {
	*Token
	// TTL is the number of whole seconds after which the caller should read again.
	TTL int64
}

// read is the hot path. It returns the held token if it can be handed out as it is.
func (s *slot) read(now time.Time) (Answer, bool) {
	t := s.held.Load()
	if !t.ValidAt(now) {
		return Answer{}, false
	}
	s.touch(now)
	f := s.failed.Load()
	due := t.RefreshAt
	if f != nil {
		due = f.end(true)
	}
	if left(due, now) <= 0 {
		switch {
		case ShortLived(t.Lifetime()):
			return Answer{}, false // another token is needed
		case !s.engine.passive():
			s.overdue(now)
		case s.reports(now):
			return Answer{}, false
		}
	}
	return s.answer(t, now), true
}

// reportEvery is how often a passive node forwards a read of a due token. It is longer than two retries of Vault's Go
// client (1 to 1.5 s, then 2 to 3 s): without an active node, a retry gets the held token.
const reportEvery = 5 * time.Second

// reports reports whether a passive node forwards this read of a due token, so that the active node refreshes it. The
// node forwards one read in reportEvery, and serves the held token to the others.
func (s *slot) reports(now time.Time) bool {
	at, last := int64(now.Sub(s.engine.epoch)), s.reported.Load()
	return (last == 0 || at-last >= int64(reportEvery)) && s.reported.CompareAndSwap(last, at)
}

// answer returns the token with its TTL.
func (s *slot) answer(t *Token, now time.Time) Answer {
	var retry time.Time
	if f := s.failed.Load(); f != nil {
		retry = f.end(true)
	}
	return Answer{Token: t, TTL: t.readAgain(now, retry)}
}

// overdue starts a due refresh without a timer: callers had stopped reading the token, or the wall clock was set
// ahead.
func (s *slot) overdue(now time.Time) {
	if s.flight.Load() != nil || s.turn.Load() != nil {
		return // every reader comes here during a slow refresh, without a lock
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(now)
}

// cooldown is the age below which a token is not replaced on request.
const cooldown = 10 * time.Second

// join returns the held token if it can be handed out, or the flight to wait for. If both are nil, the caller calls it
// again on the name's new slot.
func (s *slot) join() (*Token, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, nil, nil
	}
	now := time.Now()
	t := s.held.Load()
	s.lastRead.Store(int64(now.Sub(s.engine.epoch))) // exact: wanted compares it
	if s.engine.passive() && t.ValidAt(now) && left(t.RefreshAt, now) <= 0 {
		return nil, nil, ErrReadOnly // see reports
	}
	return s.serve(next(s.view(now, t, true)), now, t)
}

// replace returns the held token if it is not the rejected one, or the flight that replaces it. If both are nil, the
// caller calls it again on the name's new slot.
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

// serve carries out a step for a caller: it returns the held token t, the flight to wait for, or the failure within
// its backoff window. mu is held.
func (s *slot) serve(st step, now time.Time, t *Token) (*Token, *flight, error) {
	switch {
	case st.serve:
		return t, nil, nil
	case st.do == wait:
		s.engine.observer.Shared()
	case left(st.at, now) > 0:
		f := s.failed.Load()
		s.advance(now) // a caller asks now, so the next attempt gets its timer
		return nil, nil, f.err(s.name)
	default:
		if err := s.launch(&flight{replaces: t.ID()}); err != nil {
			return nil, nil, err
		}
	}
	f := s.flight.Load()
	f.awaited.Store(true)
	return nil, f, nil
}
