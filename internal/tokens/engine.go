// Package tokens keeps access tokens: it obtains one per name when it is first
// asked for, refreshes it ahead of its expiry, remembers failures, and hands out
// what it holds without a lock shared with other names, without storage and
// without a call to anything else.
//
// It knows names, terms and tokens; where they are stored and how a token is
// fetched is behind Store and Terms.Fetch.
//
// next decides what happens next for a name; slot.apply is the one place where an
// outcome changes what readers get; Retry repeats what storage owes.
//
// Locks, in the order in which they may be taken: a server's write lock
// (Engine.lock), a slot's mu, then Engine.mu, a client's mu or retries.mu. Only the
// write lock is held across storage calls; none is held across a fetch.
package tokens

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

const (
	// cooldown is the age below which a token is not replaced on request.
	cooldown = 10 * time.Second
	// closeTimeout is how long Close waits. Vault's SDK holds a process-wide lock
	// while a backend is cleaned up, so 100 ms is all there is.
	closeTimeout = 50 * time.Millisecond
	// loaders is how many stored tokens are loaded at a time at the start.
	loaders = 8
)

// Options is what an Engine is made of.
type Options struct {
	// Store is where terms and tokens are.
	Store Store
	// Passive reports whether this node may not fetch (a performance standby, a DR
	// secondary): it then serves what it holds and returns ErrReadOnly for the
	// rest. It is asked often and must be cheap.
	Passive func() bool
	// Log gets outcomes of fetches by name; never a token or a secret.
	Log hclog.Logger
	// Observer is told of what the engine does; nil for none.
	Observer Observer
}

// Engine holds the tokens of one mount.
type Engine struct {
	store    Store
	passive  func() bool
	log      hclog.Logger
	observer Observer
	gates    *gates
	clients  *shared[*client]
	retries  *retries

	// ctx ends with the engine; every fetch and background storage call is under it.
	ctx    context.Context
	cancel context.CancelFunc
	epoch  time.Time // lastRead of each slot counts from here

	// locks are the write locks, one per server: a config and its roles share one, because
	// a write to the config changes the roles' terms. Writing a config, a role or a token
	// to storage needs it.
	locks *shared[*semaphore.Weighted]

	unsavable atomic.Bool // whether storage hung when the last token was to be stored

	slots sync.Map // Name -> *slot; read without a lock, written under mu

	mu      sync.Mutex                    // guards the fields below and writes to slots
	servers map[string]map[*slot]struct{} // by server: its own slot and its roles'
	closed  bool
	work    sync.WaitGroup // grows only under mu while closed is false
}

