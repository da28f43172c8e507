package fleet

import "time"

// token holds the times of a tokens.Token that decide its reads and refreshes, counted from the start of the
// simulation. The formulas are those of internal/tokens/token.go, with the random draws as parameters.
// TestModelAgreesWithEngine compares the two.
type token struct {
	obtained  time.Duration // when readers can get it
	refreshAt time.Duration
	expires   time.Duration
	lifetime  time.Duration
}

// newToken returns the token requested at a time. draw, in [0, 1), is the jitter of its refresh.
func newToken(at, lifetime, latency time.Duration, draw float64) token {
	m := margin(lifetime)
	early := time.Duration(draw * float64(m/10))
	return token{
		obtained:  at + latency,
		refreshAt: at + max(lifetime-m-early, min(time.Second, lifetime)),
		expires:   roundDown(at) + lifetime,
		lifetime:  lifetime,
	}
}

// margin returns how long before its end a token is refreshed.
func margin(lifetime time.Duration) time.Duration {
	return max(lifetime/4, min(30*time.Second, lifetime/2))
}

// ttl returns the ttl of an answer at now, in whole seconds. draw, in [0, 1), is the answer's jitter.
func (t token) ttl(now time.Duration, draw float64) time.Duration {
	wait := 3 * time.Second // the refresh is under way
	if t.refreshAt > now {
		spread := time.Duration(draw * float64(margin(t.lifetime)/3))
		wait = wholeSeconds(t.refreshAt-now) + time.Second + spread.Truncate(time.Second)
	}
	left := (t.expires - now).Truncate(time.Second)
	return max(time.Second, min(wait, left-2*time.Second))
}

// over returns the part of a period that lies after the token's end.
func (t token) over(from, to time.Duration) time.Duration {
	return max(0, to-max(from, t.expires))
}

// roundDown returns d, which may be negative, rounded down to a second.
func roundDown(d time.Duration) time.Duration { return -wholeSeconds(-d) }

// wholeSeconds returns d rounded up to a second.
func wholeSeconds(d time.Duration) time.Duration {
	up := d.Truncate(time.Second)
	if up < d {
		up += time.Second
	}
	return up
}
