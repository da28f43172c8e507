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

func TestVerifiedTokenIsSavedAndPublishedWithTheWrite(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		mustRead(t, e, weather)
		change := w.verified(e, weather, "B")
		mustChange(t, e, weather, change)
		if got := mustRead(t, e, weather); got.AccessToken != change.Token.AccessToken {
			t.Error("the verified token is not the one served")
		}
		w.wantStored(weather, change.Token.AccessToken)
		w.wantFetches(2)
		time.Sleep(46 * time.Minute)
		w.wantFetches(3)
	})
}

func TestNewCredentialsKeepTokensInServiceAndRefreshThem(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.shapes[reader] = "R"
		own, role := mustRead(t, e, weather), mustRead(t, e, reader)
		w.with(func(w *world) { w.latency = 5 * time.Second })
		mustChange(t, e, weather, w.rotation(e))
		wantOther(t, e, weather, own.ID())
		before := time.Now()
		if got := mustRead(t, e, reader); got.ID() != role.ID() || time.Since(before) != 0 {
			t.Error("the role's token did not stay in service")
		}
		time.Sleep(6 * time.Second)
		wantOther(t, e, reader, role.ID())
		w.wantFetches(4)
	})
}

// Tokens that are not fully loaded were also obtained with the old credentials.
func TestNewCredentialsRefreshTokensThatAreBeingLoaded(t *testing.T) {
	const roles = 3 * loaders
	reader := func(i int) Name { return Name{"weather", fmt.Sprint("reader-", i)} }
	stories(t, map[string]func(e *Engine){
		"at the start": func(e *Engine) {
			e.LoadAll()
			time.Sleep(500 * time.Millisecond) // some are loading, and others wait for them
		},
		"after an invalidation": func(e *Engine) {
			e.LoadAll()
			time.Sleep(time.Minute)
			for i := range roles {
				e.InvalidateToken(reader(i))
			}
			time.Sleep(500 * time.Millisecond)
		},
	}, func(t *testing.T, w *world, before *Engine, load func(e *Engine)) {
		old := map[string]bool{}
		for i := range roles {
			w.with(func(w *world) { w.shapes[reader(i)] = "R" })
			old[mustRead(t, before, reader(i)).ID()] = true
		}
		before.Close()
		e := w.slowEngine()
		change := w.rotation(e)
		load(e)
		mustChange(t, e, weather, change)
		time.Sleep(2 * time.Minute)
		for i := range roles {
			if got := mustRead(t, e, reader(i)); old[got.ID()] {
				t.Errorf("the token of %s was not replaced", reader(i))
			}
		}
		w.wantFetches(2*roles + 1)
	})
}

// If the credentials change during a refresh, the refresh is repeated once with the new ones. If this attempt fails,
// a window opens as after any failure.
func TestNewCredentialsDuringARefreshCostOneAttempt(t *testing.T) {
	stories(t, map[string]error{
		"granted": nil, "refused": clientFailures["invalid_client"],
	}, func(t *testing.T, w *world, e *Engine, refuse error) {
		w.shapes[reader] = "R"
		held := mustRead(t, e, reader)
		w.with(func(w *world) { w.latency = 5 * time.Second })
		time.Sleep(time.Until(held.RefreshAt) + time.Second) // during the refresh
		w.with(func(w *world) { w.latency = time.Second })
		change := w.rotation(e)
		w.wantFetches(3)
		w.with(func(w *world) { w.refuse = refuse })
		mustChange(t, e, weather, change)
		time.Sleep(3 * time.Second)
		w.wantFetches(4)
		if got := mustRead(t, e, reader); (got.ID() == held.ID()) != (refuse != nil) {
			t.Errorf("the token has changed: %t", got.ID() != held.ID())
		}
		status, err := e.Status(t.Context(), reader)
		if err != nil || refuse != nil && (status.Failure == nil || status.Failure.Count != 1) {
			t.Errorf("%+v, %v; want one failure", status, err)
		}
	})
}

// New credentials replace a token even if storage fails when the replacement is due.
func TestNewCredentialsOutlastTroubleWithStorage(t *testing.T) {
	stories(t, map[string]bool{
		"of a token that is held": false, "of one that is being loaded": true,
	}, func(t *testing.T, w *world, e *Engine, invalidated bool) {
		w.shapes[reader] = "R"
		held := mustRead(t, e, reader)
		mustRead(t, e, weather)
		change := w.rotation(e)
		terms := change.Terms
		change.Terms = func(ctx context.Context, n Name) (*Terms, error) {
			if n == reader { // from here on, terms cannot be read
				defer w.with(func(w *world) { w.broken["terms"] = errStorage })
			}
			return terms(ctx, n)
		}
		if invalidated {
			e.InvalidateToken(reader)
		}
		mustChange(t, e, weather, change)
		time.Sleep(10 * time.Second)
		w.wantFetches(3)
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(2 * time.Minute)
		wantOther(t, e, reader, held.ID())
		w.wantFetches(4)
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

func TestVerifiedShapeChangeRenewsTheRolesThatItDrops(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.shapes[reader] = "A"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		change := w.verified(e, weather, "B")
		w.with(func(w *world) { w.shapes[reader] = "B" })
		mustChange(t, e, weather, change)
		time.Sleep(time.Second)
		before := time.Now()
		if got := mustRead(t, e, reader); got.Shape != "B" || time.Since(before) != 0 {
			t.Errorf("the role's reader waited %s for a token of shape %s", time.Since(before), got.Shape)
		}
		w.wantFetches(4)
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

// Another node's change of a server's own token does not affect the tokens of its roles.
func TestInvalidatedTokenIsTheNamesOwn(t *testing.T) {
	story(t, func(t *testing.T, w *world, e *Engine) {
		w.shapes[reader] = "R"
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		before := w.storageCalls()["load"]
		e.InvalidateToken(weather)
		time.Sleep(time.Second)
		w.wantCalls("load", before+1)
		e.Invalidate(weather)
		time.Sleep(time.Second)
		w.wantCalls("load", before+3)
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
