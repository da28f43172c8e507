package tokens

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func (w *world) wantFetches(want int) {
	w.t.Helper()
	if got := w.fetches(); got != want {
		w.t.Fatalf("the authorization server saw %d requests, want %d", got, want)
	}
}

// wantCalls checks how often a method of storage was called.
func (w *world) wantCalls(method string, want int) {
	w.t.Helper()
	if got := w.storageCalls()[method]; got != want {
		w.t.Errorf("storage was asked for %s %d times, want %d", method, got, want)
	}
}

// wantNoCallsSince checks that storage was not called since the calls were counted.
func (w *world) wantNoCallsSince(before map[string]int) {
	w.t.Helper()
	if after := w.storageCalls(); !maps.Equal(after, before) {
		w.t.Errorf("storage calls went from %v to %v", before, after)
	}
}

// wantStored checks the token in storage; empty is none.
func (w *world) wantStored(name Name, token string) {
	w.t.Helper()
	if got := w.stored(name).AccessToken; got != token {
		w.t.Errorf("storage holds the token %q of %s, want %q", got, name, token)
	}
}

// wantRead reads a token that must be there and valid. It returns an empty one if it is not. Any goroutine may call it.
func wantRead(t testing.TB, e *Engine, name Name) Answer {
	t.Helper()
	answer, err := e.Read(t.Context(), name)
	switch {
	case err != nil:
		t.Errorf("reading %s: %v", name, err)
	case !answer.ValidAt(time.Now()):
		t.Errorf("reading %s: the token expired at %s", name, answer.Expires)
	default:
		return answer
	}
	return Answer{Token: &Token{}}
}

// mustRead is wantRead on the test's goroutine: without a valid token, the test ends.
func mustRead(t testing.TB, e *Engine, name Name) Answer {
	t.Helper()
	answer := wantRead(t, e, name)
	if answer.AccessToken == "" {
		t.FailNow()
	}
	return answer
}

// wantToken reads a token that must have this ID.
func wantToken(t testing.TB, e *Engine, name Name, id string) {
	t.Helper()
	if got := wantRead(t, e, name); got.ID() != id {
		t.Errorf("reading %s: got another token, %s", name, got.AccessToken)
	}
}

// wantOther reads a token that must not have this ID.
func wantOther(t testing.TB, e *Engine, name Name, id string) {
	t.Helper()
	if got := wantRead(t, e, name); got.ID() == id {
		t.Errorf("reading %s: got the same token, %s", name, got.AccessToken)
	}
}

// wantShape reads a token that must be of this shape.
func wantShape(t testing.TB, e *Engine, name Name, shape string) {
	t.Helper()
	wantAnswer(t, wantRead(t, e, name), shape)
}

func wantAnswer(t testing.TB, got Answer, shape string) {
	t.Helper()
	if got.Shape != shape || !strings.HasPrefix(got.AccessToken, shape) {
		t.Errorf("got the token %s of shape %s, want shape %s", got.AccessToken, got.Shape, shape)
	}
}

// wantError reads a token, which must fail with this error.
func wantError(t testing.TB, e *Engine, name Name, want error) {
	t.Helper()
	if _, err := e.Read(t.Context(), name); !errors.Is(err, want) {
		t.Errorf("reading %s: got %v, want %v", name, err, want)
	}
}

// wantState returns a name's status, which must have this state.
func wantState(t testing.TB, e *Engine, name Name, want State) Status {
	t.Helper()
	status, err := e.Status(t.Context(), name)
	if err != nil || status.State != want {
		t.Errorf("the status of %s is %+v, %v; want the state %s", name, status, err, want)
	}
	return status
}

// wantRefresh asks for a token in place of the one rejected, and returns the ID of the token that it gets.
func wantRefresh(t testing.TB, e *Engine, rejected string, want bool) (id string) {
	t.Helper()
	token, refreshed, err := e.Refresh(t.Context(), weather, rejected)
	if err != nil || refreshed != want {
		t.Errorf("got refreshed=%t, %v; want %t", refreshed, err, want)
	}
	return token.ID()
}

// mustVerify verifies terms that must be granted.
func mustVerify(t testing.TB, e *Engine, name Name, terms *Terms) *grant.Token {
	t.Helper()
	token, err := e.Verify(t.Context(), name, terms)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// mustChange makes a change that must succeed.
func mustChange(t testing.TB, e *Engine, name Name, change Change) {
	t.Helper()
	if err := e.Change(t.Context(), name, change); err != nil {
		t.Fatal(err)
	}
}

// failChange makes a change whose write fails.
func failChange(t testing.TB, e *Engine, change Change) {
	t.Helper()
	if err := e.Change(t.Context(), weather, change); !errors.Is(err, errStorage) {
		t.Fatalf("got %v, want the write's error", err)
	}
}

// changing makes a change in the background, which must succeed. The result waits for it.
func changing(t testing.TB, e *Engine, name Name, change Change) (wait func()) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- e.Change(t.Context(), name, change) }()
	synctest.Wait()
	return func() {
		t.Helper()
		if err := <-ended; err != nil {
			t.Errorf("writing %s: %v", name, err)
		}
	}
}

// reading reads a token in the background, and returns how that ends.
func reading(t testing.TB, e *Engine, name Name) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := e.Read(t.Context(), name)
		result <- err
	}()
	return result
}

// wantReadLater is wantRead in the background.
func wantReadLater(t testing.TB, e *Engine, name Name) <-chan Answer {
	t.Helper()
	answer := make(chan Answer, 1)
	go func() { answer <- wantRead(t, e, name) }()
	return answer
}

// mustFail reads a token that cannot be had, and gives the failure.
func mustFail(t testing.TB, e *Engine, name Name) *FailedError {
	t.Helper()
	_, err := e.Read(t.Context(), name)
	failed, ok := errors.AsType[*FailedError](err)
	if !ok {
		t.Fatalf("reading %s: got error %v, want a FailedError", name, err)
	}
	return failed
}

// waitUntil waits until a condition holds, for a day at most.
func waitUntil(t testing.TB, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(24 * time.Hour); !holds(); time.Sleep(time.Second / 4) {
		if time.Now().After(end) {
			t.Fatal("the condition never held")
		}
	}
}

// parallel runs f n times at once and waits.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
