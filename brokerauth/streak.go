package brokerauth

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// An MCP server may refuse every token, for example because of the audience. This must not cost the authorization
// server a request every few seconds. So a token that replaced a refused one is itself replaced after streakFirst at
// the earliest, the next one after twice that, and so on up to streakMost.
const (
	streakFirst = 30 * time.Second
	streakMost  = 15 * time.Minute
)

// A streak is a series of replacements because the MCP server refuses token after token. It is guarded by its owner's
// mutex.
type streak struct {
	count   int       // replaced tokens
	until   time.Time // earliest replacement of the latest token
	ends    time.Time // end of the streak, unless a token is refused before
	refused string    // id of the last refused token, or ""
}

// refuse records that a token with this id and ttl was refused at now. It returns an error if the token may not be
// replaced yet.
func (k *streak) refuse(id string, ttl time.Duration, now time.Time) error {
	if k.count > 0 && !now.Before(k.ends) {
		*k = streak{}
	}
	if k.count == 0 {
		return nil
	}
	k.refused, k.ends = id, now.Add(ttl)
	if wait := k.until.Sub(now); wait > 0 {
		return fmt.Errorf("%w: the MCP server refuses each new token, so the next one is fetched in %s at the earliest",
			ErrNotReplaced, wait.Round(time.Second))
	}
	return nil
}

// replace records that a token with this ttl has replaced the refused one at now.
func (k *streak) replace(ttl time.Duration, now time.Time) {
	window := min(streakFirst<<min(k.count, 16), streakMost)
	*k = streak{
		count: k.count + 1,
		until: now.Add(window - rand.N(window/4)), //nolint:gosec // spreads load, guards nothing
		ends:  now.Add(ttl),
	}
}

// accept records that the MCP server accepted the token with this id at now. That ends the streak, with two
// exceptions: the server has refused the same token to another request, or the window is not over, because another
// request may still be in flight.
func (k *streak) accept(id string, now time.Time) {
	if k.refused != id && !now.Before(k.until) {
		*k = streak{}
	}
}
