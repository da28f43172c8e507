package brokerauth

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A server may refuse each token, for its audience, say, or for want of a scope that one tool needs. So that
// this does not cost the authorization server a request every few seconds for ever, a token that came in
// place of a refused one is replaced in turn after the first window at the earliest, the next one after
// twice that, and so on up to the most.
const (
	streakFirst = 30 * time.Second
	streakMost  = 15 * time.Minute
)

// A streak is of tokens that were obtained one in place of the other, as the MCP server refused each. The
// mutex that guards it is its owner's.
type streak struct {
	count   int       // of such tokens
	until   time.Time // the latest is not replaced before
	ends    time.Time // the streak, unless a token is refused by then
	refused string    // id of the token refused last, "" if none of them was
}

// refuse notes that a token with this id and ttl was refused at now. It returns why it is not to be
// replaced yet, or nil.
func (k *streak) refuse(id string, ttl time.Duration, now time.Time) error {
	if k.count > 0 && !now.Before(k.ends) {
		*k = streak{}
	}
	if k.count == 0 {
		return nil
	}
	k.refused, k.ends = id, now.Add(ttl)
	if wait := k.until.Sub(now); wait > 0 {
		return fmt.Errorf("%w: the MCP server refuses one after the other, so the next one is due in %s",
			ErrNotReplaced, wait.Round(time.Second))
	}
	return nil
}

// replace notes that one with this ttl has taken the refused token's place at now.
func (k *streak) replace(ttl time.Duration, now time.Time) {
	window := min(streakFirst<<min(k.count, 16), streakMost)
	*k = streak{
		count: k.count + 1,
		until: now.Add(window - rand.N(window/4)), //nolint:gosec // spreads load, guards nothing
		ends:  now.Add(ttl),
	}
}

// accept notes that the MCP server took the token with this id at now. If it has refused it to another
// request, that tells nothing: the next one would be refused to that request too. Nor does it before the
// window is over, as the other request may be under way.
func (k *streak) accept(id string, now time.Time) {
	if k.refused != id && !now.Before(k.until) {
		*k = streak{}
	}
}
