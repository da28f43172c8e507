package grant

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxDuration bounds what a server says of times.
const maxDuration = 365 * 24 * time.Hour

// until reads a time as a duration from now: seconds, a time since the epoch in seconds or milliseconds, or
// a date. What is past is 0; at most maxDuration. ok is false for what is none of these.
func until(s string, now time.Time) (d time.Duration, ok bool) {
	if at, ok := parseTime(s); ok {
		return min(max(0, at.Sub(now)), maxDuration), true
	}
	seconds, ok := parseNumber(s)
	return duration(seconds), ok
}

// dateLayouts are the forms of dates in HTTP (RFC 9110 section 5.6.7) and in JSON. Without a zone it is UTC.
var dateLayouts = []string{
	time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05 Z0700", "2006-01-02 15:04:05 MST", "2006-01-02 15:04:05",
	"Mon, 2 Jan 2006 15:04:05 MST", "Mon, 2 Jan 2006 15:04:05 Z0700", time.RFC850, time.ANSIC, time.UnixDate,
	"1/2/2006 3:04:05 PM Z07:00", "1/2/2006 15:04:05 Z07:00", // Azure App Service's expires_on
}

// parseTime reads a point in time: a date, or a number that only a time since the epoch can be.
func parseTime(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if n, ok := parseNumber(s); ok {
		return epochTime(n)
	}
	for _, layout := range dateLayouts {
		if at, err := time.Parse(layout, s); err == nil {
			// The parser takes the abbreviation of a zone that it does not know for UTC.
			named := strings.Contains(layout, "MST") && !strings.Contains(s, "GMT") && !strings.Contains(s, "UTC")
			return at, !named
		}
	}
	return time.Time{}, false
}

// A number from epochSeconds on is a time since the epoch: as a duration it would be 28 years.
const (
	epochSeconds = 9e8          // the year 1998
	epochMillis  = 1e11         // in milliseconds the year 1973, in seconds 5138
	epochEnd     = 253402300799 // the end of the year 9999
)

// epochTime is a number that can only be a time since the epoch; false if it is too small for that.
func epochTime(n float64) (time.Time, bool) {
	return sinceEpoch(n), n >= epochSeconds
}

// sinceEpoch is n seconds or, if that is thousands of years away, milliseconds since the epoch.
func sinceEpoch(n float64) time.Time {
	if n >= epochMillis {
		n /= 1000
	}
	seconds, fraction := math.Modf(min(n, epochEnd))
	return time.Unix(int64(seconds), int64(fraction*1e9))
}

// number is a JSON number, or one with a sign or leading zeros.
var number = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// parseNumber reads a number. One out of range is an infinity, which is what it should be.
func parseNumber(s string) (float64, bool) {
	if s = strings.TrimSpace(s); !number.MatchString(s) {
		return 0, false
	}
	n, _ := strconv.ParseFloat(s, 64)
	return n, true
}

// duration is seconds as a time.Duration from 0 to maxDuration, which keeps clear of overflow.
func duration(seconds float64) time.Duration {
	return time.Duration(math.Max(0, math.Min(seconds, maxDuration.Seconds())) * float64(time.Second))
}
