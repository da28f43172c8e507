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

	"github.com/hashicorp/go-hclog"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestShapeChangeDropsTheToken(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		first := mustRead(t, e, weather)
		mustChange(t, e, weather, w.reshape(weather, "B"))
		if w.stored(weather).AccessToken != "" {
			t.Error("the token of the old shape is still stored")
		}
		w.wantFetches(1) // an unverified write contacts no server
		if got := mustRead(t, e, weather); got.ID() == first.ID() || got.Shape != "B" {
			t.Error("a token of the old shape was served")
		}
	})
}

func TestVerifiedTokenIsSavedAndPublishedWithTheWrite(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		terms := w.terms(weather, "B")
		verified := mustVerify(t, e, weather, terms)
		change := w.reshape(weather, "B")
		change.Terms, change.Token = w.written(weather, terms), verified
		mustChange(t, e, weather, change)
		if got := mustRead(t, e, weather); got.AccessToken != verified.AccessToken {
			t.Error("the verified token is not the one served")
		}
		if w.stored(weather).AccessToken != verified.AccessToken {
			t.Error("the verified token was not saved")
		}
		w.wantFetches(1)
		time.Sleep(46 * time.Minute)
		w.wantFetches(2)
	})
}

func TestNewCredentialsKeepTokensInServiceAndRefreshThem(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		reader := Name{"weather", "reader"}
		w.shapes[reader] = "R"
		e := w.engine()
		own, role := mustRead(t, e, weather), mustRead(t, e, reader)
		w.with(func(w *world) { w.latency = 5 * time.Second })
		verified := mustVerify(t, e, weather, w.terms(weather, "A"))
		mustChange(t, e, weather, w.rotation(verified))
		if got := mustRead(t, e, weather); got.ID() == own.ID() {
			t.Error("the config's own token is not the verified one")
		}
		before := time.Now()
		if got := mustRead(t, e, reader); got.ID() != role.ID() || time.Since(before) != 0 {
			t.Error("the role's token did not stay in service")
		}
		time.Sleep(6 * time.Second)
		if got := mustRead(t, e, reader); got.ID() == role.ID() {
			t.Error("the role's token was not refreshed in the background")
		}
		w.wantFetches(4)
	})
}

// The tokens that are just being loaded, or are yet to be, were obtained with the old credentials too.
func TestNewCredentialsRefreshTokensThatAreBeingLoaded(t *testing.T) {
	const roles = 3 * loaders
	reader := func(i int) Name { return Name{"weather", fmt.Sprint("reader-", i)} }
	for name, load := range map[string]func(e *Engine){
		"at the start": func(e *Engine) {
			e.LoadAll()
			time.Sleep(500 * time.Millisecond) // some are being loaded, and others wait for that
		},
		"after an invalidation": func(e *Engine) {
			e.LoadAll()
			time.Sleep(time.Minute)
			for i := range roles {
				e.InvalidateToken(reader(i))
			}
			time.Sleep(500 * time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				before, old := w.engine(), map[string]bool{}
				for i := range roles {
					w.with(func(w *world) { w.shapes[reader(i)] = "R" })
					old[mustRead(t, before, reader(i)).ID()] = true
				}
				before.Close()
				e := w.slowEngine()
				verified := mustVerify(t, e, weather, w.terms(weather, "A"))
				load(e)
				mustChange(t, e, weather, w.rotation(verified))
				time.Sleep(2 * time.Minute)
				for i := range roles {
					if got := mustRead(t, e, reader(i)); old[got.ID()] {
						t.Errorf("the token of %s was not replaced", reader(i))
					}
				}
				w.wantFetches(2*roles + 1)
			})
		})
	}
}

