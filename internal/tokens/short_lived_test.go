package tokens

import (
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestShortLivedTokensAreFetchedOnDemand(t *testing.T) {
	stories(t, map[string]time.Duration{
		"1 s": time.Second, "5 s": 5 * time.Second, "9 s": 9 * time.Second,
	}, func(t *testing.T, w *world, e *Engine, lifetime time.Duration) {
		w.lifetime, w.latency = lifetime, 10*time.Millisecond
		w.roles(e, 300)
		before := w.fetches()
		time.Sleep(time.Hour)
		w.wantFetches(before)
		w.wantCalls("save", 0)
		parallel(100, func(int) { wantRead(t, e, weather) })
		w.wantFetches(before + 1)
		first := mustRead(t, e, weather)
		if lifetime > time.Second {
			time.Sleep(time.Until(first.RefreshAt) + time.Millisecond)
			wantOther(t, e, weather, first.ID()) // less than half of its lifetime is left
			w.with(func(w *world) { w.refuse = clientFailures["503"] })
			second := mustRead(t, e, weather)
			time.Sleep(time.Until(second.RefreshAt) + time.Millisecond)
			wantToken(t, e, weather, second.ID())
		}
	})
}

func TestShortLivedTokenLeavesNoOlderOneInStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		first := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.lifetime, w.broken["delete"] = 5*time.Second, errStorage })
		wantRefresh(t, e, first.ID(), true)
		time.Sleep(3 * time.Second)
		if second := mustRead(t, e, weather); second.Expires.Sub(first.Issued) < 65*time.Second {
			t.Fatal("the next short-lived token has not been fetched")
		}
		w.with(func(w *world) { delete(w.broken, "delete") })
		time.Sleep(time.Minute) // the delete is retried
		deletes := w.storageCalls()["delete"]
		wantOther(t, w.engine(), weather, first.ID()) // after a restart
		mustRead(t, e, weather)
		w.wantCalls("save", 1)
		w.wantCalls("delete", deletes)
	})
}

func TestVerifiedShortLivedTokenLeavesNoOlderOneInStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world, first *Engine) {
		mustRead(t, first, weather)
		e := w.engine()
		change := w.reshape(weather, "A")
		change.Token = &grant.Token{AccessToken: "verified", RequestedAt: time.Now(), ExpiresIn: 5 * time.Second}
		mustChange(t, e, weather, change)
		w.wantStored(weather, "")
	})
}

func TestTenSecondsAreRefreshedAhead(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 10 * time.Second
		first := mustRead(t, e, weather)
		time.Sleep(time.Until(first.RefreshAt) + time.Second)
		w.wantFetches(2)
		w.wantCalls("save", 2)
	})
}
