package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestShapeChangeDropsTheToken(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		mustChange(t, e, weather, w.reshape(weather, "B"))
		w.wantStored(weather, "")
		w.wantFetches(1) // an unverified write contacts no server
		wantShape(t, e, weather, "B")
	})
}

// A flight may begin after its name was deleted and configured again.
func TestFlightOfASlotThatIsGoneStoresNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		s := e.slot(weather)
		s.mu.Lock()
		if err := s.launch(&flight{}); err != nil { // its goroutine waits for the lock
			t.Fatal(err)
		}
		f := s.flight.Load()
		s.drop()
		s.mu.Unlock()
		if err := f.wait(t.Context()); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("got %v, want %v", err, ErrNotConfigured)
		}
		w.wantFetches(0)
		w.wantCalls("save", 0)
		mustRead(t, e, weather) // through a new slot
	})
}

func TestFetchBegunUnderAnOlderRevisionIsThrownAway(t *testing.T) {
	type answer struct {
		refuse error
		took   time.Duration // duration of the write, in which the answer may arrive
	}
	invalidScope := &grant.RefusedError{Status: 400, Code: "invalid_scope"}
	stories(t, map[string]answer{
		"granted after the write": {nil, 0}, "granted during the write": {nil, 2 * time.Second},
		"refused after the write": {clientFailures["invalid_client"], 0}, "refused during the write": {invalidScope, 2 * time.Second},
	}, func(t *testing.T, w *world, e *Engine, answer answer) {
		w.latency, w.refuse = time.Second, answer.refuse
		got := wantReadLater(t, e, weather)
		synctest.Wait()
		time.Sleep(time.Second / 2)
		change := taking(answer.took, w.reshape(weather, "B"))
		wait := changing(t, e, weather, change)
		time.Sleep(answer.took)
		w.with(func(w *world) { w.refuse = nil })
		wait()
		time.Sleep(time.Second / 4)
		if e.Failing(weather) {
			t.Error("a failure of the old revision is remembered")
		}
		wantAnswer(t, <-got, "B")
		w.wantFetches(2)
	})
}

func TestConflictWritesAndDisturbsNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		first := mustRead(t, e, weather)
		before := w.storageCalls()
		err := e.Change(t.Context(), weather, Change{Write: func(context.Context) error { return ErrConflict }})
		if !errors.Is(err, ErrConflict) {
			t.Fatalf("got %v, want ErrConflict", err)
		}
		wantToken(t, e, weather, first.ID())
		w.wantNoCallsSince(before)
	})
}

func TestDeleteEndsTheTokenAndItsRefresh(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.shapes[reader] = "R"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		mustChange(t, e, weather, Change{Terms: w.Terms, Write: func(context.Context) error {
			w.with(func(w *world) { clear(w.shapes); clear(w.saved) })
			return nil
		}})
		for _, name := range []Name{weather, reader} {
			wantError(t, e, name, ErrNotConfigured)
		}
		time.Sleep(24 * time.Hour)
		w.wantFetches(2)
	})
}

func TestAfterAChangeNoReaderGetsTheOldShape(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.lifetime, w.latency = 5*time.Second, 300*time.Millisecond
		var mu sync.Mutex
		written := 0 // the latest shape whose write has returned
		done := make(chan struct{})
		var readers sync.WaitGroup
		for i := range 20 {
			readers.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(time.Duration(i+1) * 7 * time.Millisecond):
					}
					mu.Lock()
					least := written
					mu.Unlock()
					answer, err := e.Read(t.Context(), weather)
					if err != nil {
						t.Errorf("read: %v", err)
						return
					}
					if !answer.ValidAt(time.Now()) {
						t.Error("got an expired token")
					}
					var shape int
					if _, err := fmt.Sscanf(answer.Shape, "S%d", &shape); err == nil && shape < least || err != nil && least > 0 {
						t.Errorf("got shape %s after the write of S%d had returned", answer.Shape, least)
					}
					if !strings.HasPrefix(answer.AccessToken, answer.Shape+"-") {
						t.Errorf("token %s is not of shape %s", answer.AccessToken, answer.Shape)
					}
					if i == 0 {
						_, _, _ = e.Refresh(t.Context(), weather, answer.ID())
					}
				}
			})
		}
		for n := 1; n <= 50; n++ {
			shape := fmt.Sprintf("S%d", n)
			change := w.reshape(weather, shape)
			if n%2 == 0 {
				change = w.verified(e, weather, shape)
			}
			mustChange(t, e, weather, change)
			mu.Lock()
			written = n
			mu.Unlock()
			time.Sleep(time.Duration(n*37%900) * time.Millisecond)
		}
		close(done)
		readers.Wait()
	})
}

