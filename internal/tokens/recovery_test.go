package tokens

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestTokenThatWentIdleWhileFailingIsRefreshedWhenItIsRead(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.idle, w.latency = 24*time.Hour, time.Minute, 0
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(24*time.Hour + 30*time.Minute) // refreshed at 18 h, idle since 24 h
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
	story(t, func(t *testing.T, w *world) {
		w.refuse, w.latency = &grant.UnavailableError{Reason: "connection refused"}, 0
		e := w.engine()
		for range 300 {
			_ = mustFail(t, e, weather)
			time.Sleep(time.Second)
		}
		w.with(func(w *world) { w.refuse = &grant.RefusedError{Status: 401, Code: "invalid_client"} })
		for range 300 {
			failed := mustFail(t, e, weather)
			if _, refused := errors.AsType[*grant.RefusedError](error(failed)); refused {
				if wait := time.Until(failed.NextAttempt); wait > refusedFirst {
					t.Errorf("the first refusal backs off %s, want at most %s", wait, refusedFirst)
				}
				status, _ := e.Status(t.Context(), weather)
				if status.Failure.Refusals != 1 || status.Failure.Count < 3 {
					t.Errorf("%d refusals of %d failures in a row, want 1 of those of the outage and its own",
						status.Failure.Refusals, status.Failure.Count)
				}
				return
			}
			time.Sleep(time.Second)
		}
		t.Error("the refusal was never seen")
	})
}

func TestReadersInVainCountAsReaders(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.idle = time.Minute, time.Minute
		e := w.engine()
		mustRead(t, e, weather)
		w.with(func(w *world) { w.refuse = &grant.UnavailableError{Status: 503} })
		for range 1200 {
			_, _ = e.Read(t.Context(), weather)
			time.Sleep(time.Second)
		}
		if status, _ := e.Status(t.Context(), weather); time.Since(status.LastRead) > 3*time.Second {
			t.Errorf("last read %s ago", time.Since(status.LastRead))
		}
	})
}

func TestLoadingIsTriedAgainUntilStorageAnswers(t *testing.T) {
	for _, method := range []string{"names", "terms", "load"} {
		t.Run(method, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				mustRead(t, w.engine(), weather)
				w.with(func(w *world) { w.broken[method] = errors.New("storage is sealed") })
				e := w.engine()
				e.LoadAll()
				time.Sleep(10 * time.Second)
				if s := e.peek(weather); s != nil && s.held.Load() != nil {
					t.Fatal("the token was loaded from broken storage")
				}
				w.with(func(w *world) { clear(w.broken) })
				time.Sleep(time.Minute)
				if s := e.peek(weather); s == nil || s.held.Load() == nil {
					t.Error("the token was not loaded once storage answered")
				}
			})
		})
	}
}

// partlyBroken is storage whose entries of some names can't be read.
type partlyBroken struct {
	*world
	broken func(Name) bool
}

func (s partlyBroken) Terms(ctx context.Context, name Name) (*Terms, error) {
	terms, err := s.world.Terms(ctx, name)
	if s.broken(name) {
		return nil, errors.New("the entry is damaged")
	}
	return terms, err
}

// onlySaves is storage that stores the tokens of one name alone.
type onlySaves struct {
	*world
	name Name
}

func (s onlySaves) Save(ctx context.Context, name Name, t *Token) error {
	if name != s.name {
		return errors.New("the entry is too large")
	}
	return s.world.Save(ctx, name, t)
}

// Names that can't be loaded for good keep no other from being loaded, however many they are.
func TestDamagedEntriesKeepNoOthersFromBeingLoaded(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		const names = 4 * loaders
		first := w.engine()
		for i := range names {
			name := Name{Server: fmt.Sprint("s", i)}
			w.with(func(w *world) { w.shapes[name] = "A" })
			mustRead(t, first, name)
		}
		first.Close()
		mended := false // guarded by w.mu
		e := New(Options{Store: partlyBroken{w, func(n Name) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return !mended && len(n.Server) == 2 // s0 to s9
		}}, Passive: w.isPassive, Log: hclog.NewNullLogger()})
		t.Cleanup(e.Close)
		e.LoadAll()
		time.Sleep(time.Second)
		held := func() (n int) {
			for i := range names {
				if s := e.peek(Name{Server: fmt.Sprint("s", i)}); s != nil {
					s.mu.Lock()
					if s.held.Load() != nil && s.timer != nil {
						n++
					}
					s.mu.Unlock()
				}
			}
			return n
		}
		if got := held(); got != names-10 {
			t.Errorf("%d of %d tokens are loaded beside 10 damaged ones", got, names-10)
		}
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		if n := w.storageCalls()["terms"] - looks; n > 10*30 {
			t.Errorf("storage was asked %d times in ten minutes for 10 damaged entries", n)
		}
		w.with(func(*world) { mended = true })
		time.Sleep(time.Minute)
		if got := held(); got != names {
			t.Errorf("%d of %d tokens are loaded after all are mended", got, names)
		}
	})
}

