package tokens

import (
	"context"
	"slices"
	"time"
)

// State is a name's health in one word.
type State string

const (
	// StateOK: a valid token is held and the latest fetch succeeded.
	StateOK State = "ok"
	// StateFailing: the latest fetch failed; the held token is still valid.
	StateFailing State = "failing"
	// StateDown: the latest fetch failed, and a valid token is not held.
	StateDown State = "down"
	// StateIdle: the token is left to expire, since callers have stopped reading it.
	StateIdle State = "idle"
	// StateEmpty: a valid token is not held; the next read fetches one.
	StateEmpty State = "empty"
)

// States returns every state, the worst last.
func States() []State { return []State{StateOK, StateIdle, StateEmpty, StateFailing, StateDown} }

// Status is the health of a name, without secrets.
type Status struct {
	State State
	// Token is the held token if it is valid, for its ID and times; else nil.
	Token *Token
	// Failure describes the latest fetch if it failed; else nil.
	Failure *FailureStatus
	// Refreshing reports whether a fetch is under way.
	Refreshing bool
	// Unsaved reports whether the token could not be stored yet.
	Unsaved bool
	// LastRead is when the token was last read, accurate to a second. Loading from storage and a verified write count
	// as reads. Zero if the name is not in memory.
	LastRead time.Time
}

// FailureStatus describes a run of failures.
type FailureStatus struct {
	// Err is the latest failure, of the name or of its client. Reads return it if a valid token is not held.
	Err *FailedError
	// Since is when the first attempt of the run failed; At is when the attempt in Err failed.
	Since, At time.Time
	// NextAttempt is the earliest time of the next request to the authorization server.
	NextAttempt time.Time
	// Count is the number of failures in a row.
	Count int
	// Refusals is how many of the last failures were refusals.
	Refusals int
}

// Status returns the health of a name, from memory if it is there, else from storage. It never starts a fetch or a
// timer, and does not count as a read.
func (e *Engine) Status(ctx context.Context, name Name) (Status, error) {
	if s := e.peek(name); s != nil {
		if status, ok := s.status(time.Now()); ok {
			return status, nil
		}
	}
	terms, err := e.store.Terms(ctx, name)
	if err != nil {
		return Status{}, err
	}
	stored, err := e.store.Load(ctx, name)
	if err != nil {
		return Status{}, err
	}
	status := Status{State: StateEmpty}
	now := time.Now()
	if stored != nil && stored.Shape == terms.Shape {
		if t := stored.rebased(now); t.ValidAt(now) {
			status.State, status.Token = StateOK, t
		}
	}
	return status, nil
}

// Each calls f with the health of every name in memory, in random order.
func (e *Engine) Each(f func(Name, Status)) {
	now := time.Now()
	e.slots.Range(func(_, v any) bool {
		s := v.(*slot)
		if status, ok := s.status(now); ok {
			f(s.name, status)
		}
		return true
	})
}

// Failing reports whether the latest fetch failed for the name or, if that is a server, for one of its roles. It reads
// only memory.
func (e *Engine) Failing(name Name) bool {
	return slices.ContainsFunc(e.affected(name), func(s *slot) bool { return s.failed.Load() != nil })
}

// status returns false if the name is not loaded.
func (s *slot) status(now time.Time) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || !s.loaded {
		return Status{}, false
	}
	v := s.view(now, s.held.Load(), false)
	status := Status{
		State:      StateEmpty,
		Refreshing: v.flying,
		Unsaved:    s.unsaved,
		LastRead:   v.lastRead,
	}
	if v.token.ValidAt(now) {
		status.State, status.Token = StateOK, v.token
	}
	if f := s.failed.Load(); f != nil {
		status.Failure = &FailureStatus{Err: f.err(s.name), Since: f.since, At: f.latest().at, NextAttempt: v.windowEnd, Count: f.count}
		if f.refused() {
			status.Failure.Refusals = f.streak
		}
		status.State = StateDown
		if status.Token != nil {
			status.State = StateFailing
			status.Failure.Err.NextAttempt = v.windowEnd // while a token is held, later than for a read
		}
	} else if v.leftToExpire() {
		status.State = StateIdle
	}
	return status, true
}
