package grant

import (
	"regexp"
	"strings"
	"time"
)

// lifetime is one thing that an answer says of the token's end.
type lifetime struct {
	name   string // the parameter
	value  string
	millis bool // a number is milliseconds
	at     bool // the parameter may name a point in time, by its name
}

// expiryName is the name of a parameter that says when the access token ends, with plainName: RFC 6749's
// expires_in, and expires_on, expires_at, expires, expiresIn, expires_in_sec, expiration, expiry, ".expires"
// and others. Those of refresh tokens don't match, nor does Entra's ext_expires_in, which is for outages.
var expiryName = regexp.MustCompile(`^(access)?(token)?(exp|expires?|expiry|expiration)(in|at|on|time|date|utc|timestamp)*(sec|secs|seconds|ms|msec|msecs|millis|milliseconds)?$`)

// newLifetime reads a parameter of an answer; false if it says nothing of the token's end.
func newLifetime(name, value string) (lifetime, bool) {
	plain := plainName(name)
	value = strings.TrimSpace(value)
	parts := expiryName.FindStringSubmatch(plain)
	if parts == nil || value == "" {
		return lifetime{}, false
	}
	return lifetime{
		name:   name,
		value:  value,
		millis: strings.HasPrefix(parts[5], "m"),
		at:     parts[4] != "in",
	}, true
}

// leastLifetime is the time from the second in which the request began to the token's end: the least of what
// the answer and, if it is a JWT, the token say. 0 means that neither says. problem says why the token can't be
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
			if left <= 0 {
				return 0, c.expired("the answer's "+l.plain(), end)
			}
			note(left)
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

// expired is the problem with a token that ended at end.
func (c clock) expired(by string, end time.Time) string {
	return "the access_token has expired already: " + by + " is " + end.UTC().Format(time.RFC3339) +
		", and the authorization server's clock says " + c.server.UTC().Format(time.RFC3339)
}

// end is the lifetime as a point in time by the server's clock; false if it is a duration.
func (l lifetime) end(c clock) (time.Time, bool) {
	end, ok := parseTime(l.value)
	if _, isNumber := parseNumber(l.value); isNumber && !l.at && !end.After(c.server) {
		return time.Time{}, false // many years in seconds, for a token without an end
	}
	return end, ok
}

// duration is the lifetime as a duration; 0 if the server means that it does not say. ok is false for what is
// none.
func (l lifetime) duration() (d time.Duration, ok bool) {
	n, ok := parseNumber(l.value)
	if !ok {
		d, err := time.ParseDuration(l.value)
		return min(d, maxDuration), err == nil
	}
	if l.millis {
		n /= 1000
	}
	if d = duration(n); n > 0 && d == 0 {
		return 0, false
	}
	return d, true
}

// plain is the parameter's name for an error.
func (l lifetime) plain() string { return plainName(l.name) }