// A token that can't be saved keeps no other from being saved before it is handed out.
func TestSaveThatFailsAtOnceIsNobodyElses(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		other := Name{Server: "other"}
		w.shapes[other], w.lifetime = "A", time.Minute
		e := New(Options{Store: onlySaves{w, other}, Passive: w.isPassive, Log: hclog.NewNullLogger()})
		t.Cleanup(e.Close)
		for range 600 {
			mustRead(t, e, weather)
			if held := mustRead(t, e, other); w.stored(other).AccessToken != held.AccessToken {
				t.Fatal("a token was handed out that is not stored")
			}
			time.Sleep(time.Second)
		}
	})
}

func TestRepeatedTokenWithALowerCapIsRefreshedAhead(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime, w.sameID = time.Hour, true
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.maxTTL = 10 * time.Minute })
		if _, _, err := e.Refresh(t.Context(), weather, ""); err != nil {
			t.Fatal(err)
		}
		if held := mustRead(t, e, weather); !held.RefreshAt.Before(held.Expires) {
			t.Error("the token is refreshed at its end only")
		}
	})
}

func TestInvalidationDropsTheStoredTokenOfAConfigThatIsGone(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		mustRead(t, e, weather)
		w.with(func(w *world) { delete(w.shapes, weather) })
		e.Invalidate(weather)
		synctest.Wait()
		if w.stored(weather).AccessToken != "" {
			t.Error("the token is still stored")
		}
	})
}

func TestDroppedTokenIsNotUnsaved(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.broken["save"] = errors.New("storage is full")
		e := w.engine()
		mustRead(t, e, weather)
		mustChange(t, e, weather, w.reshape(weather, "B"))
		if status, _ := e.Status(t.Context(), weather); status.Unsaved || status.Token != nil {
			t.Errorf("status %+v, want nothing held and nothing unsaved", status)
		}
	})
}

func TestStatusCausesNothing(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.lifetime = time.Hour
		first := mustRead(t, w.engine(), weather)
		time.Sleep(50 * time.Minute) // the first engine refreshed it
		n := w.fetches()
		e := w.engine()
		for range 100 {
			status, err := e.Status(t.Context(), weather)
			if err != nil || status.State != StateOK || status.Token.ID() == first.ID() {
				t.Fatalf("status %+v, %v; want the stored token's", status, err)
			}
			time.Sleep(time.Second / 10)
		}
		w.wantFetches(n)
		if e.peek(weather) != nil {
			t.Error("a look at the status loaded the name")
		}
	})
}

// overtaken is storage in which a write of another node comes while a token is saved.
type overtaken struct {
	*world
	onSave atomic.Pointer[func()] // done once
}

func (o *overtaken) Save(ctx context.Context, name Name, t *Token) error {
	if f := o.onSave.Swap(nil); f != nil {
		(*f)()
	}
	return o.world.Save(ctx, name, t)
}

func TestInvalidationDuringASaveKeepsTheTokenFromBeingPublished(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		store := &overtaken{world: w}
		e := New(Options{Store: store, Passive: w.isPassive, Log: hclog.NewNullLogger()})
		t.Cleanup(e.Close)
		mustRead(t, e, weather)
		overtake := func() {
			w.with(func(w *world) { w.shapes[weather] = "B" })
			e.Invalidate(weather)
			w.with(func(w *world) { w.broken["terms"] = errors.New("storage is away") })
		}
		store.onSave.Store(&overtake)
		time.Sleep(46 * time.Minute)
		if answer, err := e.Read(t.Context(), weather); err == nil && answer.Shape == "A" {
			t.Error("a token of the old terms is served after the invalidation")
		}
	})
}

