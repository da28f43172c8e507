package tokens

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// notes is an observer that records its calls.
type notes struct {
	mu     sync.Mutex // guards the fields below
	took   []time.Duration
	failed int
	shared int
	late   []time.Duration
}

func (n *notes) Fetched(took time.Duration, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.took = append(n.took, took)
	if err != nil {
		n.failed++
	}
}

func (n *notes) Shared() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shared++
}

func (n *notes) Refreshed(late time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.late = append(n.late, late)
}

// observed makes an engine with an observer.
func observed(t *testing.T) (*world, *Engine, *notes) {
	w, n := newWorld(t), &notes{}
	e := w.engine()
	e.observer = n
	return w, e, n
}

// check fails the test unless holds returns true for the recorded calls.
func (n *notes) check(t *testing.T, when string, holds func() bool) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !holds() {
		t.Errorf("%s: requests took %s, %d failed, %d callers shared one, refreshes were late by %s", when, n.took, n.failed, n.shared, n.late)
	}
}

func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, e, n := observed(t)
		parallel(5, func(int) { wantRead(t, e, weather) })
		n.check(t, "five cold readers", func() bool {
			return len(n.took) == 1 && n.took[0] == w.latency && n.shared == 4 && len(n.late) == 0
		})

		time.Sleep(time.Until(mustRead(t, e, weather).RefreshAt) + time.Second)
		n.check(t, "a refresh in time", func() bool {
			return len(n.took) == 2 && len(n.late) == 1 && n.late[0] == w.latency
		})

		w.with(func(w *world) { w.refuse = &grant.UnavailableError{Reason: "away"} })
		due := mustRead(t, e, weather).RefreshAt
		time.Sleep(time.Until(due) + 5*time.Minute)
		w.with(func(w *world) { w.refuse = nil })
		for mustRead(t, e, weather).RefreshAt.Equal(due) {
			time.Sleep(time.Second)
		}
		n.check(t, "a refresh after an outage of five minutes", func() bool {
			return len(n.late) == 2 && n.late[1] >= 5*time.Minute && n.late[1] <= 7*time.Minute && n.failed > 0
		})
	})
}

// If a caller starts a refresh before its turn in line, the refresh still counts as late.
func TestObserverIsCalledForARefreshThatACallerTakesOutOfLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, e, n := observed(t)
		first := mustRead(t, e, weather)
		for range hostBackground {
			e.lines.enter(w.hosts[weather], &turn{})
		}
		time.Sleep(time.Until(first.Expires))
		if e.peek(weather).turn.Load() == nil {
			t.Fatal("the refresh is not in line")
		}
		wantOther(t, e, weather, first.ID())
		n.check(t, "a refresh taken out of line", func() bool {
			return len(n.late) == 1 && n.late[0] == first.Expires.Sub(first.RefreshAt)+w.latency
		})
	})
}

// If a token without readers expires, the delay of its refresh has no meaning.
func TestObserverIsNotCalledForIdleTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, e, n := observed(t)
		w.lifetime = 20 * time.Minute
		mustRead(t, e, weather)
		time.Sleep(48 * time.Hour)
		wantState(t, e, weather, StateIdle)
		n.mu.Lock()
		n.late = nil // forgets the refreshes of the first day
		n.mu.Unlock()
		due := mustRead(t, e, weather).RefreshAt
		n.check(t, "after an idle day", func() bool { return len(n.late) == 0 })

		w.with(func(w *world) { w.refuse = &grant.UnavailableError{Reason: "away"} })
		time.Sleep(time.Until(due) + 10*time.Hour)
		w.with(func(w *world) { w.refuse = nil })
		due = mustRead(t, e, weather).RefreshAt
		n.check(t, "after an outage whose end no caller saw", func() bool { return len(n.late) == 0 })

		time.Sleep(time.Until(due) + time.Second)
		n.check(t, "the refresh after that", func() bool { return len(n.late) == 1 && n.late[0] == w.latency })
	})
}

// An early refresh for a broker has no due time, so it cannot be late.
func TestObserverIsNotCalledForRefreshesThatWereNotDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, e, n := observed(t)
		first := mustRead(t, e, weather)
		time.Sleep(time.Minute)
		w.with(func(w *world) { w.refuse = &grant.UnavailableError{Status: 503} })
		if _, _, err := e.Refresh(t.Context(), weather, first.ID()); err == nil {
			t.Fatal("the refresh succeeded")
		}
		w.with(func(w *world) { w.refuse = nil })
		time.Sleep(time.Minute)
		wantOther(t, e, weather, first.ID())
		n.check(t, "after an early refresh", func() bool { return len(n.late) == 0 })
	})
}
