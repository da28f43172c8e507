package tokens

import (
	"errors"
	"time"
)

// advance starts a background flight if it is due. If it is due later, it sets the timer. mu is held.
func (s *slot) advance(now time.Time) {
	if s.due(now) {
		s.refresh(false)
	}
}

// due reports whether a background flight is due. If it is due later, it sets the timer. mu is held.
func (s *slot) due(now time.Time) bool {
	s.stopTimer()
	st := next(s.view(now, s.held.Load(), false))
	if st.do != fetch {
		return false
	}
	wait := left(st.at, now)
	if wait > 0 {
		s.setTimer(wait)
	}
	return wait <= 0
}

// setTimer arms the slot's timer, which must be stopped. A stopped timer may still fire: due decides again. mu is
// held.
func (s *slot) setTimer(wait time.Duration) {
	s.timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.due(time.Now()) {
			s.refresh(true)
		}
	})
}

// refresh starts a flight in the background, at once or when its turn comes. mu is held.
func (s *slot) refresh(timed bool) {
	if s.turn.Load() != nil {
		return
	}
	host := s.host.Value()
	launch := func() bool {
		return s.launch(&flight{
			replaces:   s.held.Load().ID(),
			timed:      timed,
			leavePlace: func() { s.engine.leavePlace(host) },
		}) == nil // fails only if the engine is closing
	}
	t := &turn{timed: timed}
	t.start = func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.turn.Load() == t && launch()
	}
	if s.engine.lines.enter(host, t) {
		launch()
	} else {
		s.turn.Store(t)
	}
}

// leavePlace gives back a place for background work at a host, and starts the next refresh in line.
func (e *Engine) leavePlace(host string) {
	for {
		t, at := e.lines.leave(host)
		if t == nil || t.start() {
			return
		}
		host = at
	}
}

// waitForProbe makes a refresh wait until the client's probe has ended and, if the probe failed, for the end of the
// window. mu is held.
func (s *slot) waitForProbe(c *client, timed bool) {
	t := &turn{timed: timed}
	t.start = func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.turn.Load() != t {
			return false
		}
		s.turn.Store(nil)
		if c.failed.Load() == nil || s.due(time.Now()) {
			s.refresh(timed)
		}
		return true
	}
	if c.wait(t) {
		s.turn.Store(t)
	} else {
		s.refresh(timed)
	}
}

// launch starts a flight. It returns ErrClosed if the engine is closing. mu is held, and a flight must not be under
// way.
func (s *slot) launch(f *flight) error {
	f.name, f.done = s.name, make(chan struct{})
	if t := s.turn.Load(); t != nil { // a caller starts the queued refresh before its turn
		f.timed = t.timed
	}
	a := s.begin()
	if !s.engine.spawn(func() { s.fly(f, a) }) {
		return ErrClosed
	}
	s.turn.Store(nil)
	s.flight.Store(f)
	return nil
}

// fly runs a flight to its end: it reads storage, calls the authorization server if that is still needed, and begins
// again if the name's terms change meanwhile.
func (s *slot) fly(f *flight, a attempt) {
	defer f.leave()
	var terms *Terms // nil until they are read
	for {
		var o outcome
		unlock := func() {}
		if terms == nil {
			// This read precedes every call to an authorization server, so a plugin that has lost its Vault never
			// calls one.
			o = s.look(a.ctx, a.load)
		} else {
			o = s.ask(a, f, terms)
			f.leave() // storage may hang
			o, unlock = s.save(a, o)
		}
		progress, next := s.commit(f, a, o)
		unlock()
		if o.recovered != nil {
			s.engine.wake(o.recovered, "")
		}
		switch progress {
		case ended:
			return
		case looked:
			terms = o.terms
		case voided:
			// The change that voided the attempt may hold the write lock, and may publish the token. Wait for it.
			if unlock, err := s.engine.lock(s.engine.ctx, s.name.Server); err == nil {
				unlock()
			}
			a, terms = next, nil
		}
	}
}

// progress is how a flight continues after an attempt.
type progress int

const (
	ended  progress = iota // the results are set
	looked                 // a token must still be fetched
	voided                 // the terms changed meanwhile: the attempt is void
)

// commit sets the flight's results from the outcome of an attempt. If the attempt is void it returns the next one.
func (s *slot) commit(f *flight, a attempt, o outcome) (progress, attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if a.revision != s.revision && !s.gone {
		f.shape = ""
		return voided, s.begin()
	}
	prev := s.held.Load()
	if o.err == nil {
		f.shape = o.terms.Shape
	}
	switch err := s.apply(o, now); {
	case errors.Is(err, ErrNotConfigured):
		f.err = err
	case err != nil && s.engine.ctx.Err() != nil:
		f.err = ErrClosed
	case err != nil:
		f.err = err
		s.storageFailed(err, now)
	case o.failure != nil: // callers read the slot again, and find it
	case o.probing != nil: // callers who came meanwhile read the slot again, and wait
	case o.token != nil:
		f.token = o.token
		if f.timed && prev != nil && !now.Before(prev.RefreshAt) {
			s.engine.observer.Refreshed(now.Sub(prev.RefreshAt))
		}
	default:
		if t := s.held.Load(); t.ValidAt(now) && t.ID() != f.replaces {
			break // the callers get this token
		}
		if !s.engine.passive() {
			return looked, a
		}
		f.err = ErrReadOnly
	}
	s.endAttempt()
	s.flight.Store(nil)
	if o.probing != nil {
		s.waitForProbe(o.probing, f.timed)
	} else {
		s.advance(now)
	}
	close(f.done)
	return ended, a
}

// wake starts due flights for the names of a client that works again. It leaves out the names of the server that is
// being written, if any: the write starts their flights, on the new terms.
func (e *Engine) wake(c *client, written string) {
	now := time.Now()
	e.slots.Range(func(_, v any) bool {
		s := v.(*slot)
		if f := s.failed.Load(); f != nil && f.client == c && s.name.Server != written {
			s.mu.Lock()
			s.advance(now)
			s.mu.Unlock()
		}
		return true
	})
}