// A refresh that is under way when the credentials change is made again with the new ones, once: also if
// it fails, which opens a window like any other failure.
func TestNewCredentialsDuringARefreshCostOneAttempt(t *testing.T) {
	for name, refuse := range map[string]error{"granted": nil, "refused": &grant.RefusedError{Status: 401, Code: "invalid_client"}} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				reader := Name{"weather", "reader"}
				w.shapes[reader] = "R"
				e := w.engine()
				held := mustRead(t, e, reader)
				w.with(func(w *world) { w.latency = 5 * time.Second })
				time.Sleep(time.Until(held.RefreshAt) + time.Second) // in the middle of the refresh
				w.with(func(w *world) { w.latency = time.Second })
				verified := mustVerify(t, e, weather, w.terms(weather, "A"))
				w.wantFetches(3)
				w.with(func(w *world) { w.refuse = refuse })
				mustChange(t, e, weather, w.rotation(verified))
				time.Sleep(3 * time.Second)
				w.wantFetches(4)
				if got := mustRead(t, e, reader); (got.ID() == held.ID()) != (refuse != nil) {
					t.Errorf("the token is another one: %t", got.ID() != held.ID())
				}
				status, err := e.Status(t.Context(), reader)
				if err != nil || refuse != nil && (status.Failure == nil || status.Failure.Count != 1) {
					t.Errorf("%+v, %v; want one failure", status, err)
				}
			})
		})
	}
}

// A replacement that new credentials ask for is made though storage is away when it is due.
func TestNewCredentialsOutlastTroubleWithStorage(t *testing.T) {
	for name, invalidated := range map[string]bool{"of a token that is held": false, "of one that is being loaded": true} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				reader := Name{"weather", "reader"}
				w.shapes[reader] = "R"
				e := w.engine()
				held := mustRead(t, e, reader)
				mustRead(t, e, weather)
				verified := mustVerify(t, e, weather, w.terms(weather, "A"))
				change := w.rotation(verified)
				terms := change.Terms
				change.Terms = func(ctx context.Context, n Name) (*Terms, error) {
					if n == reader { // looked at for the last time in a while
						defer w.with(func(w *world) { w.broken["terms"] = errors.New("storage is away") })
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
				if got := mustRead(t, e, reader); got.ID() == held.ID() {
					t.Error("the token was not replaced")
				}
				w.wantFetches(4)
			})
		})
	}
}

// A flight may come to begin only after its name was deleted, and the name may be configured again by then.
func TestFlightOfASlotThatIsGoneStoresNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		s := e.slot(weather)
		s.mu.Lock()
		if err := s.launch(""); err != nil { // its goroutine begins when the lock is free
			t.Fatal(err)
		}
		f := s.flight.Load()
		s.drop()
		s.mu.Unlock()
		if err := f.wait(t.Context()); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("got %v, want %v", err, ErrNotConfigured)
		}
		w.wantFetches(0)
		if n := w.storageCalls()["save"]; n != 0 {
			t.Errorf("%d tokens were stored", n)
		}
		mustRead(t, e, weather) // by another slot
	})
}

func TestVerifiedShapeChangeRenewsTheRolesThatItDrops(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		reader := Name{"weather", "reader"}
		w.shapes[reader] = "A"
		e := w.engine()
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		verified := mustVerify(t, e, weather, w.terms(weather, "B"))
		mustChange(t, e, weather, Change{
			Terms: w.written(weather, w.terms(weather, "B")), Token: verified,
			Write: func(context.Context) error {
				w.with(func(w *world) { w.shapes[weather], w.shapes[reader] = "B", "B" })
				return nil
			},
		})
		time.Sleep(time.Second)
		before := time.Now()
		if got := mustRead(t, e, reader); got.Shape != "B" || time.Since(before) != 0 {
			t.Errorf("the role's reader waited %s for a token of shape %s", time.Since(before), got.Shape)
		}
		w.wantFetches(4)
	})
}

func TestFetchBegunUnderAnOlderRevisionIsThrownAway(t *testing.T) {
	for _, outcome := range []error{nil, &grant.RefusedError{Code: "invalid_client"}} {
		t.Run(fmt.Sprint(outcome), func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.latency, w.refuse = 2*time.Second, outcome
				e := w.engine()
				got := mustReadLater(t, e, weather)
				synctest.Wait()
				time.Sleep(time.Second)
				w.with(func(w *world) { w.refuse = nil })
				mustChange(t, e, weather, w.reshape(weather, "B"))
				if answer := <-got; answer.Shape != "B" {
					t.Errorf("the reader got a token of shape %s", answer.Shape)
				}
				w.wantFetches(2)
				if e.Failing(weather) {
					t.Error("a failure of the old revision is remembered")
				}
			})
		})
	}
}

func TestConflictWritesAndDisturbsNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		first := mustRead(t, e, weather)
		before := fmt.Sprint(w.storageCalls())
		err := e.Change(t.Context(), weather, Change{Write: func(context.Context) error { return ErrConflict }})
		if !errors.Is(err, ErrConflict) {
			t.Fatalf("got %v, want ErrConflict", err)
		}
		if got := mustRead(t, e, weather); got.ID() != first.ID() {
			t.Error("the token was lost")
		}
		if after := fmt.Sprint(w.storageCalls()); after != before {
			t.Errorf("storage calls went from %s to %s", before, after)
		}
	})
}

func TestFailedWriteKeepsServing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		first := mustRead(t, e, weather)
		full := errors.New("storage is full")
		if err := e.Change(t.Context(), weather, Change{Write: func(context.Context) error { return full }}); !errors.Is(err, full) {
			t.Fatalf("got %v, want the write's error", err)
		}
		if got := mustRead(t, e, weather); got.ID() != first.ID() {
			t.Error("the token was lost")
		}
		w.wantFetches(1)
	})
}

func TestDeleteEndsTheTokenAndItsRefresh(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		reader := Name{"weather", "reader"}
		w.shapes[reader] = "R"
		e := w.engine()
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		mustChange(t, e, weather, Change{Write: func(context.Context) error {
			w.with(func(w *world) { clear(w.shapes); clear(w.saved) })
			return nil
		}})
		for _, name := range []Name{weather, reader} {
			if _, err := e.Read(t.Context(), name); !errors.Is(err, ErrNotConfigured) {
				t.Errorf("reading %s gave %v, want ErrNotConfigured", name, err)
			}
		}
		time.Sleep(24 * time.Hour)
		w.wantFetches(2)
	})
}

func TestDeleteEndsAFetchUnderWay(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = 4 * time.Second
		e := w.engine()
		result := reading(t, e, weather)
		synctest.Wait()
		before := time.Now()
		mustChange(t, e, weather, Change{Write: func(context.Context) error {
			w.with(func(w *world) { clear(w.shapes) })
			return nil
		}})
		if err := <-result; !errors.Is(err, ErrNotConfigured) || time.Since(before) != 0 {
			t.Errorf("the reader got %v after %s", err, time.Since(before))
		}
		if w.stored(weather).AccessToken != "" {
			t.Error("a token was saved after the delete")
		}
	})
}

func TestCompareAndRefreshCostsOneFetch(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		rejected := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		var mu sync.Mutex
		ids := map[string]int{}
		parallel(1000, func(int) {
			token, refreshed, err := e.Refresh(t.Context(), weather, rejected.ID())
			if err != nil || !refreshed {
				t.Errorf("got refreshed=%v, %v", refreshed, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[token.ID()]++
		})
		if len(ids) != 1 || ids[rejected.ID()] != 0 {
			t.Errorf("got %d tokens", len(ids))
		}
		w.wantFetches(2)
		time.Sleep(time.Minute)
		token, refreshed, err := e.Refresh(t.Context(), weather, rejected.ID())
		if err != nil || refreshed || ids[token.ID()] == 0 {
			t.Errorf("a late broker got refreshed=%v, %v; want the new token's ID at no cost", refreshed, err)
		}
		w.wantFetches(2)
	})
}

func TestCooldownHoldsWithAndWithoutTokenID(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		held := mustRead(t, e, weather)
		for _, rejected := range []string{"", held.ID()} {
			token, refreshed, err := e.Refresh(t.Context(), weather, rejected)
			if err != nil || refreshed || token.ID() != held.ID() {
				t.Errorf("got refreshed=%v, %v", refreshed, err)
			}
		}
		w.wantFetches(1)
		time.Sleep(cooldown)
		if _, refreshed, err := e.Refresh(t.Context(), weather, ""); err != nil || !refreshed {
			t.Errorf("after the cooldown got refreshed=%v, %v", refreshed, err)
		}
		w.wantFetches(2)
	})
}

func TestRefreshOfARepeatedTokenSaysSoAndCoolsDown(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.sameID = true
		e := w.engine()
		held := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		for range 5 {
			token, refreshed, err := e.Refresh(t.Context(), weather, held.ID())
			if err != nil || refreshed || token.ID() != held.ID() {
				t.Errorf("got refreshed=%v, %v", refreshed, err)
			}
		}
		w.wantFetches(2)
	})
}

