package grant

import (
	"net/http"
	"time"
)

// clock converts times of the authorization server's clock to times of this machine's clock. The two may be minutes
// apart.
type clock struct {
	// server is the server's time when it answered, from the Date header (RFC 9110 section 6.6.1); without the
	// header, the time when the request began.
	server time.Time
	// apart is set if the two clocks differ.
	apart bool
	// answered is when the answer was sent by the server's clock, if known; else when it was received.
	answered time.Time
}

// newClock compares the clocks. The request began at begun, and its answer came at received.
func newClock(begun, received time.Time, header http.Header) clock {
	begun = begun.Round(0).Truncate(time.Second) // Date and a token's times have whole seconds
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return clock{server: begun, answered: received}
	}
	// A cache may have kept the answer (RFC 9111 section 5.1).
	if age, ok := parseNumber(header.Get("Age")); ok {
		date = date.Add(duration(age))
	}
	// Servers compute the Date once a second, so it may be a second old.
	if date.Before(begun.Add(-time.Second)) || date.After(received) {
		return clock{server: date, apart: true, answered: date}
	}
	if date.Before(begun) {
		date = begun
	}
	return clock{server: date, answered: received}
}

// left returns the time until end, a time of the server's clock, from the whole second in which the request began. It
// is never too long. issued is when the token was issued, by the same clock; zero if unknown.
func (c clock) left(end, issued time.Time) time.Duration {
	now := c.server
	if issued.After(now) && issued.Before(end) {
		now = issued // the clock that issued the token is ahead of Date
	}
	left := end.Sub(now)
	if c.apart && left > time.Second {
		left -= time.Second // the clocks' seconds begin at different moments
	}
	return min(left, maxDuration)
}
