package brokerauth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

var errLost = errors.New("connection refused")

func TestColdCallersShareOneRead(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = time.Second
		s := w.source()
		parallel(1000, func() { w.hold(s) })
		w.wantCalls(1, 0)
	})
}

func TestTokenIsReadAgainByTTLWithoutWaitingCallers(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.number, w.latency = 2, 5*time.Second })
		pass(200*time.Second - time.Nanosecond)
		w.wantToken(s, 1)
		w.wantCalls(1, 0)

		pass(time.Nanosecond) // the ttl has passed
		parallel(100, func() { w.wantToken(s, 1) })
		pass(5*time.Second - time.Nanosecond)
		w.wantToken(s, 1)
		pass(time.Second)
		w.wantToken(s, 2)
		w.wantCalls(2, 0)
	})
}

// Without calls, Vault is not read. The first call after the token's end waits for a new token.
func TestIdleSourceReadsNothing(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.number = 2 })
		pass(time.Hour)
		w.wantCalls(1, 0)
		w.wantToken(s, 2)
		w.wantCalls(2, 0)
	})
}

func TestHeldTokenIsServedUntilItExpiresWhileVaultIsAway(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(*world)
		status  int // of the error
	}{
		"unreachable":       {func(w *world) { w.lost = errLost }, 0},
		"hanging":           {func(w *world) { w.latency = time.Hour }, 0},
		"sealed":            {func(w *world) { w.status[http.MethodGet] = http.StatusServiceUnavailable }, http.StatusServiceUnavailable},
		"no upstream":       {func(w *world) { w.status[http.MethodGet] = http.StatusBadGateway }, http.StatusBadGateway},
		"permission denied": {func(w *world) { w.status[http.MethodGet] = http.StatusForbidden }, http.StatusForbidden},
		"no active node":    {func(w *world) { w.status[http.MethodGet] = http.StatusTemporaryRedirect }, http.StatusTemporaryRedirect},
		"no such path":      {func(w *world) { w.status[http.MethodGet] = http.StatusNotFound }, http.StatusNotFound},
		"nonsense":          {func(w *world) { w.ttl = 0 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			holding(t, func(t *testing.T, w *world, s *Source) {
				end := time.Now().Add(w.lifetime)
				w.with(c.trouble)
				for time.Now().Before(end) {
					w.wantToken(s, 1)
					pass(time.Second)
				}
				token, err := s.Token()
				failure, ok := errors.AsType[*Error](err)
				if !ok || token != nil {
					t.Fatalf("after the token's end: %v, want an *Error and no token", err)
				}
				if failure.Op != "read" || failure.Path != tokenPath || failure.StatusCode != c.status {
					t.Errorf("%s %s: status %d, want status %d of reading", failure.Op, failure.Path, failure.StatusCode, c.status)
				}
				if s.Err() == nil {
					t.Error("Err does not return the failure")
				}
			})
		})
	}
}

// If a read waits for a slow authorization server, Vault answers 504 and the fetch goes on. The source repeats the
// read until the read's time limit.
func TestReadThatTakesLongIsWaitedFor(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.fetching[http.MethodGet] = 4
		s := w.source()
		before := time.Now()
		parallel(10, func() { w.hold(s) })
		if took := time.Since(before); took != 4*pluginWait {
			t.Errorf("it took %s, want %s", took, 4*pluginWait)
		}
		w.wantToken(s, 1)
		w.wantCalls(5, 0)
	})
}

// A caller waits until its context ends, and a read takes 30 seconds at most: then the 504 is its failure.
func TestReadThatTakesTooLongIsGivenUp(t *testing.T) {
	for name, wait := range map[string]time.Duration{"by the plugin": pluginWait, "by a gateway at once": 0} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				if wait == 0 {
					w.status[http.MethodGet] = http.StatusGatewayTimeout
				} else {
					w.fetching[http.MethodGet] = 1000
				}
				s := w.source()
				ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
				defer cancel()
				before := time.Now()
				if _, err := s.TokenContext(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(before) != 12*time.Second {
					t.Errorf("after %s: %v, want the caller's deadline", time.Since(before), err)
				}
				_, err := s.Token()
				failure, ok := errors.AsType[*Error](err)
				if !ok || failure.StatusCode != http.StatusGatewayTimeout || time.Since(before) != callTimeout {
					t.Errorf("after %s: %v, want the 504 after %s", time.Since(before), err, callTimeout)
				}
				if n := w.called(http.MethodGet); n < 5 || n > 31 {
					t.Errorf("%d reads in %s, want at most one a second", n, callTimeout)
				}
			})
		})
	}
}

