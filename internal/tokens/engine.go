// Package tokens keeps access tokens: it obtains one per name when it is first
// asked for, refreshes it ahead of its expiry, remembers failures, and hands out
// what it holds without a lock shared with other names, without storage and
// without a call to anybody.
//
// It knows names, terms and tokens; where they are stored and how a token is
// fetched is behind Store and Terms.Fetch.
//
// Locks, in the order in which they may be taken: a name's write lock
// (Engine.writes), a slot's mu, Engine.mu. Only the write lock is held across
// storage calls; none is held across a fetch.
package tokens

import (
	"context"
	"errors"
	"hash/maphash"
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
	// writeLocks is the number of write locks, to which servers are assigned by
	// hash. A fixed number needs no bookkeeping, whatever names are asked for.
	writeLocks = 256
)

// Options is what an Engine is made of.
type Options struct {
	// Store is where terms and tokens are.
	Store Store
	// Passive tells whether this node may not fetch (a performance standby, a DR
	// secondary): it then serves what it holds and returns ErrReadOnly for the
	// rest. It is asked often and must be cheap.
	Passive func() bool
	// Log gets outcomes of fetches by name; never a token or a secret.
	Log hclog.Logger
	// Observer is told of what the engine does; nil for nobody.
	Observer Observer
}

// Engine holds the tokens of one mount.
type Engine struct {
	store    Store
	passive  func() bool
	log      hclog.Logger
	observer Observer
	gates    *gates

	// ctx ends with the engine; every fetch and background storage call is under it.
	ctx    context.Context
	cancel context.CancelFunc
	epoch  time.Time // lastRead of each slot counts from here

	// writes are the names' write locks, by hash of the server: a config and its
	// roles share one, because a write to the config changes the roles' terms.
	// Writing a config, a role or a token to storage needs it.
	writes [writeLocks]*semaphore.Weighted
	seed   maphash.Seed

	unsavable atomic.Bool         // whether storage hung when the last token was to be stored
	saver     *semaphore.Weighted // of the name that tries to store its token again

	slots sync.Map // Name -> *slot; read without a lock, written under mu

	mu     sync.Mutex           // guards the fields below and writes to slots
	roles  map[string][]*slot   // by server: its own slot and its roles'
	doubts map[string]time.Time // slot.unsure of slots to come, by server
	closed bool
	work   sync.WaitGroup // grows only under mu while closed is false
}

// New makes an engine. Nothing runs until it is asked for something; Close ends it.
func New(o Options) *Engine {
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{
		store:    o.Store,
		passive:  o.Passive,
		log:      o.Log,
		observer: o.Observer,
		gates:    newGates(),
		ctx:      ctx,
		cancel:   cancel,
		epoch:    time.Now(),
		seed:     maphash.MakeSeed(),
		saver:    semaphore.NewWeighted(1),
		roles:    map[string][]*slot{},
		doubts:   map[string]time.Time{},
	}
	for i := range e.writes {
		e.writes[i] = semaphore.NewWeighted(1)
	}
	return e
}

// Answer is a token to hand out.
type Answer struct {
	*Token
	// TTL is the number of whole seconds until reading again is worth while.
	TTL int64
}

// Read gives the token of a name. With a valid token held it costs nothing beyond
// this call. Without one it waits for the fetch under way, or starts it, until ctx
// ends; within a backoff window it returns the remembered *FailedError at once.
func (e *Engine) Read(ctx context.Context, name Name) (Answer, error) {
	if s := e.peek(name); s != nil {
		if answer, ok := s.read(time.Now()); ok {
			return answer, nil
		}
	}
	for {
		s := e.slot(name)
		f, err := s.join()
		if err != nil {
			return Answer{}, err
		}
		if f != nil {
			if err := f.wait(ctx); err != nil {
				return Answer{}, err
			}
		}
		if answer, ok := s.read(time.Now()); ok {
			return answer, nil
		}
		if err := gaveUp(ctx, name); err != nil {
			return Answer{}, err
		}
	}
}

// Refresh replaces the token of a name, if it is still the one whose ID is
// rejected, or whichever it is when rejected is empty. It returns the token then
// held, and whether that is a new one. A token younger than the cooldown is left.
// However many callers there are, one fetch serves them.
func (e *Engine) Refresh(ctx context.Context, name Name, rejected string) (t *Token, refreshed bool, err error) {
	for {
		s := e.slot(name)
		f, held, err := s.replace(rejected)
		if err != nil {
			return nil, false, err
		}
		if f == nil {
			if held != nil {
				return held, false, nil
			}
			continue
		}
		if err := f.wait(ctx); err != nil {
			return nil, false, err
		}
		if f.fetched && f.token.ValidAt(time.Now()) {
			return f.token, f.token.ID() != f.replaces, nil
		}
		if err := gaveUp(ctx, name); err != nil {
			return nil, false, err
		}
	}
}