// New makes an engine. Nothing runs until it is asked for something; Close ends it.
func New(o Options) *Engine {
	if o.Observer == nil {
		o.Observer = unobserved{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Engine{
		store:    o.Store,
		passive:  o.Passive,
		log:      o.Log,
		observer: o.Observer,
		gates:    newGates(),
		clients:  newClients(),
		retries:  newRetries(),
		ctx:      ctx,
		cancel:   cancel,
		epoch:    time.Now(),
		locks:    newShared(func() *semaphore.Weighted { return semaphore.NewWeighted(1) }, nil),
		servers:  map[string]map[*slot]struct{}{},
	}
}

// Answer is a token to hand out.
type Answer struct {
	*Token
	// TTL is the number of whole seconds until reading again is worth while.
	TTL int64
}

// Read returns the token of a name. With a valid token held it costs nothing beyond
// this call. Without one it waits for the fetch under way, or starts it, for 5 s at most
// and until ctx ends: then it returns a *WaitError, and the fetch goes on. Within a backoff
// window it returns the remembered *FailedError at once.
func (e *Engine) Read(ctx context.Context, name Name) (Answer, error) {
	if s := e.peek(name); s != nil {
		if answer, ok := s.read(time.Now()); ok {
			return answer, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, waitMost)
	defer cancel()
	for {
		s := e.slot(name)
		t, f, err := s.join()
		if f != nil {
			err = f.wait(ctx)
			t = s.held.Load()
		}
		now := time.Now()
		switch {
		case t.ValidAt(now) && (err == nil || f != nil): // what is held serves, whatever became of the fetch
			return s.answer(t, now), nil
		case errors.Is(err, ErrNotConfigured) && e.passive():
			return Answer{}, ErrReadOnly // this node may not have heard of the config yet
		case err != nil:
			return Answer{}, err
		}
		if err := gaveUp(ctx, name); err != nil {
			return Answer{}, err
		}
	}
}

// Refresh replaces the token of a name, if it is still the one whose ID is
// rejected, or whichever it is when rejected is empty. It returns the token then
// held, and whether that is a new one. A token younger than the cooldown is left.
// However many callers there are, one fetch serves them. It waits as Read does.
func (e *Engine) Refresh(ctx context.Context, name Name, rejected string) (t *Token, refreshed bool, err error) {
	if e.passive() {
		return nil, false, ErrReadOnly
	}
	ctx, cancel := context.WithTimeout(ctx, waitMost)
	defer cancel()
	for {
		t, f, err := e.slot(name).replace(rejected)
		switch {
		case err != nil:
			return nil, false, err
		case t != nil:
			return t, false, nil
		case f != nil:
			if err := f.wait(ctx); err != nil {
				return nil, false, err
			}
			if f.fetched && f.token.ValidAt(time.Now()) {
				return f.token, f.token.ID() != f.replaces, nil
			}
		}
		if err := gaveUp(ctx, name); err != nil {
			return nil, false, err
		}
	}
}

// Verify fetches a token for a name on terms that are not stored yet, within the bounds on
// fetches, and keeps nothing. It asks although the client has failed, since the terms may be
// what ends that; but not before a time that the authorization server named itself: until
// then it returns a *FailedError.
func (e *Engine) Verify(ctx context.Context, name Name, terms *Terms) (*grant.Token, error) {
	if e.passive() {
		return nil, ErrReadOnly
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	token, err := e.verify(ctx, name, terms)
	if err != nil && e.ctx.Err() != nil {
		return nil, ErrClosed
	}
	return token, err
}

func (e *Engine) verify(ctx context.Context, name Name, terms *Terms) (*grant.Token, error) {
	c, release := e.clients.use(terms.Client)
	defer release()
	if f := c.limit(time.Now()); f != nil {
		return nil, f.err(name, false)
	}
	background, promote := context.WithCancel(ctx)
	promote() // a caller waits from the start
	leave, waited, err := e.gates.enter(ctx, background, terms.Host)
	if err != nil {
		return nil, err
	}
	defer leave()
	if f := c.limit(time.Now()); waited && f != nil {
		return nil, f.err(name, false)
	}
	p := &permit{client: c, begun: time.Now()}
	token, err := e.fetch(ctx, terms)
	switch {
	case err == nil:
		if p.succeeded() {
			e.wake(c)
		}
	case retryAfter(err) > 0:
		return nil, p.failed(terms.Host, err, time.Now()).err(name, false)
	}
	return token, err
}

// wake starts what is due for the names that wait for a client, which works again.
func (e *Engine) wake(c *client) {
	now := time.Now()
	e.slots.Range(func(_, v any) bool {
		s := v.(*slot)
		if f := s.failed.Load(); f != nil && f.client == c {
			s.mu.Lock()
			s.advance(now)
			s.mu.Unlock()
		}
		return true
	})
}

// What the engine retries, as the keys of its tasks.
type (
	retryKey struct {
		what retryWhat
		name Name
	}
	retryWhat int
)

const (
	listTokens  retryWhat = iota // of the mount
	loadToken                    // of a name
	saveToken                    // of a name
	rereadTerms                  // of a server, after a write that failed
)

// LoadAll brings the stored tokens into memory and sets their timers, in the
// background. A name that is read meanwhile is loaded at once.
func (e *Engine) LoadAll() {
	e.Retry(retryKey{what: listTokens}, time.Now(), "stored tokens could not be listed", func(ctx context.Context) error {
		names, err := e.store.Names(ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			e.slot(name) // so that a change of credentials while it is loaded does not pass it by
		}
		e.spawn(func() { e.loadEach(names) })
		return nil
	})
}

// loadEach loads names, a few at a time. An error may be permanent for one name, so that is
// retried by itself.
func (e *Engine) loadEach(names []Name) {
	var group errgroup.Group
	group.SetLimit(loaders)
	for _, name := range names {
		group.Go(func() error {
			if e.ctx.Err() == nil && e.load(e.ctx, name) != nil {
				e.retryLoad(name, time.Now().Add(storageRetry(1)))
			}
			return nil
		})
	}
	_ = group.Wait()
}

// retryLoad loads a name in the background.
func (e *Engine) retryLoad(name Name, at time.Time) {
	e.Retry(retryKey{loadToken, name}, at, "stored token could not be loaded", func(ctx context.Context) error {
		return e.load(ctx, name)
	})
}

// load brings the stored token of a name into memory, or deletes it if its config
// is gone.
func (e *Engine) load(ctx context.Context, name Name) error {
	err := e.slot(name).reread(ctx)
	if errors.Is(err, ErrNotConfigured) {
		return e.dropOrphan(ctx, name)
	}
	return err
}

// dropOrphan deletes a stored token whose config or role is gone: what a crash in
// the middle of a delete leaves, or a delete on another node.
func (e *Engine) dropOrphan(ctx context.Context, name Name) error {
	if e.passive() {
		return nil
	}
	return e.Locked(ctx, name.Server, func(ctx context.Context) error {
		if _, err := e.store.Terms(ctx, name); !errors.Is(err, ErrNotConfigured) {
			return err
		}
		return e.store.Delete(ctx, name)
	})
}

// Invalidate drops what is held for a name because its stored state was changed by
// another node: for a server without a role, what is held for all its roles too. What
// storage now has is loaded in the background.
func (e *Engine) Invalidate(name Name) {
	for _, s := range e.affected(name) {
		e.reload(s)
	}
}

// InvalidateToken is Invalidate where it was the name's own token that was changed.
func (e *Engine) InvalidateToken(name Name) {
	if s := e.peek(name); s != nil {
		e.reload(s)
	}
}

func (e *Engine) reload(s *slot) {
	if s.forget() {
		e.retryLoad(s.name, time.Now())
	}
}

// Close ends every fetch, timer and goroutine of the engine. It does not wait for
// those longer than Vault can wait.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.slots.Range(func(_, v any) bool {
		v.(*slot).stop()
		return true
	})
	done := make(chan struct{})
	go func() {
		e.work.Wait()
		close(done)
	}()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		e.log.Warn("work is still ending after the mount was closed")
	}
}