func TestRefreshWithoutATokenFetchesOnce(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		if _, refreshed, err := e.Refresh(t.Context(), weather, ""); err != nil || !refreshed {
			t.Errorf("got refreshed=%v, %v", refreshed, err)
		}
		w.wantFetches(1)
		if _, _, err := e.Refresh(t.Context(), Name{Server: "nobody"}, ""); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("got %v, want ErrNotConfigured", err)
		}
	})
}

func TestRefreshComparesWithTheStoredTokenAfterARestart(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		held := mustRead(t, w.engine(), weather)
		time.Sleep(time.Minute)
		e := w.engine()
		if token, refreshed, err := e.Refresh(t.Context(), weather, "0123456789abcdef"); err != nil || refreshed || token.ID() != held.ID() {
			t.Errorf("got refreshed=%v, %v", refreshed, err)
		}
		w.wantFetches(1)
	})
}

func TestRefreshWithinABackoffWindowAsksNobody(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		held := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.refuse = &grant.RefusedError{Code: "invalid_client"} })
		for range 10 {
			if _, _, err := e.Refresh(t.Context(), weather, held.ID()); err == nil {
				t.Fatal("a refused refresh succeeded")
			}
		}
		w.wantFetches(2)
		if got := mustRead(t, e, weather); got.ID() != held.ID() {
			t.Error("the held token was taken out of service")
		}
	})
}

func TestInvalidateLooksIntoStorageAgain(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		first := mustRead(t, e, weather)
		w.with(func(w *world) { w.shapes[weather] = "B" }) // another node's write
		e.Invalidate(weather)
		if got := mustRead(t, e, weather); got.ID() == first.ID() {
			t.Error("a token of the old shape was served")
		}
	})
}

// What another node did to a server's own token is nothing to its roles.
func TestInvalidatedTokenIsTheNamesOwn(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		reader := Name{"weather", "reader"}
		w.shapes[reader] = "R"
		e := w.engine()
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		before := w.storageCalls()["load"]
		e.InvalidateToken(weather)
		time.Sleep(time.Second)
		if n := w.storageCalls()["load"] - before; n != 1 {
			t.Errorf("%d tokens were loaded, want one", n)
		}
		e.Invalidate(weather)
		time.Sleep(time.Second)
		if n := w.storageCalls()["load"] - before; n != 3 {
			t.Errorf("%d tokens were loaded, want one and then both", n)
		}
		w.wantFetches(2)
	})
}

// TestAfterAChangeNobodyGetsTheOldShape hammers one name with everything at once.
func TestAfterAChangeNobodyGetsTheOldShape(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.latency = 5*time.Second, 300*time.Millisecond
		e := w.engine()
		var mu sync.Mutex
		written := 0 // the highest shape whose write has returned
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
				w.mu.Lock()
				terms := w.terms(weather, shape)
				w.mu.Unlock()
				verified := mustVerify(t, e, weather, terms)
				change.Terms, change.Token = w.written(weather, terms), verified
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

// A client that hangs up must not leave half a write.
func TestWriteGoesOnWithoutItsClient(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		ctx, hangUp := context.WithCancel(t.Context())
		err := e.Change(ctx, weather, Change{Write: func(ctx context.Context) error {
			hangUp()
			synctest.Wait()
			return ctx.Err()
		}})
		if err != nil {
			t.Errorf("the write ended with its client: %v", err)
		}
	})
}

// slowStorage takes a while for each delete.
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

// TestWriteWithManyRolesEnds: new scopes make the stored tokens of 3,000 roles worthless. Deleting them all would hold
// up Vault's seal, and the server's readers; their shape keeps the rest from being used.
func TestWriteWithManyRolesEnds(t *testing.T) {
	for _, deletes := range []time.Duration{7 * time.Millisecond, time.Minute} {
		t.Run(deletes.String(), func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				e := New(Options{Store: slowStorage{w, deletes}, Passive: w.isPassive, Log: hclog.NewNullLogger()})
				t.Cleanup(e.Close)
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
					if got := mustRead(t, e, name); got.Shape != "B" {
						t.Fatalf("%s: a token of the shape %s was handed out", name, got.Shape)
					}
				}
			})
		})
	}
}