// Verify fetches a token on terms that are not stored yet, within the bounds on
// fetches, and keeps nothing.
func (e *Engine) Verify(ctx context.Context, terms *Terms) (token *grant.Token, err error) {
	if e.passive() {
		return nil, ErrReadOnly
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	hurried, hurry := context.WithCancel(ctx)
	hurry() // a caller waits from the start
	leave, _, err := e.gates.enter(ctx, hurried, terms.Host)
	if err == nil {
		defer leave()
		token, err = e.fetch(ctx, terms)
	}
	if err != nil && e.ctx.Err() != nil {
		return nil, ErrClosed
	}
	return token, err
}

// LoadAll brings the stored tokens into memory and sets their timers, in the
// background. A name that is read meanwhile is loaded at once.
func (e *Engine) LoadAll() {
	e.spawn(func() {
		var names []Name
		var err error
		ok := e.insist("stored tokens could not be listed", func() error {
			names, err = e.store.Names(e.ctx)
			return err
		})
		if !ok {
			return
		}
		for _, name := range names {
			e.slot(name) // so that a change of credentials while it is loaded does not pass it by
		}
		// Those that fail come again after all others: what is wrong with one may last.
		e.insist("stored tokens could not be loaded", func() error {
			names, err = e.loadEach(names)
			return err
		})
	})
}

// loadEach loads names, a few at a time. It gives those that it could not load, and an error of
// one of them.
func (e *Engine) loadEach(names []Name) (failed []Name, err error) {
	var mu sync.Mutex // guards the results
	var group errgroup.Group
	group.SetLimit(loaders)
	for _, name := range names {
		group.Go(func() error {
			if loadErr := e.load(name); loadErr != nil {
				mu.Lock()
				defer mu.Unlock()
				failed, err = append(failed, name), loadErr
			}
			return nil
		})
	}
	_ = group.Wait()
	return failed, err
}

// load brings the stored token of a name into memory, or deletes it where its config
// is gone.
func (e *Engine) load(name Name) error {
	f, err := e.slot(name).load()
	if f != nil {
		err = f.wait(e.ctx)
	}
	if _, failed := errors.AsType[*FailedError](err); failed || errors.Is(err, ErrReadOnly) {
		return nil // a reader asked for more than storage has
	}
	if errors.Is(err, ErrNotConfigured) {
		return e.dropOrphan(name)
	}
	return err
}

// insist does f until it succeeds; false when the engine is closed first.
func (e *Engine) insist(complaint string, f func() error) bool {
	for n := 1; ; n++ {
		err := f()
		if err == nil || e.ctx.Err() != nil {
			return err == nil
		}
		wait := storageRetry(n)
		e.log.Warn(complaint, "error", err, "next_attempt_in", wait.Round(time.Millisecond).String())
		select {
		case <-e.ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// dropOrphan deletes a stored token whose config or role is gone: what a crash in
// the middle of a delete leaves, or a delete on another node.
func (e *Engine) dropOrphan(name Name) error {
	if e.passive() {
		return nil
	}
	unlock, err := e.lock(e.ctx, name.Server)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := e.store.Terms(e.ctx, name); !errors.Is(err, ErrNotConfigured) {
		return err
	}
	return e.store.Delete(e.ctx, name)
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
		e.spawn(func() {
			e.insist("stored token could not be loaded", func() error { return e.load(s.name) })
		})
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

// peek gives the slot of a name if there is one, without a lock.
func (e *Engine) peek(name Name) *slot {
	if s, ok := e.slots.Load(name); ok {
		return s.(*slot)
	}
	return nil
}

// slot gives the slot of a name, made if need be. A slot whose name turns out not
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
	s := &slot{engine: e, name: name, unsure: e.doubts[name.Server]}
	s.touch(time.Now())
	e.slots.Store(name, s)
	e.roles[name.Server] = append(e.roles[name.Server], s)
	return s
}

// doubt notes that a write to a server failed. It gives the time from when on storage tells
// for good what the write left.
func (e *Engine) doubt(server string) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(e.doubts, func(_ string, until time.Time) bool { return until.Before(now) })
	e.doubts[server] = now.Add(LateCommit)
	return e.doubts[server]
}

// remove forgets a slot.
func (e *Engine) remove(s *slot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.peek(s.name) != s {
		return
	}
	e.slots.Delete(s.name)
	server := s.name.Server
	e.roles[server] = slices.DeleteFunc(e.roles[server], func(other *slot) bool { return other == s })
	if len(e.roles[server]) == 0 {
		delete(e.roles, server)
	}
}

// affected gives the slots that a change to name concerns: all of a server's when
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
	return slices.Clone(e.roles[name.Server])
}

// lock takes the write lock of a server.
func (e *Engine) lock(ctx context.Context, server string) (unlock func(), err error) {
	lock := e.writes[maphash.String(e.seed, server)%writeLocks]
	if err := lock.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { lock.Release(1) }, nil
}
