package tokens

import (
	"testing"
	"time"
	"unsafe"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Vault Agent reads again after exactly ttl+1 s. This is its latest read, by lifetime.
func TestReadAgainTimes(t *testing.T) {
	for _, tc := range []struct {
		lifetime  time.Duration
		refreshAt time.Duration // without jitter, which only makes refreshes earlier
		worst     time.Duration // latest possible re-read, from the token's start
		safe      bool          // reports whether that is before the token's end
	}{
		{5 * time.Second, 2500 * time.Millisecond, 0, false},
		{10 * time.Second, 5 * time.Second, 0, false},
		{15 * time.Second, 7500 * time.Millisecond, 13 * time.Second, true},
		{20 * time.Second, 10 * time.Second, 16340 * time.Millisecond, true},
		{time.Minute, 30 * time.Second, 43 * time.Second, true},
		{5 * time.Minute, 225 * time.Second, 253 * time.Second, true},
		{time.Hour, 45 * time.Minute, 50*time.Minute + 3*time.Second, true},
		{24 * time.Hour, 18 * time.Hour, 20*time.Hour + 3*time.Second, true},
	} {
		t.Run(tc.lifetime.String(), func(t *testing.T) {
			start := time.Now()
			var latest time.Duration
			for range 200 {
				token := newToken(&grant.Token{AccessToken: "t", RequestedAt: start, ExpiresIn: tc.lifetime}, &Terms{})
				m := margin(tc.lifetime)
				r := token.RefreshAt.Sub(start)
				if r > tc.refreshAt || r < tc.refreshAt-m/10 {
					t.Fatalf("refresh after %s, want at most a tenth of the margin before %s", r, tc.refreshAt)
				}
				for at := time.Duration(0); at < r; at += r/50 + 1 {
					ttl := token.readAgain(start.Add(at), time.Time{})
					if ttl < 1 {
						t.Fatalf("ttl %d after %s: must be at least 1", ttl, at)
					}
					again := at + time.Duration(ttl+1)*time.Second
					if tc.safe && again <= r {
						t.Fatalf("read again after %s, before the refresh after %s", again, r)
					}
					latest = max(latest, again)
				}
			}
			if tc.safe && (latest > tc.worst || latest >= tc.lifetime) {
				t.Errorf("read again after %s at the latest, want at most %s, before the end", latest, tc.worst)
			}
		})
	}
}

func TestReadAgainWhenLateOrFailing(t *testing.T) {
	token := newToken(&grant.Token{AccessToken: "t", RequestedAt: time.Now(), ExpiresIn: time.Hour}, &Terms{})
	start := token.Issued
	for _, tc := range []struct {
		name      string
		at, retry time.Duration
		want      int64
	}{
		{"overdue", 46 * time.Minute, 0, 3},
		{"failing, next attempt soon", 46 * time.Minute, 46*time.Minute + time.Second, 3},
		{"failing, next attempt later", 46 * time.Minute, 46*time.Minute + 40*time.Second, 40},
		{"failing before the refresh is due", 10 * time.Minute, 10*time.Minute + 30*time.Second, 30},
		{"failing, next attempt after the end", 59 * time.Minute, 80 * time.Minute, 58},
		{"about to end", time.Hour - 2*time.Second, 80 * time.Minute, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var retry time.Time
			if tc.retry != 0 {
				retry = start.Add(tc.retry)
			}
			if got := token.readAgain(start.Add(tc.at), retry); got != tc.want {
				t.Errorf("ttl %d, want %d", got, tc.want)
			}
		})
	}
}

func TestAgentNeverHoldsExpiredToken(t *testing.T) {
	for _, lifetime := range []time.Duration{15 * time.Second, 20 * time.Second, 30 * time.Second, 5 * time.Minute, time.Hour} {
		t.Run(lifetime.String(), func(t *testing.T) {
			story(t, func(t *testing.T, w *world, e *Engine) {
				w.lifetime, w.latency = lifetime, 700*time.Millisecond
				start := time.Now()
				reads := 0
				for time.Since(start) < 20*lifetime {
					held := mustRead(t, e, weather)
					reads++
					time.Sleep(time.Duration(held.TTL+1) * time.Second)
					if !held.ValidAt(time.Now()) {
						t.Fatalf("after %s the agent held a token that had ended", time.Since(start))
					}
				}
				if reads > 45 {
					t.Errorf("%d reads in 20 lifetimes, want about one per refresh", reads)
				}
			})
		})
	}
}

