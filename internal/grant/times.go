package grant

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxDuration bounds the times that a server names.
const maxDuration = 365 * 24 * time.Hour

// until reads a time as a duration from now: seconds, a duration with units, a time since the epoch or a date. A past
// time is 0, and the result is at most maxDuration. ok is false if s cannot be read.
func until(s string, now time.Time) (d time.Duration, ok bool) {
	if at, ok := parseTime(s); ok {
		return min(max(0, at.Sub(now)), maxDuration), true
	}
	if seconds, ok := parseNumber(s); ok {
		return duration(seconds), true
	}
	return parseDuration(s)
}

// dateLayouts are the forms of dates in HTTP (RFC 9110 section 5.6.7) and in JSON.
var dateLayouts = []string{
	time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 Z0700",
	"2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700 MST", "2006-01-02T15:04Z07:00", "20060102T150405Z0700",
	"Mon, 2 Jan 2006 15:04:05 MST", "Mon, 2 Jan 2006 15:04:05 Z0700", time.RFC850, time.UnixDate,
	"1/2/2006 3:04:05 PM Z07:00", "1/2/2006 15:04:05 Z07:00", // Azure App Service's expires_on
}

// localLayouts are the layouts without a zone. They are read as UTC.
var localLayouts = []string{
	"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", time.ANSIC, "1/2/2006 3:04:05 PM",
	"1/2/2006 15:04:05",
}

// widestZone is the largest offset of a zone from UTC.
const widestZone = 14 * time.Hour

// isLocal reports whether a date lacks a zone.
func isLocal(s string) bool {
	return slices.ContainsFunc(localLayouts, func(layout string) bool {
		_, err := time.Parse(layout, strings.TrimSpace(s))
		return err == nil
	})
}

// windowsDate is a time in .NET's JSON: milliseconds, then an offset without meaning.
var windowsDate = regexp.MustCompile(`^\\?/Date\((\d+)([-+]\d{4})?\)\\?/$`)

// parseTime reads a point in time: a date, or a number that can only be a time since the epoch.
func parseTime(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if n, ok := parseNumber(s); ok {
		return epochTime(n)
	}
	if parts := windowsDate.FindStringSubmatch(s); parts != nil {
		n, _ := parseNumber(parts[1])
		return time.UnixMilli(int64(min(n, epochEnd*1000))), true
	}
	for _, layout := range slices.Concat(dateLayouts, localLayouts) {
		if at, err := time.Parse(layout, s); err == nil {
			// The parser reads an unknown abbreviation of a zone as UTC.
			named := strings.Contains(layout, "MST") && !strings.Contains(s, "GMT") && !strings.Contains(s, "UTC")
			return at, !named
		}
	}
	return time.Time{}, false
}

// A number from epochSeconds on is a time since the epoch: as a duration it would be 28 years. From epochEnd
// on it counts milliseconds, microseconds or nanoseconds.
const (
	epochSeconds = 9e8                  // the year 1998
	epochEnd     = 253402300800         // the year 10000
	epochMost    = (epochEnd - 1) * 1e9 // in nanoseconds
)

// epochTime returns the time of a number that can only be a time since the epoch; false if n is too small for that.
func epochTime(n float64) (time.Time, bool) {
	return sinceEpoch(n), n >= epochSeconds
}

// sinceEpoch returns the time n seconds after the epoch. From epochEnd on, n counts milliseconds, microseconds or
// nanoseconds.
func sinceEpoch(n float64) time.Time {
	for n = min(n, epochMost); n >= epochEnd; {
		n /= 1000
	}
	seconds, fraction := math.Modf(n)
	return time.Unix(int64(seconds), int64(fraction*1e9))
}

// span is a part of a duration: a number and its unit.
var span = regexp.MustCompile(`(\d+(?:\.\d+)?) ?([a-zµ]+) ?`)

// spans is a duration: "1h30m", "3600 seconds", "7d".
var spans = regexp.MustCompile(`^(?:` + span.String() + `)+$`)

// clockSpan is a duration as .NET has it: "01:00:00", "7.00:00:00".
var clockSpan = regexp.MustCompile(`^(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)$`)

// unitSeconds are the units of durations, without a plural's s.
var unitSeconds = map[string]float64{
	"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "msec": 1e-3, "milli": 1e-3, "millisecond": 1e-3,
	"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600,
	"d": 86400, "day": 86400, "w": 604800, "week": 604800, "month": 2592000, "y": 31536000, "yr": 31536000, "year": 31536000,
}

// parseDuration reads a duration with units, from 0 to maxDuration.
func parseDuration(s string) (time.Duration, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	if parts := clockSpan.FindStringSubmatch(s); parts != nil {
		total := 0.0
		for i, seconds := range []float64{86400, 3600, 60, 1} {
			n, _ := parseNumber(parts[i+1])
			total += n * seconds
		}
		return duration(total), true
	}
	if strings.HasPrefix(s, "p") { // ISO 8601's "PT1H" and "P1DT12H"
		s = strings.NewReplacer("p", "", "t", "").Replace(s)
	}
	s, negative := strings.CutPrefix(s, "-")
	if !spans.MatchString(s) {
		return 0, false
	}
	total := 0.0
	for _, parts := range span.FindAllStringSubmatch(s, -1) {
		n, _ := parseNumber(parts[1])
		unit := parts[2]
		seconds, ok := unitSeconds[unit]
		if !ok {
			seconds, ok = unitSeconds[strings.TrimSuffix(unit, "s")]
		}
		if !ok {
			return 0, false
		}
		total += n * seconds
	}
	if negative {
		total = 0
	}
	return duration(total), true
}

// number is a JSON number, or one with a sign or leading zeros.
var number = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// parseNumber reads a number. If it is out of range the result is an infinity.
func parseNumber(s string) (float64, bool) {
	if s = strings.TrimSpace(s); !number.MatchString(s) {
		return 0, false
	}
	n, _ := strconv.ParseFloat(s, 64)
	return n, true
}

// duration returns seconds as a time.Duration, from 0 to maxDuration to avoid overflow.
func duration(seconds float64) time.Duration {
	return time.Duration(math.Max(0, math.Min(seconds, maxDuration.Seconds())) * float64(time.Second))
}