// Go runs f on a goroutine, with a context that ends when the engine is closed; Close
// waits for it. It is false when the engine is closed already.
func (e *Engine) Go(f func(context.Context)) bool { return e.spawn(func() { f(e.ctx) }) }

// spawn runs f on a goroutine that Close waits for; false when it is too late.
func (e *Engine) spawn(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.work.Go(f)
	return true
}

// peek returns the slot of a name, nil if there is none, without a lock.
func (e *Engine) peek(name Name) *slot {
	if s, ok := e.slots.Load(name); ok {
		return s.(*slot)
	}
	return nil
}

// slot returns the slot of a name, made if need be. A slot whose name turns out not
// to be configured removes itself.
func (e *Engine) slot(name Name) *slot {
	if s := e.peek(name); s != nil {
		return s
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.peek(name); s != nil {
		return s
	}
	s := &slot{engine: e, name: name}
	s.touch(time.Now())
	e.slots.Store(name, s)
	if e.servers[name.Server] == nil {
		e.servers[name.Server] = map[*slot]struct{}{}
	}
	e.servers[name.Server][s] = struct{}{}
	return s
}

// remove forgets a slot.
func (e *Engine) remove(s *slot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.peek(s.name) != s {
		return
	}
	e.slots.Delete(s.name)
	slots := e.servers[s.name.Server]
	if delete(slots, s); len(slots) == 0 {
		delete(e.servers, s.name.Server)
	}
}

// affected returns the slots that a change to name concerns: all of a server's if
// it is the server's config.
func (e *Engine) affected(name Name) []*slot {
	if name.Role != "" {
		if s := e.peek(name); s != nil {
			return []*slot{s}
		}
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.servers[name.Server]))
}

// lock takes the write lock of a server.
func (e *Engine) lock(ctx context.Context, server string) (unlock func(), err error) {
	l, release := e.locks.use(server)
	if err := l.Acquire(ctx, 1); err != nil {
		release()
		return nil, err
	}
	return func() { l.Release(1); release() }, nil
}

// Locked does f while no config, role or token of the server is written.
func (e *Engine) Locked(ctx context.Context, server string, f func(context.Context) error) error {
	unlock, err := e.lock(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	return f(ctx)
}

// resetClient forgets the failure of a client whose configuration was written.
func (e *Engine) resetClient(key string, now time.Time) {
	c, release := e.clients.use(key)
	defer release()
	c.reset(now)
}
