package tokens

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

var weather = Name{Server: "weather"}

// world is what is around an engine: storage, and an authorization server that
// answers as it is told.
type world struct {
	t *testing.T

	mu       sync.Mutex // guards the fields below
	shapes   map[Name]string
	saved    map[Name]Token
	calls    map[string]int // storage calls by method
	broken   map[string]error
	lifetime time.Duration
	latency  time.Duration
	refuse   error
	refusals map[string]error // by shape
	sameID   bool             // the server repeats its token
	fetched  int
	flying   int
	mostFly  int
	idle     time.Duration
	defaults time.Duration
	maxTTL   time.Duration
	hosts    map[Name]string
	clients  map[Name]string // a name's own if it has none here
	hanging  map[string]bool
	passive  bool
	begun    []time.Time
}

func newWorld(t *testing.T) *world {
	return &world{
		t:        t,
		shapes:   map[Name]string{weather: "A"},
		saved:    map[Name]Token{},
		calls:    map[string]int{},
		broken:   map[string]error{},
		lifetime: time.Hour,
		latency:  100 * time.Millisecond,
		idle:     24 * time.Hour,
		defaults: 5 * time.Minute,
		hosts:    map[Name]string{},
		clients:  map[Name]string{},
		hanging:  map[string]bool{},
	}
}

// engine starts an engine in the world; the test's end closes it.
func (w *world) engine() *Engine {
	e := New(Options{Store: w, Passive: w.isPassive, Log: hclog.NewNullLogger()})
	w.t.Cleanup(e.Close)
	return e
}

func (w *world) isPassive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passive
}

// with changes the world.
func (w *world) with(change func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// call counts a storage call and tells how it goes. w.mu is held.
func (w *world) call(ctx context.Context, method string) error {
	w.calls[method]++
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.broken[method]
}

func (w *world) Terms(ctx context.Context, name Name) (*Terms, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(ctx, "terms"); err != nil {
		return nil, err
	}
	shape, ok := w.shapes[name]
	if !ok {
		return nil, ErrNotConfigured
	}
	return w.terms(name, shape), nil
}

// terms makes the terms of a name. w.mu is held.
func (w *world) terms(name Name, shape string) *Terms {
	host, client := w.hosts[name], w.clients[name]
	if client == "" {
		client = name.String()
	}
	return &Terms{
		Shape: shape, Host: host, Client: client, DefaultTTL: w.defaults, MaxTTL: w.maxTTL, IdleTimeout: w.idle,
		Fetch: func(ctx context.Context) (*grant.Token, error) { return w.fetch(ctx, shape, host) },
	}
}

// fetch is the authorization server, and the client's timeout of 10 s.
func (w *world) fetch(ctx context.Context, shape, host string) (*grant.Token, error) {
	begun := time.Now()
	w.mu.Lock()
	w.fetched++
	w.begun = append(w.begun, begun)
	w.flying++
	w.mostFly = max(w.mostFly, w.flying)
	n, latency, hangs := w.fetched, w.latency, w.hanging[host]
	w.mu.Unlock()
	defer w.with(func(w *world) { w.flying-- })
	if hangs {
		latency = time.Hour
	}
	if latency > 0 { // a timer that is due at once is none for a bubble: see slot.schedule
		timeout := time.NewTimer(10 * time.Second)
		defer timeout.Stop()
		answer := time.NewTimer(latency)
		defer answer.Stop()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout.C:
			return nil, &grant.UnavailableError{Reason: "timed out after 10s"}
		case <-answer.C:
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return nil, w.refuse
	}
	if err := w.refusals[shape]; err != nil {
		return nil, err
	}
	if w.sameID {
		n = 0
	}
	return &grant.Token{AccessToken: fmt.Sprintf("%s-%s-%d", shape, host, n), RequestedAt: begun, ExpiresIn: w.lifetime}, nil
}

func (w *world) Load(ctx context.Context, name Name) (*Token, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(ctx, "load"); err != nil {
		return nil, err
	}
	if t, ok := w.saved[name]; ok {
		return &t, nil
	}
	return nil, nil
}

func (w *world) Save(ctx context.Context, name Name, t *Token) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(ctx, "save"); err != nil {
		return err
	}
	// As storage does: wall-clock times, and nothing that is derived.
	w.saved[name] = Token{
		AccessToken: t.AccessToken, Scope: t.Scope, Shape: t.Shape, Repeats: t.Repeats,
		Issued: t.Issued.Round(0), Expires: t.Expires.Round(0), RefreshAt: t.RefreshAt.Round(0),
	}
	return nil
}