// However often a broker calls, an unavailable Vault gets a few requests. When it returns, the broker notices within
// the longest window.
func TestFailedReadsBackOff(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lost = errLost
		s := w.source()
		for range 3000 { // five minutes
			if _, err := s.Token(); !errors.Is(err, errLost) {
				t.Fatalf("got %v, want %v", err, errLost)
			}
			pass(100 * time.Millisecond)
		}
		wait := s.RetryAfter()
		if wait <= 0 || wait > windowMost {
			t.Errorf("the next read is due in %s, want at most %s", wait, windowMost)
		}
		before := w.called(http.MethodGet)
		pass(wait - time.Millisecond)
		_, _ = s.Token()
		if n := w.called(http.MethodGet); n != before {
			t.Error("Vault was read before that")
		}
		pass(time.Millisecond)
		_, _ = s.Token()
		if n := w.called(http.MethodGet); n != before+1 {
			t.Error("Vault was not read then")
		}
		// Windows are at least 0.75, 1.5, 3, 6 and 12 s, and then at least 22.5 s.
		if n := w.called(http.MethodGet); n < 10 || n > 18 {
			t.Errorf("%d reads in five minutes, want about one per half minute", n)
		}
		w.with(func(w *world) { w.lost = nil })
		pass(windowMost)
		w.wantToken(s, 1)
		if wait := s.RetryAfter(); wait != 0 {
			t.Errorf("after a successful read, the next read is due in %s", wait)
		}
		if err := s.Err(); err != nil {
			t.Errorf("Err is %v after a successful read", err)
		}
	})
}

// Overdue reads back off in the same way as cold reads.
func TestFailedRefreshAheadBacksOff(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = time.Hour
		s := w.source()
		w.hold(s)
		w.with(func(w *world) { w.status[http.MethodGet] = http.StatusServiceUnavailable })
		pass(200 * time.Second)
		for range 600 { // one minute
			w.wantToken(s, 1)
			pass(100 * time.Millisecond)
		}
		if n := w.called(http.MethodGet) - 1; n < 5 || n > 8 {
			t.Errorf("%d reads in a minute, want about six", n)
		}
	})
}

func TestCallerWhoGivesUpDisturbsNoOther(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = 5 * time.Second
		s := w.source()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.TokenContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		if _, err := s.TokenContext(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantCalls(1, 0)
	})
}

func TestHangingReadIsGivenUp(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = time.Hour
		before := time.Now()
		_, err := w.source().Token()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(before) != callTimeout {
			t.Errorf("after %s: %v, want the read to end after %s", time.Since(before), err, callTimeout)
		}
	})
}

// The token in a late answer may have expired. Vault is read once more, within the same 30 seconds.
func TestExpiredTokenOfASlowReadIsNotHandedOut(t *testing.T) {
	for name, c := range map[string]struct {
		latency, waited time.Duration
		cause           error
	}{
		"both too late": {12 * time.Second, 24 * time.Second, errExpired},
		"out of time":   {20 * time.Second, callTimeout, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.lifetime, w.ttl, w.latency = 5*time.Second, 3, c.latency
				before := time.Now()
				token, err := w.source().Token()
				failure, ok := errors.AsType[*Error](err)
				if !ok || token != nil || failure.Op != "read" || !errors.Is(err, c.cause) {
					t.Errorf("got %v, want an *Error of %v and no token", err, c.cause)
				}
				if waited := time.Since(before); waited != c.waited {
					t.Errorf("the caller waited %s, want %s", waited, c.waited)
				}
				w.wantCalls(2, 0)
			})
		})
	}
}

func TestSlowReadIsMadeOnceMore(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.ttl, w.latency = 15*time.Second, 3, 20*time.Second
		time.AfterFunc(time.Second, func() { w.with(func(w *world) { w.number, w.latency = 2, 0 }) })
		token, err := w.source().Token()
		if err != nil || token.AccessToken != access(2) || !token.Valid() {
			t.Errorf("got %v, want the second token, valid", err)
		}
		w.wantCalls(2, 0)
	})
}