func TestNewTokenLifetime(t *testing.T) {
	for _, tc := range []struct {
		name        string
		expiresIn   time.Duration
		defaultTTL  time.Duration
		maxTTL      time.Duration
		want        time.Duration
		wantRefresh time.Duration // at the latest
	}{
		{"as announced", time.Hour, time.Minute, 0, time.Hour, 45 * time.Minute},
		{"not announced", 0, time.Minute, 0, time.Minute, 30 * time.Second},
		{"capped", time.Hour, time.Minute, 10 * time.Minute, 10 * time.Minute, 450 * time.Second},
		{"default is capped too", 0, time.Hour, 10 * time.Minute, 10 * time.Minute, 450 * time.Second},
		{"cap above", time.Minute, time.Minute, time.Hour, time.Minute, 30 * time.Second},
		{"shorter than the least interval", time.Second, time.Minute, 0, time.Second, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			token := newToken(&grant.Token{AccessToken: "t", RequestedAt: start, ExpiresIn: tc.expiresIn},
				&Terms{DefaultTTL: tc.defaultTTL, MaxTTL: tc.maxTTL})
			if token.Lifetime() != tc.want {
				t.Errorf("lifetime %s, want %s", token.Lifetime(), tc.want)
			}
			if r := token.RefreshAt.Sub(start); r > tc.wantRefresh {
				t.Errorf("refresh after %s, want at most %s", r, tc.wantRefresh)
			}
			if token.RotationPeriod() < 1 {
				t.Errorf("rotation period %d, want at least 1", token.RotationPeriod())
			}
		})
	}
}

// A JWT's exp is in whole seconds, counted from the second of its issue.
func TestTokenEndsByTheWholeSecondsOfItsServer(t *testing.T) {
	requested := time.Date(2026, 3, 4, 5, 6, 7, 999_000_000, time.UTC)
	token := newToken(&grant.Token{AccessToken: "t", RequestedAt: requested, ExpiresIn: 20 * time.Second}, &Terms{})
	if want := time.Date(2026, 3, 4, 5, 6, 27, 0, time.UTC); !token.Expires.Equal(want) {
		t.Errorf("expires at %s, want %s", token.Expires, want)
	}
	if token.Lifetime() != 20*time.Second {
		t.Errorf("lifetime %s, want the announced one", token.Lifetime())
	}
	if wait := token.RefreshAt.Sub(requested); wait < 9*time.Second || wait > 10*time.Second {
		t.Errorf("refresh %s after the request, want 9 to 10 s", wait)
	}
}

func TestTokenIsRefreshedByItsEnd(t *testing.T) {
	second := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, lifetime := range []time.Duration{time.Second, 1500 * time.Millisecond, 2 * time.Second, 3 * time.Second, 15 * time.Second} {
		for fraction := time.Duration(0); fraction < time.Second; fraction += 100 * time.Millisecond {
			token := newToken(&grant.Token{AccessToken: "t", RequestedAt: second.Add(fraction), ExpiresIn: lifetime}, &Terms{})
			if token.RefreshAt.After(token.Expires) {
				t.Errorf("with a lifetime of %s from %s: refreshed %s after its end", lifetime, fraction, token.RefreshAt.Sub(token.Expires))
			}
		}
	}
}

func TestTokenID(t *testing.T) {
	token := newToken(&grant.Token{AccessToken: "abc", RequestedAt: time.Now(), ExpiresIn: time.Hour}, &Terms{})
	if want := "ba7816bf8f01cfea"; token.ID() != want { // SHA-256("abc") of FIPS 180
		t.Errorf("ID %q, want %q", token.ID(), want)
	}
}

// If the wall clock is set back after a token was stored, the token's life must not become longer.
func TestLoadedTokenIsCappedByItsLifetime(t *testing.T) {
	now := time.Now()
	issued := now.Add(6 * time.Hour).Round(0) // stored while the clock was six hours ahead
	stored := &Token{AccessToken: "t", Issued: issued, Expires: issued.Add(time.Hour), RefreshAt: issued.Add(45 * time.Minute)}
	loaded := stored.rebased(now)
	if got := loaded.Expires.Sub(now); got != time.Hour {
		t.Errorf("valid for %s, want its lifetime", got)
	}
	if got := loaded.Expires.Sub(loaded.RefreshAt); got != 15*time.Minute {
		t.Errorf("refreshed %s before its end, want as stored", got)
	}
	if loaded.ID() == "" {
		t.Error("a loaded token has no ID")
	}
}

func TestTextsOfTimesFollowTheTimes(t *testing.T) {
	zone := time.FixedZone("east", 3600)
	requested := time.Date(2026, 3, 4, 6, 6, 7, 0, zone)
	of := func(lifetime time.Duration) *Token {
		return newToken(&grant.Token{AccessToken: "t", RequestedAt: requested, ExpiresIn: lifetime}, &Terms{})
	}
	long, short := of(time.Hour), of(time.Minute)
	for name, tc := range map[string]struct {
		token   *Token
		expires string
	}{
		"obtained":                      {long, "2026-03-04T06:06:07Z"},
		"repeated with an earlier end":  {long.repeated(short, requested), "2026-03-04T05:07:07Z"},
		"repeated with a later end":     {short.repeated(long, requested), "2026-03-04T05:07:07Z"},
		"loaded when that much is left": {(&Token{Issued: requested, Expires: requested.Add(time.Hour)}).rebased(requested), "2026-03-04T06:06:07Z"},
	} {
		if tc.token.ExpiresText() != tc.expires || tc.token.IssuedText() != "2026-03-04T05:06:07Z" {
			t.Errorf("%s: from %s to %s, want from 2026-03-04T05:06:07Z to %s", name, tc.token.IssuedText(), tc.token.ExpiresText(), tc.expires)
		}
	}
}

