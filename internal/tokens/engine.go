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
// (Engine.lock), a slot's mu, then Engine.mu, a client's mu, lines.mu or retries.mu. Only the
// write lock is held across storage calls; none is held across a fetch.
package tokens

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// closeTimeout is how long Close waits. Vault's SDK holds a process-wide lock
// while a backend is cleaned up, so 100 ms is all there is.
const closeTimeout = 50 * time.Millisecond

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
	// Observer is called with what the engine does; nil for none.
	Observer Observer
}

// New makes an engine. Nothing runs until it is asked for something; Close ends it.
func New(o Options) *Engine {
	if o.Observer == nil {
		o.Observer = unobserved{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{
		store:    o.Store,
		passive:  o.Passive,
		log:      o.Log,
		observer: o.Observer,
		gates:    newGates(),
		lines:    newLines(),
		clients:  newClients(),
		ctx:      ctx,
		cancel:   cancel,
		epoch:    time.Now(),
		locks:    newShared(func() *semaphore.Weighted { return semaphore.NewWeighted(1) }, nil),
		servers:  map[string]map[*slot]struct{}{},
	}
	e.retries = newRetries(ctx, o.Log, e.spawn)
	return e
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
		case t.ValidAt(now): // what is held serves, whatever became of the fetch
			return s.answer(t, now), nil
		case errors.Is(err, ErrNotConfigured) && e.passive():
			return Answer{}, ErrReadOnly // this node may not have heard of the config yet
		case err != nil:
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
			if f.token.ValidAt(time.Now()) {
				return f.token, f.token.ID() != f.replaces, nil
			}
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
	if e.ctx.Err() != nil {
		return nil, ErrClosed
	}
	return token, err
}

func (e *Engine) verify(ctx context.Context, name Name, terms *Terms) (*grant.Token, error) {
	c, release := e.clients.use(terms.Client)
	defer release()
	var awaited atomic.Bool
	awaited.Store(true)
	leave, _, err := e.gates.enter(ctx, terms.Host, &awaited)
	if err != nil {
		return nil, err
	}
	defer leave()
	if f := c.limit(time.Now()); f != nil {
		return nil, f.err(name)
	}
	p := &permit{client: c, begun: time.Now()}
	token, err := e.fetch(ctx, terms)
	switch {
	case err == nil:
		if p.succeeded() {
			e.wake(c, name.Server)
		}
	case retryAfter(err) > 0:
		return nil, p.failed(name.Server, terms.Host, err, time.Now()).err(name)
	}
	return token, err
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
	select {
	case <-done:
	case <-time.After(closeTimeout):
		e.log.Warn("work is still ending after the mount was closed")
	}
}
