package tokens

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestCompareAndRefreshCostsOneFetch(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		rejected := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		var mu sync.Mutex
		ids := map[string]int{}
		parallel(1000, func(int) {
			id := wantRefresh(t, e, rejected.ID(), true)
			mu.Lock()
			defer mu.Unlock()
			ids[id]++
		})
		if len(ids) != 1 || ids[rejected.ID()] != 0 {
			t.Errorf("got %d tokens", len(ids))
		}
		w.wantFetches(2)
		time.Sleep(time.Minute)
		if id := wantRefresh(t, e, rejected.ID(), false); ids[id] == 0 {
			t.Errorf("a late broker got the token %s, want the new one", id)
		}
		w.wantFetches(2)
	})
}

func TestCooldownHoldsWithAndWithoutTokenID(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		held := mustRead(t, e, weather)
		for _, rejected := range []string{"", held.ID()} {
			if id := wantRefresh(t, e, rejected, false); id != held.ID() {
				t.Errorf("got the token %s, want the held one", id)
			}
		}
		w.wantFetches(1)
		time.Sleep(cooldown)
		wantRefresh(t, e, "", true)
		w.wantFetches(2)
	})
}

func TestRefreshOfARepeatedTokenSaysSoAndCoolsDown(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.sameID = true
		held := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		for range 5 {
			if id := wantRefresh(t, e, held.ID(), false); id != held.ID() {
				t.Errorf("got the token %s, want the held one", id)
			}
		}
		w.wantFetches(2)
	})
}

func TestRefreshWithoutATokenFetchesOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		wantRefresh(t, e, "", true)
		w.wantFetches(1)
		if _, _, err := e.Refresh(t.Context(), Name{Server: "nobody"}, ""); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("got %v, want ErrNotConfigured", err)
		}
	})
}

func TestRefreshComparesWithTheStoredTokenAfterARestart(t *testing.T) {
	story(t, func(t *testing.T, w *world, first *Engine) {
		held := mustRead(t, first, weather)
		time.Sleep(time.Minute)
		if id := wantRefresh(t, w.engine(), "0123456789abcdef", false); id != held.ID() {
			t.Errorf("got the token %s, want the stored one", id)
		}
		w.wantFetches(1)
	})
}

func TestRefreshWithinABackoffWindowSendsNoRequest(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		held := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.refuse = &grant.RefusedError{Code: "invalid_client"} })
		for range 10 {
			if _, _, err := e.Refresh(t.Context(), weather, held.ID()); err == nil {
				t.Fatal("a refused refresh succeeded")
			}
		}
		w.wantFetches(2)
		wantToken(t, e, weather, held.ID())
	})
}