func (w *world) Delete(ctx context.Context, name Name) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(ctx, "delete"); err != nil {
		return err
	}
	delete(w.saved, name)
	return nil
}

func (w *world) Names(ctx context.Context) ([]Name, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(ctx, "names"); err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(w.saved)), nil
}

// fetches is the number of requests that the authorization server saw.
func (w *world) fetches() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fetched
}

func (w *world) storageCalls() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.calls)
}

// stored is what storage holds for a name.
func (w *world) stored(name Name) Token {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.saved[name]
}

// reshape is a write that gives a name another shape.
func (w *world) reshape(name Name, shape string) Change {
	return Change{Write: func(context.Context) error {
		w.with(func(w *world) { w.shapes[name] = shape })
		return nil
	}}
}

// rotation is a write of weather's config that changes the credentials alone, and was verified.
func (w *world) rotation(verified *grant.Token) Change {
	change := w.reshape(weather, "A")
	change.Terms, change.Token, change.Refresh = w.written(weather, w.terms(weather, "A")), verified, true
	return change
}

// written are the terms after a write of a name: its own are known, those of others in
// storage.
func (w *world) written(name Name, terms *Terms) func(context.Context, Name) (*Terms, error) {
	return func(ctx context.Context, n Name) (*Terms, error) {
		if n == name {
			return terms, nil
		}
		return w.Terms(ctx, n)
	}
}

func (w *world) wantFetches(want int) {
	w.t.Helper()
	if got := w.fetches(); got != want {
		w.t.Fatalf("the authorization server saw %d requests, want %d", got, want)
	}
}

// mustRead reads a token that must be there and valid.
func mustRead(t *testing.T, e *Engine, name Name) Answer {
	t.Helper()
	answer, err := e.Read(t.Context(), name)
	if err != nil {
		t.Fatalf("reading %s: %v", name, err)
	}
	if !answer.ValidAt(time.Now()) {
		t.Fatalf("reading %s: the token expired at %s", name, answer.Expires)
	}
	return answer
}

// mustVerify verifies terms that must be granted.
func mustVerify(t *testing.T, e *Engine, name Name, terms *Terms) *grant.Token {
	t.Helper()
	token, err := e.Verify(t.Context(), name, terms)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// mustChange makes a change that must succeed.
func mustChange(t *testing.T, e *Engine, name Name, change Change) {
	t.Helper()
	if err := e.Change(t.Context(), name, change); err != nil {
		t.Fatal(err)
	}
}

// reading reads a token in the background, and tells how that ended.
func reading(t *testing.T, e *Engine, name Name) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := e.Read(t.Context(), name)
		result <- err
	}()
	return result
}

// mustReadLater is mustRead in the background.
func mustReadLater(t *testing.T, e *Engine, name Name) <-chan Answer {
	answer := make(chan Answer, 1)
	go func() { answer <- mustRead(t, e, name) }()
	return answer
}

// mustFail reads a token that cannot be had, and gives the failure.
func mustFail(t *testing.T, e *Engine, name Name) *FailedError {
	t.Helper()
	_, err := e.Read(t.Context(), name)
	failed, ok := errors.AsType[*FailedError](err)
	if !ok {
		t.Fatalf("reading %s: got error %v, want a FailedError", name, err)
	}
	return failed
}

// parallel runs f n times at once and waits.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