func TestValidAt(t *testing.T) {
	var none *Token
	if none.ValidAt(time.Now()) {
		t.Error("a missing token is valid")
	}
	now := time.Now()
	token := &Token{Expires: now.Add(time.Second)}
	if !token.ValidAt(now) || token.ValidAt(now.Add(time.Second)) {
		t.Error("a token must be valid before its end, and not at its end")
	}
	// The wall clock is ahead of the monotonic clock. A time without a monotonic reading is compared by the wall
	// clock only.
	if token.ValidAt(now.Add(time.Minute).Round(0)) {
		t.Error("valid although the wall clock is past its end")
	}
}

// wallAhead returns t with its wall clock set ahead by whole seconds and its monotonic reading unchanged. The
// exported functions of package time cannot do this.
func wallAhead(t time.Time, seconds int64) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t)) // the first field, in which the seconds begin at bit 30
	*wall += uint64(seconds) << 30
	return t
}

// After a suspend, the wall clock is ahead, and the holders of a token follow it. If the wall clock is set back, an
// expired token must stay expired.
func TestTimesFollowTheClockThatSaysLess(t *testing.T) {
	token := newToken(&grant.Token{AccessToken: "t", RequestedAt: time.Now(), ExpiresIn: time.Hour}, &Terms{})
	start := token.Issued
	for _, tc := range []struct {
		name           string
		elapsed, ahead time.Duration
		wantLeft       time.Duration
		wantDue        bool
	}{
		{"both agree", 20 * time.Minute, 0, 40 * time.Minute, false},
		{"wall clock ahead", time.Minute, 40 * time.Minute, 19 * time.Minute, false},
		{"wall clock past the refresh", time.Minute, 50 * time.Minute, 9 * time.Minute, true},
		{"wall clock past the end", time.Minute, 2 * time.Hour, 0, true},
		{"wall clock set back", 61 * time.Minute, -30 * time.Minute, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := wallAhead(start.Add(tc.elapsed), int64(tc.ahead/time.Second))
			if got := max(0, left(token.Expires, now)); got != tc.wantLeft {
				t.Errorf("%s left, want %s", got, tc.wantLeft)
			}
			if valid := token.ValidAt(now); valid != (tc.wantLeft > 0) {
				t.Errorf("valid is %v", valid)
			}
			if due := left(token.RefreshAt, now) <= 0; due != tc.wantDue {
				t.Errorf("due for refresh is %v", due)
			}
			if ttl := token.readAgain(now, time.Time{}); ttl > max(1, int64(tc.wantLeft/time.Second)) {
				t.Errorf("ttl %d is beyond the end", ttl)
			}
		})
	}
}

func TestRotationPeriodIsTheIntervalInSeconds(t *testing.T) {
	for lifetime, want := range map[time.Duration]int64{time.Hour: 2700, time.Minute: 30, 2 * time.Second: 1, time.Second: 1} {
		if got := (&Token{Expires: time.Unix(0, 0).Add(lifetime), Issued: time.Unix(0, 0)}).RotationPeriod(); got != want {
			t.Errorf("a lifetime of %s has a rotation period of %d s, want %d", lifetime, got, want)
		}
	}
}

func TestRepeatedTokenKeepsItsTimesAndTakesItsScope(t *testing.T) {
	now := time.Now()
	held := &Token{AccessToken: "t", Scope: "old", Issued: now.Add(-time.Minute), Expires: now.Add(time.Hour), RefreshAt: now.Add(30 * time.Minute)}
	again := &Token{AccessToken: "t", Scope: "new", Issued: now, Expires: now.Add(2 * time.Hour), RefreshAt: now.Add(90 * time.Minute)}
	young := held.repeated(again, now)
	if young.Scope != "new" || !young.RefreshAt.Equal(held.RefreshAt) || !young.Expires.Equal(held.Expires) || young.Repeats != 0 {
		t.Errorf("a young token repeated: %+v", young)
	}
	due := held.dueBy(now)
	if !due.RefreshAt.Equal(now) || !due.dueBy(now.Add(time.Minute)).RefreshAt.Equal(now) {
		t.Errorf("due at %s, want now and no later", due.RefreshAt)
	}
	for i, want := range []time.Duration{30 * time.Minute, 30 * time.Minute, time.Hour} {
		if due = due.dueBy(now).repeated(again, now); !due.RefreshAt.Equal(now.Add(want)) || due.Repeats != i+1 {
			t.Errorf("repetition %d is refreshed in %s, want %s", due.Repeats, due.RefreshAt.Sub(now), want)
		}
	}
}

func TestNamesAreSpelledAsPaths(t *testing.T) {
	for want, name := range map[string]Name{"weather": {Server: "weather"}, "weather/reader": {"weather", "reader"}} {
		if got := name.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
