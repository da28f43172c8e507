package tokens

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// This tests all states of a name. Two guarantees follow: a valid token has a timer or a flight, unless it is idle;
// and the server gets one request per window.
func TestNextOfEveryView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1000 * time.Hour)
		now := time.Now()
		at := now.Add
		token := func(lifetime, age time.Duration) *Token {
			issued := at(-age)
			return &Token{Issued: issued, Expires: issued.Add(lifetime), RefreshAt: issued.Add(lifetime - margin(lifetime))}
		}
		bools := []bool{false, true}
		seen := 0
		for name, tok := range map[string]*Token{
			"none": nil, "fresh": token(time.Hour, time.Minute), "due": token(time.Hour, 50*time.Minute), "expired": token(time.Hour, 2*time.Hour),
			"short fresh": token(8*time.Second, time.Second), "short due": token(8*time.Second, 5*time.Second), "short expired": token(8*time.Second, time.Minute),
		} {
			for _, failing := range bools {
				for _, window := range []time.Duration{-time.Second, 0, time.Second} {
					for _, storage := range []time.Duration{-time.Minute, time.Minute} {
						for _, unread := range []time.Duration{0, 30 * time.Second, 25 * time.Hour} {
							for _, flags := range [][3]bool{{}, {true}, {false, true}, {false, false, true}, {true, true}, {true, false, true}, {false, true, true}, {true, true, true}} {
								v := view{
									now: now, token: tok, failing: failing, storageRetryAt: at(storage), lastRead: at(-unread),
									idleTimeout: 24 * time.Hour, asked: flags[0], flying: flags[1], stopped: flags[2],
								}
								if failing {
									v.failedAt, v.windowEnd = at(-10*time.Second), at(window)
								}
								seen++
								checkNext(t, fmt.Sprintf("%s, %+v", name, v), v, next(v))
							}
						}
					}
				}
			}
		}
		if seen != 7*2*3*2*3*8 {
			t.Errorf("%d views", seen)
		}
	})
}

func checkNext(t *testing.T, name string, v view, s step) {
	t.Helper()
	valid := v.token.ValidAt(v.now)
	short := v.token != nil && ShortLived(v.token.Lifetime())
	unread := v.now.Sub(v.lastRead) > 24*time.Hour
	due := valid && left(v.token.RefreshAt, v.now) <= 0
	ahead := v.windowEnd
	if valid && !v.failing {
		ahead = v.token.RefreshAt
	}
	wrong := func(what string) { t.Errorf("%s: %s; decided %+v", name, what, s) }

	switch {
	case v.stopped:
		if s.do != park {
			wrong("a node that may do nothing does something")
		}
	case v.flying:
		if s.do != wait {
			wrong("a flight is not waited for")
		}
	case s.do == wait:
		wrong("there is nothing to wait for")
	case valid && !short && s.do == park && !unread:
		wrong("a valid token that is read has neither a timer nor a flight")
	case valid && !short && s.do == park && later(ahead, v.storageRetryAt).After(v.now):
		wrong("a valid token has no timer before its refresh is due")
	case v.asked && !s.serve && s.do != fetch:
		wrong("a caller who asks gets neither a token nor a fetch")
	case short && !v.asked && s.do != park:
		wrong("a short-lived token is fetched ahead")
	}
	if s.do == fetch {
		if v.failing && s.at.Before(v.windowEnd) {
			wrong("the server is asked within the window")
		}
		if !v.asked && s.at.Before(v.storageRetryAt) && s.at.After(v.now) {
			wrong("background work does not wait for storage")
		}
		if valid && !short && !v.failing && s.at.Before(v.token.RefreshAt) {
			wrong("a token is refreshed before it is due")
		}
		if left(s.at, v.now) <= 0 && !v.asked && unread {
			wrong("a token that no caller reads is fetched")
		}
		if !valid && v.failing && !v.asked && v.lastRead.Before(v.failedAt) {
			wrong("a token that no caller has asked for since the failure is fetched")
		}
	}
	if s.serve && !valid {
		wrong("a token that is not valid is served")
	}
	if valid && !s.serve && !(v.asked && short && due) {
		wrong("a valid token is kept back")
	}
}