func TestVerifiedWriteReleasesThoseWhoWaitForAHangingServer(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = 9 * time.Second
		e := w.engine()
		got := mustReadLater(t, e, weather)
		synctest.Wait()
		w.with(func(w *world) { w.latency = 0 })
		terms := w.terms(weather, "B")
		verified := mustVerify(t, e, weather, terms)
		change := w.reshape(weather, "B")
		change.Terms, change.Token = w.written(weather, terms), verified
		before := time.Now()
		mustChange(t, e, weather, change)
		if answer := <-got; answer.AccessToken != verified.AccessToken || time.Since(before) != 0 {
			t.Errorf("the reader waited %s for another token", time.Since(before))
		}
		w.wantFetches(2)
	})
}

func TestFailedWriteIsLookedIntoAndHeldTokensServe(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		const roles = 20
		for i := range roles {
			w.shapes[Name{"weather", fmt.Sprint(i)}] = "A"
		}
		e := w.engine()
		mustRead(t, e, weather)
		for i := range roles {
			mustRead(t, e, Name{"weather", fmt.Sprint(i)})
		}
		n := w.fetches()
		w.with(func(w *world) { w.broken["terms"] = errors.New("storage is away") })
		before := time.Now()
		away := errors.New("storage is away")
		// It failed, and has come through all the same.
		err := e.Change(t.Context(), weather, Change{Write: func(context.Context) error {
			w.with(func(w *world) { w.shapes[weather] = "B" })
			return away
		}})
		if !errors.Is(err, away) || time.Since(before) != 0 {
			t.Errorf("the write ended after %s with %v", time.Since(before), err)
		}
		mustRead(t, e, weather)
		mustRead(t, e, Name{"weather", "7"})
		time.Sleep(10 * time.Minute)
		mustRead(t, e, weather)
		w.wantFetches(n)
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(time.Minute) // and not only when the token is due to be refreshed
		if got := mustRead(t, e, weather); got.Shape != "B" {
			t.Error("what the failed write left was never looked into")
		}
	})
}

// lateWrite is a write that fails and comes through ten seconds later.
func (w *world) lateWrite(shapes map[Name]string, failure error) Change {
	return Change{Write: func(context.Context) error {
		time.AfterFunc(10*time.Second, func() { w.with(func(w *world) { maps.Copy(w.shapes, shapes) }) })
		return failure
	}}
}

func TestFailedWriteThatComesThroughLaterIsNoticed(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		reader, writer := Name{"weather", "reader"}, Name{"weather", "writer"}
		w.shapes[reader], w.shapes[writer] = "A", "A"
		e := w.engine()
		mustRead(t, e, weather)
		mustRead(t, e, reader)
		timeout := errors.New("storage has timed out")
		write := w.lateWrite(map[Name]string{weather: "B", reader: "B", writer: "B"}, timeout)
		if err := e.Change(t.Context(), weather, write); !errors.Is(err, timeout) {
			t.Fatalf("got %v, want the write's error", err)
		}
		time.Sleep(5 * time.Second)
		for _, name := range []Name{weather, reader, writer} { // the writer's for the first time
			if got := mustRead(t, e, name); got.Shape != "A" {
				t.Errorf("%s has a token of shape %s before the write has come through", name, got.Shape)
			}
		}
		time.Sleep(LateCommit)
		for _, name := range []Name{weather, reader, writer} {
			if got := mustRead(t, e, name); got.Shape != "B" {
				t.Errorf("%s has a token of shape %s after the write has come through", name, got.Shape)
			}
		}
		w.wantFetches(6)
		calls := w.storageCalls()["terms"]
		time.Sleep(30 * time.Minute)
		if n := w.storageCalls()["terms"] - calls; n != 0 {
			t.Errorf("storage was looked at %d times after that", n)
		}
	})
}

func TestLookAfterAFailedWriteAsksNobody(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		mustRead(t, e, weather)
		full := errors.New("storage is full")
		if err := e.Change(t.Context(), weather, Change{Write: func(context.Context) error { return full }}); !errors.Is(err, full) {
			t.Fatalf("got %v, want the write's error", err)
		}
		looks := w.storageCalls()["terms"]
		time.Sleep(LateCommit + time.Second)
		if w.storageCalls()["terms"] == looks {
			t.Error("storage was not looked at")
		}
		w.wantFetches(1)
	})
}

func TestFailedWriteLeavesTheBackoff(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.refuse = &grant.RefusedError{Code: "invalid_client"}
		e := w.engine()
		before := mustFail(t, e, weather)
		full := errors.New("storage is full")
		if err := e.Change(t.Context(), weather, Change{Write: func(context.Context) error { return full }}); !errors.Is(err, full) {
			t.Fatalf("got %v, want the write's error", err)
		}
		if after := mustFail(t, e, weather); !after.NextAttempt.Equal(before.NextAttempt) {
			t.Errorf("the next attempt is at %s, want %s as before the write", after.NextAttempt, before.NextAttempt)
		}
		w.wantFetches(1)
	})
}

