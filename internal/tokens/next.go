package tokens

import "time"

// view is the input of the decision about a name's next fetch.
type view struct {
	now time.Time
	// token is the held token, valid or not; nil without one, or if a broker reported it as refused.
	token *Token
	// failing reports whether the latest attempt failed, at failedAt. The authorization server is not called
	// before windowEnd.
	failing             bool
	failedAt, windowEnd time.Time
	// storageRetryAt is the earliest time of background work after a storage failure; else zero.
	storageRetryAt time.Time
	// lastRead is when a caller last asked for the token.
	lastRead time.Time
	// idleTimeout is the terms' idle timeout; 0 is never.
	idleTimeout time.Duration
	// asked reports whether a caller asks now.
	asked bool
	// flying reports whether a flight is under way.
	flying bool
	// stopped reports whether this node may not start work: it may not fetch, or it is closing.
	stopped bool
}

// action is the next action for a name.
type action int

const (
	// park: wait until a caller asks.
	park action = iota
	// wait: wait for the flight under way.
	wait
	// fetch: a flight starts at step.at.
	fetch
)

// step is the decision.
type step struct {
	do action
	at time.Time // of a fetch
	// serve reports whether a caller gets the held token.
	serve bool
}

// next decides the next action for a name. Every such decision is made here.
func next(v view) step {
	valid := v.token.ValidAt(v.now)
	due := v.now
	switch {
	case v.failing:
		due = v.windowEnd
	case valid:
		due = v.token.RefreshAt
	}
	isDue := left(due, v.now) <= 0
	short := v.token != nil && ShortLived(v.token.Lifetime())
	// A caller gets a short-lived token in the first half of its life, and later only if a new one is not available.
	s := step{serve: valid && !(v.asked && short && isDue && left(v.token.RefreshAt, v.now) <= 0)}
	switch {
	case v.stopped:
	case v.flying:
		s.do = wait
	case valid && !short:
		due = later(due, v.storageRetryAt)
		if left(due, v.now) > 0 || !v.idle() {
			s.do, s.at = fetch, due
		}
	case v.asked:
		s.do, s.at = fetch, due
	case short:
	case v.failing && v.wanted(), !v.failing && v.token != nil && !v.idle():
		s.do, s.at = fetch, later(due, v.storageRetryAt)
	}
	return s
}

// idle reports whether the token has been unread for so long that it is left to expire.
func (v view) idle() bool {
	return v.idleTimeout > 0 && v.now.Sub(v.lastRead) > max(v.idleTimeout, v.token.Lifetime())
}

// leftToExpire reports whether a due refresh is skipped, since callers have stopped reading the token.
func (v view) leftToExpire() bool {
	return !v.stopped && v.token != nil && left(v.token.RefreshAt, v.now) <= 0 && v.idle()
}

// wanted reports whether a caller has asked since the failure.
func (v view) wanted() bool { return v.lastRead.After(v.failedAt) }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
