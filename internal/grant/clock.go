package grant

import (
	"net/http"
	"time"
)

// clock converts the end of a token by the authorization server's clock in terms of this machine's: the two may
// be minutes apart, and a time that the server names is one of its own clock.
type clock struct {
	// server is the server's time when it answered, by the answer's Date (RFC 9110 section 6.6.1); when
	// the request began if there is none.
	server time.Time
	// apart is set if the two clocks differ.
	apart bool
	// answered is the moment of the answer by the server's clock, as far as that is known.
	answered time.Time
}

// newClock compares the clocks. The request began at begun, and its answer came at received.
func newClock(begun, received time.Time, header http.Header) clock {
	begun = begun.Round(0).Truncate(time.Second) // Date has whole seconds, and so have a token's times
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return clock{server: begun, answered: received}
	}
	// A cache may have kept the answer (RFC 9111 section 5.1).
	if age, ok := parseNumber(header.Get("Age")); ok {
		date = date.Add(duration(age))
	}
	// Servers compute the Date once a second, so it may be of the second before.
	if date.Before(begun.Add(-time.Second)) || date.After(received) {
		return clock{server: date, apart: true, answered: date}
	}
	if date.Before(begun) {
		date = begun
	}
	return clock{server: date, answered: received}
}

// left is the time from the whole second in which the request began to end, which is by the server's clock.
// It errs on the side of less. issued is when the token was issued, by the same clock; zero if unknown.
func (c clock) left(end, issued time.Time) time.Duration {
	now := c.server
	if issued.After(now) && issued.Before(end) {
		now = issued // the token's clock is ahead of the one of Date
	}
	left := end.Sub(now)
	if c.apart && left > time.Second {
		left -= time.Second // the clocks' seconds begin at different moments
	}
	return min(left, maxDuration)
}
