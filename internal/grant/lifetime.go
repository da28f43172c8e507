package grant

import (
	"regexp"
	"strings"
	"time"
)

// lifetime is a parameter of an answer about the token's end.
type lifetime struct {
	name  string // the parameter
	value string
	unit  float64 // of a number, in seconds
	at    bool    // by its name, the parameter may be a point in time
}

// expiryName matches the plainName of a parameter about the access token's end: RFC 6749's expires_in, and
// expires_on, expires_at, expires, expiresIn, expires_in_sec, expiration, expiry, ".expires", validity_period,
// valid_until, ttl and others. It does not match parameters of refresh tokens, nor Entra's ext_expires_in, which is
// for outages.
var expiryName = regexp.MustCompile(`^(?:access)?(?:token)?(?:(?:exp|expires?|expiry|expiration)(in|after|at|on|time|date|utc|timestamp|epoch|unix)*|valid(for|until|to)|(?:validity(?:period)?|ttl|lifetime)(in)?)(sec|secs|seconds|ms|msec|msecs|millis|milliseconds|min|mins|minutes)?$`)

// newLifetime reads a parameter of an answer; false if it is not about the token's end.
func newLifetime(name, value string) (lifetime, bool) {
	value = strings.TrimSpace(value)
	parts := expiryName.FindStringSubmatch(plainName(name))
	if parts == nil || unsaid[strings.ToLower(value)] {
		return lifetime{}, false
	}
	l := lifetime{name: name, value: value, unit: 1}
	switch unit := parts[4]; {
	case strings.HasPrefix(unit, "min"):
		l.unit = 60
	case strings.HasPrefix(unit, "m"):
		l.unit = 0.001
	}
	switch parts[1] + parts[2] + parts[3] {
	case "in", "after", "for":
	default:
		l.at = true
	}
	return l, true
}

// unsaid are the texts by which various languages print a missing value.
var unsaid = map[string]bool{
	"": true, "null": true, "none": true, "nil": true, "undefined": true, "false": true,
}

// leastLifetime returns the token's lifetime, counted from the second in which the request began. It is the shortest
// in the answer and, if the token is a JWT, in the token; 0 if both lack one. problem is why the token can't be
// handed out; "" if it can.
func leastLifetime(accessToken string, said []lifetime, c clock) (least time.Duration, problem string) {
	note := func(left time.Duration) {
		if least == 0 || left < least {
			least = left
		}
	}
	if claims, ok := ParseClaims(accessToken); ok && !claims.Expires.IsZero() {
		left := c.left(claims.Expires, claims.IssuedAt)
		if left <= 0 {
			return 0, c.expired("its exp claim", claims.Expires)
		}
		note(left)
	}
	for _, l := range said {
		if end, ok := l.end(c); ok {
			left := c.left(end, time.Time{})
			switch {
			case left > 0:
				note(left)
			case end.Unix() <= 0: // the zero time of a library, for a token that never expires
			case isLocal(l.value) && c.server.Sub(end) < widestZone: // may be the time of another zone
			default:
				return 0, c.expired("the answer's "+l.plain(), end)
			}
			continue
		}
		left, ok := l.duration()
		switch {
		case ok && left > 0:
			note(left)
		case !ok && l.name == "expires_in":
			return 0, "the expires_in is neither a number of seconds from now nor a time"
		}
	}
	return least, ""
}

// expired returns the problem of an expired token, which ended at end.
func (c clock) expired(by string, end time.Time) string {
	return "the access_token has expired already: " + by + " is " + end.UTC().Format(time.RFC3339) +
		", and the authorization server's clock says " + c.server.UTC().Format(time.RFC3339)
}

// end returns the lifetime as a point in time by the server's clock; false if it is a duration.
func (l lifetime) end(c clock) (time.Time, bool) {
	end, ok := parseTime(l.value)
	if _, isNumber := parseNumber(l.value); isNumber && !l.at && !end.After(c.server) {
		return time.Time{}, false // many years in seconds, for a token that never expires
	}
	return end, ok
}

// duration returns the lifetime as a duration; 0 means that the server states none. ok is false if it is not a
// duration.
func (l lifetime) duration() (d time.Duration, ok bool) {
	n, ok := parseNumber(l.value)
	if !ok {
		return parseDuration(l.value)
	}
	if d = duration(n * l.unit); n > 0 && d == 0 {
		return 0, false
	}
	return d, true
}

// plain returns the parameter's name for an error.
func (l lifetime) plain() string { return plainName(l.name) }