func TestReadersOfAnOverdueTokenDoNotHammerStorage(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errors.New("storage is away") })
		time.Sleep(time.Until(held.RefreshAt))
		looks := w.storageCalls()["terms"]
		for range 600 {
			mustRead(t, e, weather)
			time.Sleep(time.Second / 10)
		}
		if n := w.storageCalls()["terms"] - looks; n < 3 || n > 10 {
			t.Errorf("storage was asked %d times in a minute, want what the backoff allows", n)
		}
	})
}

func TestInvalidationsShareOneLoad(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		e := w.engine()
		held := mustRead(t, e, weather)
		w.with(func(w *world) { w.broken["terms"] = errors.New("storage is away") })
		for range 200 {
			e.Invalidate(weather)
			synctest.Wait()
		}
		looks := w.storageCalls()["terms"]
		time.Sleep(10 * time.Minute)
		if n := w.storageCalls()["terms"] - looks; n < 5 || n > 25 {
			t.Errorf("storage was asked %d times in ten minutes, want what one that waits up to a minute asks", n)
		}
		w.with(func(w *world) { clear(w.broken) })
		time.Sleep(time.Minute)
		if s := e.peek(weather); s == nil || s.held.Load() == nil || s.held.Load().ID() != held.ID() {
			t.Error("the token was not loaded once storage answered")
		}
	})
}

// The token of a name that nobody reads would be handed out to the next reader.
func TestFailedWriteIsLookedIntoThoughNobodyReads(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.idle = time.Minute
		e := w.engine()
		mustRead(t, e, weather)
		time.Sleep(46 * time.Minute) // it is refreshed once
		w.wantFetches(2)
		due := e.peek(weather).held.Load().RefreshAt
		time.Sleep(time.Until(due) - 5*time.Second)
		timeout := errors.New("storage has timed out")
		if err := e.Change(t.Context(), weather, w.lateWrite(map[Name]string{weather: "B"}, timeout)); !errors.Is(err, timeout) {
			t.Fatalf("got %v, want the write's error", err)
		}
		time.Sleep(LateCommit + time.Second)
		w.wantFetches(2)
		if got := mustRead(t, e, weather); got.Shape != "B" {
			t.Errorf("got a token of shape %s after the write has come through", got.Shape)
		}
	})
}

// hangingSaves is storage whose saves take storage's whole time, and then fail.
type hangingSaves struct{ *world }

func (s hangingSaves) Save(ctx context.Context, name Name, t *Token) error {
	if err := s.world.Save(ctx, name, t); err == nil {
		return nil
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
	}
	return context.DeadlineExceeded
}

// Saves that hang take no token out of service, neither of many servers nor of many roles of one, whose
// write lock they share; and when storage answers again every token gets there.
func TestSavesThatHangTakeNoTokenOutOfService(t *testing.T) {
	const names = 200
	for where, name := range map[string]func(int) Name{
		"many servers":           func(i int) Name { return Name{Server: fmt.Sprint("server-", i)} },
		"many roles of a server": func(i int) Name { return Name{Server: "weather", Role: fmt.Sprint("role-", i)} },
	} {
		t.Run(where, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.lifetime = 2 * time.Minute
				for i := range names {
					w.shapes[name(i)] = "A"
				}
				e := New(Options{Store: hangingSaves{w}, Passive: w.isPassive, Log: hclog.NewNullLogger()})
				t.Cleanup(e.Close)
				for i := range names {
					mustRead(t, e, name(i))
				}
				w.with(func(w *world) { w.broken["save"] = errors.New("storage is away") })
				for range 600 {
					time.Sleep(time.Second)
					before := time.Now()
					for i := range names {
						mustRead(t, e, name(i))
					}
					if waited := time.Since(before); waited != 0 {
						t.Fatalf("readers waited %s", waited)
					}
				}
				// One of each name before, one of each until the first has failed, and then one in 11 s.
				if saves, most := w.storageCalls()["save"], 2*names+600/11; saves > most {
					t.Errorf("%d saves; want %d at most", saves, most)
				}

				w.with(func(w *world) { delete(w.broken, "save") })
				time.Sleep(2 * time.Minute)
				for i := range names {
					if held := mustRead(t, e, name(i)); w.stored(name(i)).AccessToken != held.AccessToken {
						t.Errorf("%s has not been stored", name(i))
					}
				}
			})
		})
	}
}
