package tokens

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// slowStore is the world's storage over a slow line: calls take effect at once and return half a second later.
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

// slowEngine starts an engine on slow storage. The last answers of storage arrive after Close.
func (w *world) slowEngine() *Engine {
	w.t.Cleanup(func() { time.Sleep(time.Minute) })
	return w.engineOn(slowStore{w})
}

// If a write changes the terms while a token is being loaded, the loaded token is never returned.
func TestLoadThatAWriteOvertakesIsThrownAway(t *testing.T) {
	stories(t, map[string]func(*testing.T, *Engine) (wait func()){
		"for a reader": func(t *testing.T, e *Engine) func() {
			got := wantReadLater(t, e, weather)
			return func() { wantAnswer(t, <-got, "B") }
		},
		"in the background": func(_ *testing.T, e *Engine) func() { e.LoadAll(); return func() {} },
	}, func(t *testing.T, w *world, first *Engine, load func(*testing.T, *Engine) (wait func())) {
		mustRead(t, first, weather)
		e := w.slowEngine()
		wait := load(t, e)
		time.Sleep(750 * time.Millisecond) // the old terms and the old token have been read
		mustChange(t, e, weather, w.change(weather, "B"))
		time.Sleep(300 * time.Millisecond) // the old token has arrived
		if e.peek(weather).held.Load() != nil {
			t.Error("the old token is held after the write")
		}
		wantShape(t, e, weather, "B")
		wait()
	})
}

// A delete ends a fetch under way. If the answer arrives while it is being saved, the saved token is removed.
func TestAnswerThatADeleteOvertakesIsNotKept(t *testing.T) {
	stories(t, map[string]time.Duration{
		"before the answer": 0, "while it arrives": 2 * time.Second,
	}, func(t *testing.T, w *world, e *Engine, took time.Duration) {
		w.latency = time.Second
		result := reading(t, e, weather)
		synctest.Wait()
		mustChange(t, e, weather, taking(took, w.remove(weather)))
		before := time.Now()
		if err := <-result; !errors.Is(err, ErrNotConfigured) || time.Since(before) != 0 {
			t.Errorf("the reader got %v after %s, want ErrNotConfigured at once", err, time.Since(before))
		}
		w.wantStored(weather, "")
		w.wantCalls("save", 0)
		w.wantFetches(1)
	})
}

// A write on another node takes no lock here. If it happens during a save, the token is not returned, because storage
// holds newer terms.
func TestTokenThatAnInvalidationOvertakesIsNotHandedOut(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		w.latency = 0
		e := w.slowEngine()
		got := wantReadLater(t, e, weather)
		time.Sleep(1250 * time.Millisecond) // terms and token are read, and the answer is being saved
		if w.stored(weather).Shape != "A" {
			t.Fatal("the token is not being saved")
		}
		w.with(func(w *world) { w.shapes[weather] = "B" })
		e.Invalidate(weather)
		time.Sleep(time.Second) // the save has ended
		wantShape(t, e, weather, "B")
		wantAnswer(t, <-got, "B")
		w.wantFetches(2)
	})
}

func TestTokenThatAnInvalidationOvertakesIsNotHandedOutAtTheEnd(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		w.latency = 0
		e := w.slowEngine()
		failed := reading(t, e, weather)
		time.Sleep(1250 * time.Millisecond) // terms and token are read, and the answer is being saved
		w.with(func(w *world) { w.shapes[weather] = "B" })
		e.Invalidate(weather)
		e.Close()
		if err := <-failed; !errors.Is(err, ErrClosed) {
			t.Errorf("a reader got error %v, want ErrClosed", err)
		}
	})
}

// A token is saved before it is returned, so that readers do not get its predecessor after a failover.
func TestRefreshedTokenIsHandedOutOnceItIsSaved(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		w.latency = 0
		e := w.slowEngine()
		first := mustRead(t, e, weather)
		time.Sleep(time.Until(first.RefreshAt) + 750*time.Millisecond) // the terms are read, and the save is under way
		if w.stored(weather).AccessToken == first.AccessToken {
			t.Fatal("the new token is not being saved")
		}
		wantToken(t, e, weather, first.ID())
		time.Sleep(time.Second)
		wantOther(t, e, weather, first.ID())
	})
}

func TestVerifiedTokenIsHandedOutOnceItIsSaved(t *testing.T) {
	story(t, func(t *testing.T, w *world, _ *Engine) {
		e := w.slowEngine()
		first := mustRead(t, e, weather)
		change := w.verified(e, weather, "A")
		wait := changing(t, e, weather, change)
		w.wantStored(weather, change.Token.AccessToken)
		wantToken(t, e, weather, first.ID())
		wait()
		if got := mustRead(t, e, weather); got.AccessToken != change.Token.AccessToken {
			t.Error("a reader got the old token after the write")
		}
	})
}
