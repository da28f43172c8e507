package tokens

import (
	"errors"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestTokenThatWentIdleWhileFailingIsRefreshedWhenItIsRead(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.idle, w.latency = 24*time.Hour, time.Minute, 0
		mustRead(t, e, weather)
		time.Sleep(24*time.Hour + 30*time.Minute) // refreshed at 18 h and idle from 24 h
		w.wantFetches(2)
		w.with(func(w *world) { w.refuse = &grant.UnavailableError{Status: 503} })
		if _, _, err := e.Refresh(t.Context(), weather, ""); err == nil {
			t.Fatal("a refresh in an outage succeeded")
		}
		time.Sleep(5 * time.Minute)
		w.with(func(w *world) { w.refuse = nil })
		n := w.fetches()
		mustRead(t, e, weather)
		time.Sleep(time.Second)
		w.wantFetches(n + 1)
		if e.Failing(weather) {
			t.Error("the failure is still remembered")
		}
	})
}

func TestFirstRefusalAfterAnOutageStartsAtItsOwnFirstWindow(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refuse, w.latency = &grant.UnavailableError{Reason: "connection refused"}, 0
		for range 300 {
			_ = mustFail(t, e, weather)
			time.Sleep(time.Second)
		}
		w.with(func(w *world) { w.refuse = &grant.RefusedError{Status: 401, Code: "invalid_client"} })
		var failed *FailedError
		waitUntil(t, func() bool {
			failed = mustFail(t, e, weather)
			_, refused := errors.AsType[*grant.RefusedError](error(failed))
			return refused
		})
		if wait := time.Until(failed.NextAttempt); wait > refusedFirst {
			t.Errorf("the first refusal backs off %s, want at most %s", wait, refusedFirst)
		}
		if f := wantState(t, e, weather, StateDown).Failure; f.Refusals != 1 || f.Count < 3 {
			t.Errorf("%d refusals among %d consecutive failures, want 1 among the outage's and itself", f.Refusals, f.Count)
		}
	})
}

func TestRepeatedTokenWithALowerCapIsRefreshedAhead(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.sameID = time.Hour, true
		mustRead(t, e, weather)
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.maxTTL = 10 * time.Minute })
		if _, _, err := e.Refresh(t.Context(), weather, ""); err != nil {
			t.Fatal(err)
		}
		if held := mustRead(t, e, weather); !held.RefreshAt.Before(held.Expires) {
			t.Error("the token was not refreshed before its end")
		}
	})
}

func TestReadersOfAnOverdueTokenDoNotHammerStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		time.Sleep(time.Until(held.RefreshAt))
		looks := w.storageCalls()["terms"]
		for range 600 {
			mustRead(t, e, weather)
			time.Sleep(time.Second / 10)
		}
		if n := w.storageCalls()["terms"] - looks; n < 3 || n > 10 {
			t.Errorf("storage was asked %d times in a minute, want 3 to 10 by the backoff", n)
		}
	})
}