// A token may end after the answer and before the caller runs.
func TestTokenThatEndsBeforeTheCallersTurnIsNotHandedOut(t *testing.T) {
	now := time.Now()
	s := newWorld(t).source()
	s.held = &token{expires: now, readAt: now}
	s.reads.current = &call{done: make(chan struct{})} // a call that has just succeeded
	close(s.reads.current.done)
	if token, err := s.Token(); token != nil || !errors.Is(err, errExpired) {
		t.Errorf("got %v, want no token", err)
	}
}

// Vault's client retries a 5xx itself, and the source does not interfere.
func TestRetriesOfVaultsClientCount(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.status[http.MethodGet] = http.StatusServiceUnavailable
		client := w.client()
		client.SetMaxRetries(2)
		s := w.newSource(Config{Vault: client, TokenPath: tokenPath})
		if _, err := s.Token(); err == nil {
			t.Error("no error")
		}
		w.wantCalls(3, 0)
	})
}

func TestErrorsNameTheRemedyAndHoldNoToken(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"404":          {404, `{"errors":["no config or role weather"]}`, "Vault answered 404: no such config or role"},
		"404, empty":   {404, ``, "Vault answered 404: no such config or role"},
		"403":          {403, `{"errors":["permission denied"]}`, "Vault answered 403: the Vault token is not valid, or its policies"},
		"400":          {400, `{"errors":["weather: refused: invalid_client"]}`, "Vault answered 400: weather: refused: invalid_client"},
		"502":          {502, `{"errors":["weather: timed out"]}`, "Vault answered 502: weather: timed out"},
		"503":          {503, `{"errors":["Vault is sealed"]}`, "Vault answered 503: Vault is sealed"},
		"a page":       {502, `<html>secret-page</html>`, "Vault answered 502"},
		"not JSON":     {200, `secret-1`, "invalid character"},
		"another path": {200, `{"data":{"access_token":"secret-1","value":"secret-2"}}`, "does not come from a token path"},
		"no rotation":  {200, `{"data":{"access_token":"secret-1","ttl":200,"expires_at":"2030-01-01T00:00:00Z"}}`, "does not come from a token path"},
		"ttl as text":  {200, `{"data":{"access_token":"secret-1","ttl":"200","expires_at":"2030-01-01T00:00:00Z","last_vault_rotation":"2029-12-31T23:55:00Z"}}`, "does not come from a token path"},
		"no data":      {200, `{"wrap_info":{"token":"secret-1"}}`, "does not come from a token path"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.status[http.MethodGet], w.body = c.status, c.body
			_, err := w.source().Token()
			if err == nil || !strings.HasPrefix(err.Error(), "brokerauth: read mcp-oauth/token/weather: ") ||
				!strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "secret-") {
				t.Error("the error contains text that may be a secret")
			}
			if answer, ok := errors.AsType[*api.ResponseError](err); ok && answer.StatusCode != c.status {
				t.Errorf("status %d in the cause, want %d", answer.StatusCode, c.status)
			}
		})
	}
}

func TestTokenHasItsExpiryAndID(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		s := w.source()
		token, err := s.Token()
		if err != nil {
			t.Fatal(err)
		}
		if !token.Valid() || token.Type() != "Bearer" || time.Until(token.Expiry) != w.lifetime {
			t.Errorf("valid %t, type %s, expires in %s", token.Valid(), token.Type(), time.Until(token.Expiry))
		}
		if id, scope := token.Extra("token_id"), token.Extra("scope"); id != tokenID(access(1)) || scope != "tools:list" {
			t.Errorf("token_id %v, scope %v", id, scope)
		}
		token.AccessToken = "changed by the caller"
		w.wantToken(s, 1)
	})
}

// Vault never returns an expired token. If a token looks expired, the broker's clock is ahead, and the token is valid
// for at least its ttl.
func TestClockAheadOfVaultsCostsTheCoverButNotTheService(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.skew = -10 * time.Minute
		s := w.source()
		w.hold(s)
		pass(199 * time.Second)
		w.wantToken(s, 1)
		w.wantCalls(1, 0)
		w.with(func(w *world) { w.number = 2 })
		pass(time.Second)
		w.wantToken(s, 2)
		w.wantCalls(2, 0)
	})
}

