package tokens

import (
	"cmp"
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

var (
	weather    = Name{Server: "weather"}
	reader     = Name{"weather", "reader"}
	errStorage = errors.New("storage is gone")
)

// world is the environment of an engine: storage, and an authorization server with preset answers.
type world struct {
	t testing.TB

	mu       sync.Mutex // guards the fields below
	shapes   map[Name]string
	saved    map[Name]Token
	calls    map[string]int   // storage calls by method
	broken   map[string]error // by method, or by method and name
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
	attempt  context.Context // of the latest request
}

func newWorld(t testing.TB) *world {
	t.Helper()
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
func (w *world) engine() *Engine { return w.engineOn(w) }

// engineOn starts an engine on other storage.
func (w *world) engineOn(store Store) *Engine {
	e := New(Options{Store: store, Passive: w.isPassive, Log: hclog.NewNullLogger()})
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

// call counts a storage call and returns its error. w.mu is held.
func (w *world) call(ctx context.Context, method string, name Name) error {
	w.calls[method]++
	return cmp.Or(ctx.Err(), w.broken[method], w.broken[method+" "+name.String()])
}

func (w *world) Terms(ctx context.Context, name Name) (*Terms, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(ctx, "terms", name); err != nil {
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
	w.begun, w.attempt = append(w.begun, begun), ctx
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
	if err := w.call(ctx, "load", name); err != nil {
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
	if err := w.call(ctx, "save", name); err != nil {
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
	if err := w.call(ctx, "delete", name); err != nil {
		return err
	}
	delete(w.saved, name)
	return nil
}

func (w *world) Names(ctx context.Context) ([]Name, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.call(ctx, "names", Name{}); err != nil {
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

// stored returns a name's token in storage.
func (w *world) stored(name Name) Token {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.saved[name]
}

// reshape is a write that gives a name another shape.
func (w *world) reshape(name Name, shape string) Change {
	return Change{Terms: w.Terms, Write: func(context.Context) error {
		w.with(func(w *world) { w.shapes[name] = shape })
		return nil
	}}
}

// verified verifies terms of a shape and returns the write of them.
func (w *world) verified(e *Engine, name Name, shape string) Change {
	w.t.Helper()
	change := w.change(name, shape)
	terms, _ := change.Terms(w.t.Context(), name)
	change.Token = mustVerify(w.t, e, name, terms)
	return change
}

// change is reshape if the name's own terms are known.
func (w *world) change(name Name, shape string) Change {
	w.mu.Lock()
	terms := w.terms(name, shape)
	w.mu.Unlock()
	change := w.reshape(name, shape)
	change.Terms = w.written(name, terms)
	return change
}

// rotation is a verified write of weather's config that changes the credentials alone.
func (w *world) rotation(e *Engine) Change {
	w.t.Helper()
	change := w.verified(e, weather, "A")
	change.Refresh = true
	return change
}

// effective is a write that takes effect although it fails.
func (w *world) effective(shapes map[Name]string) Change {
	return Change{Write: func(context.Context) error {
		w.with(func(w *world) { maps.Copy(w.shapes, shapes) })
		return errStorage
	}}
}

// lateWrite is a write that fails and takes effect ten seconds later.
func (w *world) lateWrite(shapes map[Name]string) Change {
	return Change{Write: func(context.Context) error {
		time.AfterFunc(10*time.Second, func() { w.with(func(w *world) { maps.Copy(w.shapes, shapes) }) })
		return errStorage
	}}
}

// written returns the terms after a write of a name: the given ones for the name, the stored ones for others.
func (w *world) written(name Name, terms *Terms) func(context.Context, Name) (*Terms, error) {
	return func(ctx context.Context, n Name) (*Terms, error) {
		if n == name {
			return terms, nil
		}
		return w.Terms(ctx, n)
	}
}

// servers configures n servers whose authorization servers are at one host.
func (w *world) servers(n int, host string) []Name {
	names := make([]Name, n)
	for i := range names {
		names[i] = Name{Server: fmt.Sprint("s", i)}
		w.shapes[names[i]], w.hosts[names[i]] = "A", host
	}
	return names
}
