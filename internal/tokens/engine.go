// Package tokens keeps one access token per name: it fetches a token at the first read, refreshes it ahead of its
// expiry and remembers failures. It hands out a held token without a lock shared with other names, without storage and
// without any call.
//
// It knows names, terms and tokens. Store and Terms.Fetch hide how tokens are stored and fetched.
//
// next decides the next action for a name; slot.apply is the only place where an outcome reaches readers; Retry
// repeats failed storage work.
//
// Locks, in the order in which they may be taken: a server's write lock (Engine.lock), a slot's mu, then Engine.mu, a
// client's mu, lines.mu or retries.mu. Only the write lock is held across storage calls. A fetch holds no lock.
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

// closeTimeout is how long Close waits. Vault's SDK holds a process-wide lock while a backend is cleaned up, so the
// whole cleanup may take 100 ms.
const closeTimeout = 50 * time.Millisecond

// Options are the parts of an Engine.
type Options struct {
	// Store stores terms and tokens.
	Store Store
	// Passive reports whether this node may not fetch (a performance standby, a DR secondary). Such a node serves
	// held tokens and otherwise returns ErrReadOnly. Passive is called often and must be cheap.
	Passive func() bool
	// Log gets outcomes of fetches by name; never a token or a secret.
	Log hclog.Logger
	// Observer is called with events of the engine; may be nil.
	Observer Observer
}

// New makes an engine. It starts goroutines only when it is used. Close ends it.
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

// Read returns the token of a name. If a valid token is held, it returns at once. Otherwise it waits for the fetch
// under way, or starts one. If ctx ends, or after waitMost, it returns a *WaitError, and the fetch continues. Within
// a backoff window it returns the remembered *FailedError at once.
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
		case t.ValidAt(now): // a held token serves, even if the fetch failed
			return s.answer(t, now), nil
		case errors.Is(err, ErrNotConfigured) && e.passive():
			return Answer{}, ErrReadOnly // the config may not have reached this node yet
		case err != nil:
			return Answer{}, err
		}
	}
}

// Refresh replaces the token of a name if its ID is rejected, or if rejected is empty. It returns the token held
// afterwards; refreshed reports whether it is a new one. A token younger than the cooldown is kept. One fetch serves all
// callers. Refresh waits like Read.
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

// Verify fetches a token for a name on terms that are not stored yet, and does not keep it. The bounds on fetches
// apply. It ignores the client's backoff window, since the new terms may be the remedy. But if the authorization
// server set the window (Retry-After), Verify returns a *FailedError until the window ends.
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

// Close ends every fetch, timer and goroutine of the engine. It waits for them for at most closeTimeout.
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