// If the clock is behind, a token looks valid for longer than its lifetime, which Vault returns. During an outage of
// Vault, the token is returned while it is valid, and no longer than its lifetime.
func TestClockBehindVaultsServesNoTokenPastItsLifetime(t *testing.T) {
	for name, c := range map[string]struct{ behind, age, served time.Duration }{
		"by more than the lifetime": {10 * time.Minute, 0, 5 * time.Minute},
		"by a minute":               {time.Minute, 0, 5 * time.Minute},
		// The token is a minute old, which only the clocks show.
		"by ten minutes, read late": {10 * time.Minute, time.Minute, 5 * time.Minute},
		"by ten seconds, read late": {10 * time.Second, time.Minute, 4*time.Minute + 10*time.Second},
		"not at all, read late":     {0, time.Minute, 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.skew, w.age = c.behind, c.age
				s := w.source()
				w.hold(s)
				w.with(func(w *world) { w.lost = errLost })
				pass(c.served - time.Second)
				w.wantToken(s, 1)
				pass(time.Second)
				if _, err := s.Token(); !errors.Is(err, errLost) {
					t.Errorf("after %s: %v, want no token", c.served, err)
				}
			})
		})
	}
}

// The least ttl is a second, and a token may end within this second.
func TestTokenIsHandedOutInItsLastSecondAndNotAfter(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.age, w.ttl = w.lifetime-time.Second, 1
		s := w.source()
		pass(800 * time.Millisecond) // 200 ms are left: Vault returns whole seconds
		w.hold(s)
		w.with(func(w *world) { w.lost = errLost })
		pass(200*time.Millisecond - time.Nanosecond)
		w.wantToken(s, 1)
		pass(time.Nanosecond)
		if _, err := s.Token(); !errors.Is(err, errLost) {
			t.Errorf("at its end: %v, want no token", err)
		}
	})
}

// While a machine sleeps, its monotonic clock stops and its wall clock goes on.
func TestTokenIsValidUpToItsEndByEitherClock(t *testing.T) {
	now := time.Now()
	held := &token{expires: now.Add(time.Minute)}
	if !held.validAt(now) || held.validAt(now.Add(time.Minute)) {
		t.Error("a token must be valid before its end, and not at its end")
	}
	if held.validAt(now.Add(time.Minute).Round(0)) {
		t.Error("valid although the wall clock is at its end")
	}
	if (*token)(nil).validAt(now) {
		t.Error("a missing token is valid")
	}
}

// At each call, the source uses the client's current token, namespace and address.
func TestClientIsUsedAsItIsAtEachCall(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		client := w.client()
		client.SetNamespace("team-a")
		s := w.newSource(Config{Vault: client, TokenPath: "/mcp-oauth/token/weather/"})
		for _, token := range []string{"first", "renewed", ""} {
			client.SetToken(token)
			w.hold(s)
			header := w.lastRequest().Header
			if got := header.Get(api.NamespaceHeaderName); got != "team-a" {
				t.Errorf("namespace %q", got)
			}
			if got := header.Get(api.AuthHeaderName); got != token {
				t.Errorf("the read was made with %q, want %q", got, token)
			}
			pass(w.lifetime)
		}
		w.wantCalls(3, 0)
	})
}

func TestConfigMustNameATokenPath(t *testing.T) {
	client := newWorld(t).client()
	for name, c := range map[string]struct {
		config  Config
		refresh string // the refresh path; empty: the configuration is refused
	}{
		"server":              {Config{TokenPath: "mcp-oauth/token/weather"}, "mcp-oauth/refresh/weather"},
		"role":                {Config{TokenPath: "mcp-oauth/token/weather/reader"}, "mcp-oauth/refresh/weather/reader"},
		"mount of two parts":  {Config{TokenPath: "team/token/token/weather"}, ""},
		"the same, explicit":  {Config{TokenPath: "team/token/token/weather", RefreshPath: "team/token/refresh/weather"}, "team/token/refresh/weather"},
		"server named token":  {Config{TokenPath: "mcp-oauth/token/token"}, "mcp-oauth/refresh/token"},
		"another path":        {Config{TokenPath: "kv/data/weather"}, ""},
		"no mount":            {Config{TokenPath: "token/weather"}, ""},
		"nothing":             {Config{}, ""},
		"a refresh path only": {Config{RefreshPath: "mcp-oauth/refresh/weather"}, ""},
	} {
		c.config.Vault = client
		s, err := NewSource(c.config)
		if (err == nil) != (c.refresh != "") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err == nil && s.refreshPath != c.refresh {
			t.Errorf("%s: the refresh path is %s, want %s", name, s.refreshPath, c.refresh)
		}
	}
	if _, err := NewSource(Config{TokenPath: tokenPath}); err == nil {
		t.Error("a Config without a client is accepted")
	}
}
