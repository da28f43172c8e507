package tokens

import (
	"context"
	"fmt"
	"testing"
	"time"
)

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

// If the terms of new credentials cannot be read at first, the stored token is still replaced.
func TestNewCredentialsOutlastTermsThatCannotBeRead(t *testing.T) {
	stories(t, map[string]bool{
		"new credentials": true, "a write of something else": false,
	}, func(t *testing.T, w *world, e *Engine, refresh bool) {
		first := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		change := w.reshape(weather, "A")
		change.Refresh = refresh
		w.broken["terms"] = errStorage
		mustChange(t, e, weather, change)
		w.with(func(w *world) { clear(w.broken) })
		wantToken(t, e, weather, first.ID())
		time.Sleep(time.Second)
		if got := mustRead(t, e, weather); (got.ID() != first.ID()) != refresh {
			t.Errorf("refreshed %t, want %t", got.ID() != first.ID(), refresh)
		}
	})
}
