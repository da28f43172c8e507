package tokens

import (
	"errors"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// A token with a lifetime of a second may expire in transit; a longer one expires only if the server is slow.
func TestTokenThatArrivesExpiredIsAFailure(t *testing.T) {
	type request struct {
		lifetime time.Duration
		requests int
	}
	stories(t, map[string]request{
		"a second": {time.Second, 2}, "two seconds": {2 * time.Second, 1}, "a minute": {time.Minute, 1},
	}, func(t *testing.T, w *world, e *Engine, c request) {
		w.lifetime, w.latency = c.lifetime, 2*time.Second
		w.maxTTL = min(c.lifetime, 2*time.Second)
		failed := mustFail(t, e, weather)
		if _, ok := errors.AsType[*grant.UnavailableError](failed.Cause); !ok {
			t.Errorf("the cause is %v", failed.Cause)
		}
		w.wantFetches(c.requests)
	})
}

func TestTokenThatExpiresWhileAWriteIsUnderWayIsNotHandedOut(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = 2 * time.Second
		wait := changing(t, e, reader, w.slowWrite(3*time.Second))
		mustRead(t, e, weather)
		w.wantFetches(2)
		wait()
		time.Sleep(time.Minute)
		wait = changing(t, e, reader, w.slowWrite(3*time.Second))
		if token, _, err := e.Refresh(t.Context(), weather, ""); err != nil || !token.ValidAt(time.Now()) {
			t.Errorf("a refresh got a token that expires at %s, %v", token.ExpiresText(), err)
		}
		wait()
	})
}

// The authorization server may return the held token for new terms.
func TestRepeatedTokenOnNewTermsHasTheirShape(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		first := mustRead(t, e, weather)
		change := w.reshape(weather, "B")
		change.Token = &grant.Token{AccessToken: first.AccessToken, RequestedAt: time.Now(), ExpiresIn: time.Hour}
		mustChange(t, e, weather, change)
		if got := mustRead(t, e, weather); got.Shape != "B" || got.ID() != first.ID() {
			t.Errorf("got the token %s of shape %s", got.AccessToken, got.Shape)
		}
		w.wantFetches(1)
	})
}

func TestNoStorageNoCallToTheAuthorizationServer(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime = time.Minute
		mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errStorage })
		before := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		w.wantFetches(1)
		if n := w.storageCalls()["terms"] - before; n > 20 {
			t.Errorf("storage was asked %d times in ten minutes without a reader", n)
		}
		wantError(t, e, weather, errStorage)
		w.wantFetches(1)
	})
}
