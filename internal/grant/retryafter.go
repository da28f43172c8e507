package grant

import (
	"net/http"
	"strings"
	"time"
)

// retryAfter returns how long the server asks not to be called, from now, a time of its clock; 0 if it does not ask.
// It reads Retry-After (RFC 9110 section 10.2.3). If that is missing and a rate limit is used up, it returns the time
// until the end of the limit's window.
func retryAfter(status int, header http.Header, now time.Time) time.Duration {
	if wait, ok := until(header.Get("Retry-After"), now); ok {
		return wait
	}
	if status != http.StatusTooManyRequests && !exhausted(header) {
		return 0 // servers send the end of the window with every answer
	}
	for _, name := range resetHeaders {
		if wait, ok := until(header.Get(name), now); ok {
			return wait
		}
	}
	return rateLimit(header.Values("RateLimit"), now)
}

// resetHeaders hold the end of a rate limit's window: in seconds from now, as a time since the epoch or as a
// date, whatever their spelling.
var resetHeaders = []string{
	"RateLimit-Reset", // the IETF's drafts of RateLimit fields, to version 6
	"X-RateLimit-Reset", "X-Rate-Limit-Reset", "X-RateLimit-Reset-After",
}

// exhausted reports whether a rate limit of the answer is used up.
func exhausted(header http.Header) bool {
	for _, name := range []string{"RateLimit-Remaining", "X-RateLimit-Remaining", "X-Rate-Limit-Remaining"} {
		if left, ok := parseNumber(header.Get(name)); ok && left <= 0 {
			return true
		}
	}
	return false
}

// rateLimit reads the RateLimit field of the IETF's drafts: `"burst";r=0;t=30, "day";r=900;t=7200` from version 8,
// `limit=10, remaining=0, reset=30` in version 7. Among several policies it prefers the exhausted.
func rateLimit(values []string, now time.Time) time.Duration {
	var used, all time.Duration
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		wait, left := time.Duration(0), "0"
		for param := range strings.SplitSeq(item, ";") {
			switch name, value, _ := strings.Cut(strings.TrimSpace(param), "="); name {
			case "t", "reset":
				wait, _ = until(value, now)
			case "r":
				left = value
			}
		}
		all = max(all, wait)
		if left == "0" {
			used = max(used, wait)
		}
	}
	if used > 0 {
		return used
	}
	return all
}
