package tokens

import (
	"time"
)

// Answer is a token to hand out.
type Answer struct {
	*Token
	// TTL is the number of whole seconds after which the caller is to read again.
	TTL int64
}

// read is the hot path: it answers with the held token if that is valid, and good enough to
// be handed out without a look at anything else.
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

// reportEvery is how often a passive node forwards a read of a token that is due. It is longer than the two
// retries of Vault's Go client take (1 to 1.5 s, then 2 to 3 s): while there is no active node a retry gets the
// token that is held.
const reportEvery = 5 * time.Second

// reports reports whether this read of a due token is forwarded, on a passive node. It lets the active
// node learn of the reader: one read in reportEvery does, and the held token serves the others.
func (s *slot) reports(now time.Time) bool {
	at, last := int64(now.Sub(s.engine.epoch)), s.reported.Load()
	return (last == 0 || at-last >= int64(reportEvery)) && s.reported.CompareAndSwap(last, at)
}

// answer is the held token as it is handed out.
func (s *slot) answer(t *Token, now time.Time) Answer {
	var retry time.Time
	if f := s.failed.Load(); f != nil {
		retry = f.end(true)
	}
	return Answer{Token: t, TTL: t.readAgain(now, retry)}
}

// overdue starts a refresh that is due and that no timer started: because no caller had
// read the token for long, or because the wall clock was set ahead.
func (s *slot) overdue(now time.Time) {
	if s.flight.Load() != nil || s.turn.Load() != nil {
		return // all readers come here while a refresh takes or waits long: they need no lock for it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(now)
}

// cooldown is the age below which a token is not replaced on request.
const cooldown = 10 * time.Second

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
		return nil, nil, ErrReadOnly // see reports
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