// A client that disconnects must not leave half a write.
func TestWriteGoesOnWithoutItsClient(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		ctx, hangUp := context.WithCancel(t.Context())
		if err := e.Change(ctx, weather, Change{Terms: w.Terms, Write: func(ctx context.Context) error {
			hangUp()
			synctest.Wait()
			return ctx.Err()
		}}); err != nil {
			t.Errorf("the write ended when its client disconnected: %v", err)
		}
	})
}

// slowStorage makes each delete slow.
type slowStorage struct {
	*world
	deletes time.Duration
}

func (s slowStorage) Delete(ctx context.Context, name Name) error {
	select {
	case <-time.After(s.deletes):
		return s.world.Delete(ctx, name)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// New scopes invalidate the stored tokens of 3,000 roles. Deleting them all would delay Vault's seal and the server's
// readers. The tokens that remain have another shape, so they are not used.
func TestWriteWithManyRolesEnds(t *testing.T) {
	stories(t, map[string]time.Duration{
		"quick": 7 * time.Millisecond, "slow": time.Minute,
	}, func(t *testing.T, w *world, _ *Engine, deletes time.Duration) {
		e := w.engineOn(slowStorage{w, deletes})
		w.latency = 0
		names := w.roles(e, 3000)
		change := w.reshape(weather, "A")
		change.Terms = func(_ context.Context, name Name) (*Terms, error) { return w.terms(name, "B"), nil }
		w.with(func(w *world) {
			for _, name := range names {
				w.shapes[name] = "B"
			}
		})
		begun := time.Now()
		mustChange(t, e, weather, change)
		if took := time.Since(begun); took > tidyMost {
			t.Errorf("the write took %s, want at most %s", took, tidyMost)
		}
		for _, name := range names {
			wantShape(t, e, name, "B")
		}
	})
}

// A write resets the client's failure. It must clear a failure of the name too.
func TestWriteEndsTheBackoff(t *testing.T) {
	stories(t, map[string]error{
		"the name's own": &grant.RefusedError{Status: 400, Code: "invalid_scope"}, "its client's": clientFailures["invalid_client"],
	}, func(t *testing.T, w *world, e *Engine, refuse error) {
		w.refuse = refuse
		_ = mustFail(t, e, weather)
		w.with(func(w *world) { w.refuse = nil })
		_ = mustFail(t, e, weather)
		mustChange(t, e, weather, w.reshape(weather, "A"))
		mustRead(t, e, weather)
		w.wantFetches(2)
	})
}

// The failure is the client's, and outlives the deleted config. The new config may have other credentials.
func TestCreateAfterADeleteEndsTheClientsBackoff(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.refuse = clientFailures["invalid_client"]
		_ = mustFail(t, e, weather)
		mustChange(t, e, weather, w.remove(weather))
		wantError(t, e, weather, ErrNotConfigured)
		w.with(func(w *world) { w.refuse = nil })
		mustChange(t, e, weather, w.reshape(weather, "A"))
		mustRead(t, e, weather)
	})
}

func TestWriteThatChangesNoTokenLeavesStorageAlone(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		names := w.roles(e, 3)
		first := mustRead(t, e, names[0])
		mustChange(t, e, weather, w.verified(e, weather, "A"))
		time.Sleep(time.Minute)
		wantToken(t, e, names[0], first.ID())
		w.wantFetches(len(names) + 1)
		w.wantCalls("delete", 0)
	})
}

// The roles of a config get tokens on verified terms one after another. The next write does not interrupt this.
func TestNextWriteKeepsRefreshesInLine(t *testing.T) {
	stories(t, map[string]bool{
		"new credentials": true, "something else": false,
	}, func(t *testing.T, w *world, e *Engine, refresh bool) {
		names := w.roles(e, 4*hostBackground)
		change := w.verified(e, weather, "B")
		w.with(func(w *world) {
			for _, name := range names {
				w.shapes[name] = "B"
			}
		})
		mustChange(t, e, weather, change)
		next := w.change(weather, "B")
		next.Refresh = refresh
		mustChange(t, e, weather, next)
		time.Sleep(time.Minute)
		for _, name := range names {
			wantState(t, e, name, StateOK)
		}
	})
}

func TestServersDoNotWaitForOneAnothersWrites(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.latency = time.Millisecond
		names := w.servers(700, "")
		wait := changing(t, e, weather, w.slowWrite(20*time.Second))
		begun := time.Now()
		parallel(len(names), func(i int) { wantRead(t, e, names[i]) })
		if waited := time.Since(begun); waited > time.Second {
			t.Errorf("readers of other servers waited %s", waited)
		}
		wait()
	})
}

// taking returns the change with a write that takes this long.
func taking(took time.Duration, change Change) Change {
	write := change.Write
	change.Write = func(ctx context.Context) error { time.Sleep(took); return write(ctx) }
	return change
}

// slowWrite is a write that takes this long and changes nothing.
func (w *world) slowWrite(took time.Duration) Change {
	return taking(took, Change{Terms: w.Terms, Write: func(context.Context) error { return nil }})
}
