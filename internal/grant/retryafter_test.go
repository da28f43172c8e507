package grant

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// If Retry-After is missing, the end of the rate limit's window is used.
func TestEndOfTheRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		epoch := fmt.Sprint(now.Add(40 * time.Second).Unix())
		for _, tc := range []struct {
			status int
			header string // as "name: value, ..."
			value  string
			more   map[string]string
			want   time.Duration
		}{
			{429, "RateLimit-Reset", "30", nil, 30 * time.Second},
			{429, "X-RateLimit-Reset", "30", nil, 30 * time.Second},
			{429, "X-RateLimit-Reset", epoch, nil, 40 * time.Second},
			{429, "X-Rate-Limit-Reset", epoch, nil, 40 * time.Second},
			{429, "x-rate-limit-reset", fmt.Sprint(now.Add(40 * time.Second).UnixMilli()), nil, 40 * time.Second},
			{429, "X-RateLimit-Reset", now.Add(40 * time.Second).UTC().Format(time.RFC3339), nil, 40 * time.Second},
			{429, "X-RateLimit-Reset-After", "1.5", nil, 1500 * time.Millisecond},
			{429, "X-RateLimit-Reset", fmt.Sprint(now.Add(-time.Minute).Unix()), nil, 0},
			{429, "X-RateLimit-Reset", "6m0s", nil, 6 * time.Minute},
			{429, "X-RateLimit-Reset", "soon", nil, 0},
			{429, "RateLimit", `"default";r=0;t=30`, nil, 30 * time.Second},
			{429, "RateLimit", `"burst";r=0;t=30, "day";r=900;t=7200`, nil, 30 * time.Second},
			{429, "RateLimit", `"burst";r=3;t=30, "day";r=0;t=7200`, nil, 2 * time.Hour},
			{429, "RateLimit", `"burst";r=3;t=30`, nil, 30 * time.Second},
			{429, "RateLimit", `limit=100, remaining=0, reset=50`, nil, 50 * time.Second},
			{429, "RateLimit", `rubbish;;=,`, nil, 0},
			{429, "Retry-After", "5", map[string]string{"X-RateLimit-Reset": "60"}, 5 * time.Second},
			{429, "Retry-After", "0", map[string]string{"X-RateLimit-Reset": "60"}, 0},
			{429, "Retry-After", "soon", map[string]string{"X-RateLimit-Reset": "60"}, time.Minute},
			{503, "X-RateLimit-Reset", "60", nil, 0},
			{503, "X-RateLimit-Reset", "60", map[string]string{"X-RateLimit-Remaining": "7"}, 0},
			{503, "X-RateLimit-Reset", "60", map[string]string{"X-RateLimit-Remaining": "0"}, time.Minute},
			{400, "RateLimit-Reset", "60", map[string]string{"RateLimit-Remaining": "0"}, time.Minute},
		} {
			header := http.Header{}
			header.Set(tc.header, tc.value)
			for name, value := range tc.more {
				header.Set(name, value)
			}
			if got := retryAfter(tc.status, header, now); got != tc.want {
				t.Errorf("%d %v: %v, want %v", tc.status, header, got, tc.want)
			}
		}
	})
}

// A server states times on its own clock.
func TestRetryAfterGoesByTheServersClock(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, 0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
				server := time.Now().Add(skew).UTC()
				w.Header().Set("Date", server.Format(http.TimeFormat))
				w.Header().Set("X-Rate-Limit-Reset", fmt.Sprint(server.Add(50*time.Second).Unix()))
				answering(429, "", "")(w, req)
			}}
			_, err := newRequest(n).Do(t.Context())
			if unavailable, ok := err.(*UnavailableError); !ok || unavailable.RetryAfter != 50*time.Second {
				t.Errorf("%v: %#v", skew, err)
			}
		})
	}
}
