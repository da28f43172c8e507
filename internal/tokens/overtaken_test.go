package tokens

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// slowStore is the world's storage, whose calls take effect at once and return half a second
// later, as over a slow line.
type slowStore struct {
	*world
}

func (s slowStore) Terms(ctx context.Context, name Name) (*Terms, error) {
	defer time.Sleep(time.Second / 2)
	return s.world.Terms(ctx, name)
}

func (s slowStore) Load(ctx context.Context, name Name) (*Token, error) {
	defer time.Sleep(time.Second / 2)
	return s.world.Load(ctx, name)
}

func (s slowStore) Save(ctx context.Context, name Name, t *Token) error {
	defer time.Sleep(time.Second / 2)
	return s.world.Save(ctx, name, t)
}

func (w *world) slowEngine() *Engine {
	e := New(Options{Store: slowStore{w}, Passive: w.isPassive, Log: hclog.NewNullLogger()})
	w.t.Cleanup(e.Close)
	return e
}

// A token that was on its way from storage when a write changed its terms is not handed
// out, not for a moment.
func TestLoadThatAWriteOvertakesIsThrownAway(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		first := mustRead(t, w.engine(), weather)
		e := w.slowEngine()
		waited := mustReadLater(t, e, weather)
		time.Sleep(750 * time.Millisecond) // the old terms have been read, and the old token
		change := w.reshape(weather, "B")
		change.Terms = w.written(weather, w.terms(weather, "B"))
		mustChange(t, e, weather, change)
		time.Sleep(time.Second) // the old token has arrived
		if got := mustRead(t, e, weather); got.ID() == first.ID() || got.Shape != "B" {
			t.Errorf("after the write a reader got a token of shape %s", got.Shape)
		}
		if got := <-waited; got.Shape != "B" {
			t.Errorf("a reader who waited through the write got a token of shape %s", got.Shape)
		}
	})
}

// An answer that arrives while a delete is being written is thrown away by the delete, and
// leaves nothing in storage.
func TestAnswerThatADeleteOvertakesIsNotKept(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = time.Second
		e := w.engine()
		result := reading(t, e, weather)
		synctest.Wait()
		mustChange(t, e, weather, Change{Write: func(context.Context) error {
			time.Sleep(2 * time.Second) // the answer arrives
			w.with(func(w *world) { delete(w.shapes, weather); delete(w.saved, weather) })
			return nil
		}})
		if err := <-result; !errors.Is(err, ErrNotConfigured) {
			t.Errorf("the reader got %v, want ErrNotConfigured", err)
		}
		if w.stored(weather).AccessToken != "" || w.storageCalls()["save"] != 0 {
			t.Error("a token was saved for what had been deleted")
		}
		w.wantFetches(1)
	})
}

// A refusal of the old terms says nothing of the new ones.
func TestFailureThatAWriteOvertakesIsNotRemembered(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency, w.refuse = time.Second, &grant.RefusedError{Code: "invalid_scope"}
		e := w.engine()
		got := mustReadLater(t, e, weather)
		synctest.Wait()
		mustChange(t, e, weather, Change{Write: func(context.Context) error {
			time.Sleep(2 * time.Second) // the refusal arrives
			w.with(func(w *world) { w.shapes[weather], w.refuse = "B", nil })
			return nil
		}})
		time.Sleep(time.Second / 2) // the refusal has been looked at
		if e.Failing(weather) {
			t.Error("the failure of the old terms is remembered")
		}
		if answer := <-got; answer.Shape != "B" {
			t.Errorf("the reader got a token of shape %s", answer.Shape)
		}
		w.wantFetches(2)
	})
}

// A write on another node takes no lock here. What it overtakes is saved and not handed
// out: storage says what is right now.
func TestTokenThatAnInvalidationOvertakesIsNotHandedOut(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = 0
		e := w.slowEngine()
		got := mustReadLater(t, e, weather)
		time.Sleep(1250 * time.Millisecond) // terms, token; the answer is being saved
		if w.stored(weather).Shape != "A" {
			t.Fatal("the token is not being saved")
		}
		w.with(func(w *world) { w.shapes[weather] = "B" })
		e.Invalidate(weather)
		time.Sleep(time.Second) // it has been saved
		if answer := mustRead(t, e, weather); answer.Shape != "B" {
			t.Errorf("after the invalidation a reader got a token of shape %s", answer.Shape)
		}
		if answer := <-got; answer.Shape != "B" {
			t.Errorf("a reader who waited through it got a token of shape %s", answer.Shape)
		}
		w.wantFetches(2)
	})
}

// TestTokenThatAnInvalidationOvertakesIsNotHandedOutAtTheEnd: nor is it if the engine is closed before it is saved.
func TestTokenThatAnInvalidationOvertakesIsNotHandedOutAtTheEnd(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = 0
		e := w.slowEngine()
		failed := reading(t, e, weather)
		time.Sleep(1250 * time.Millisecond) // terms, token; the answer is being saved
		w.with(func(w *world) { w.shapes[weather] = "B" })
		e.Invalidate(weather)
		e.Close()
		if err := <-failed; !errors.Is(err, ErrClosed) {
			t.Errorf("a reader got error %v, want ErrClosed", err)
		}
	})
}

// A token is saved before it is handed out, so that a failover does not go back to the one
// before it.
func TestRefreshedTokenIsHandedOutOnceItIsSaved(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = 0
		e := w.slowEngine()
		first := mustRead(t, e, weather)
		time.Sleep(time.Until(first.RefreshAt) + 750*time.Millisecond) // the terms; the save
		if w.stored(weather).AccessToken == first.AccessToken {
			t.Fatal("the new token is not being saved")
		}
		if got := mustRead(t, e, weather); got.ID() != first.ID() {
			t.Error("a reader got the new token before it was saved")
		}
		time.Sleep(time.Second)
		if got := mustRead(t, e, weather); got.ID() == first.ID() {
			t.Error("a reader got the old token after the new one was saved")
		}
	})
}

func TestVerifiedTokenIsHandedOutOnceItIsSaved(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.slowEngine()
		first := mustRead(t, e, weather)
		change := w.reshape(weather, "A")
		terms := w.terms(weather, "A")
		change.Terms = w.written(weather, terms)
		var err error
		if change.Token, err = e.Verify(t.Context(), weather, terms); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- e.Change(t.Context(), weather, change) }()
		time.Sleep(time.Second / 4)
		if w.stored(weather).AccessToken != change.Token.AccessToken {
			t.Fatal("the verified token is not being saved")
		}
		if got := mustRead(t, e, weather); got.ID() != first.ID() {
			t.Error("a reader got the verified token before it was saved")
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := mustRead(t, e, weather); got.AccessToken != change.Token.AccessToken {
			t.Error("a reader got the old token after the write")
		}
	})
}
