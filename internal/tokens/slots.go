package tokens

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"
)

// Engine holds the tokens of one mount.
type Engine struct {
	store    Store
	passive  func() bool
	log      hclog.Logger
	observer Observer
	gates    *gates
	lines    *lines
	clients  *shared[*client]
	retries  *retries

	// ctx ends with the engine. Every fetch and background storage call uses it.
	ctx    context.Context
	cancel context.CancelFunc
	epoch  time.Time // lastRead of each slot counts from here

	// locks are the write locks, one per server. Storing a config, a role or a token needs it. A config and its roles
	// share one lock, since a write of the config changes the roles' terms.
	locks *shared[*semaphore.Weighted]

	unsavable atomic.Bool // whether storage hung at the last save

	slots sync.Map // Name -> *slot; read without a lock, written under mu

	mu      sync.Mutex                    // guards the fields below and writes to slots
	servers map[string]map[*slot]struct{} // by server: its own slot and its roles'
	closed  bool
	work    sync.WaitGroup // grows only under mu while closed is false
}

// slot holds the engine's state of one name.
type slot struct {
	engine *Engine
	name   Name

	// held is the current token, which may have expired. Stored under mu, read without.
	held atomic.Pointer[Token]
	// failed is the outcome of the latest fetch, nil if it succeeded. Stored
	// under mu, read without.
	failed atomic.Pointer[failure]
	// lastRead is when a caller last asked for the token, in nanoseconds since
	// Engine.epoch, accurate to a second.
	lastRead atomic.Int64
	// reported is when a passive node last forwarded a read of the due token, in nanoseconds since Engine.epoch; 0
	// is never.
	reported atomic.Int64
	// flight is the fetch under way; nil without one. Stored under mu, read without.
	flight atomic.Pointer[flight]
	// turn is the refresh that waits for its turn; nil without one. Stored under mu, read without.
	turn atomic.Pointer[turn]

	mu sync.Mutex // guards the fields below; never held across a call that waits
	// revision counts the changes of the name's terms. An attempt begun under an
	// older one is void, its failure included.
	revision uint64
	// loaded reports whether the stored token was loaded.
	loaded bool
	// gone reports whether the slot is unused, since the name is not configured.
	gone bool
	// idleTimeout and host come from the latest terms.
	idleTimeout time.Duration
	host        unique.Handle[string] // one string for all names of a host
	// credentialsFrom is when the credentials last changed: a token obtained earlier is due at once.
	credentialsFrom time.Time
	// unsaved reports whether held could not be stored yet.
	unsaved bool
	// storageFailures counts the flights in a row that failed in storage. storageRetryAt is the earliest time of the
	// next background flight.
	storageFailures int
	storageRetryAt  time.Time
	// triedRun is the beginning of the client's latest run of failures in which a request for this name failed. The
	// flight writes it under mu and reads it without.
	triedRun time.Time
	// timer fires when the next background work is due; nil without any.
	timer *time.Timer
	// cancelAttempt ends the attempt of the flight under way.
	cancelAttempt context.CancelFunc
}

// peek returns the slot of a name, nil without one, and takes no lock.
func (e *Engine) peek(name Name) *slot {
	if s, ok := e.slots.Load(name); ok {
		return s.(*slot)
	}
	return nil
}

// slot returns the slot of a name, creating it if needed. If the name is not configured, the slot removes itself.
func (e *Engine) slot(name Name) *slot {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.peek(name); s != nil {
		return s
	}
	s := &slot{engine: e, name: name, host: unique.Make("")}
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

// affected returns the slots that a change of name affects: the server's own and its roles' if name is a server.
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

// Locked runs f under the write lock of a server.
func (e *Engine) Locked(ctx context.Context, server string, f func(context.Context) error) error {
	unlock, err := e.lock(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	return f(ctx)
}

// Go runs f on a goroutine, with a context that ends with the engine. Close waits for it. It returns false if the engine
// is closed.
func (e *Engine) Go(f func(context.Context)) bool { return e.spawn(func() { f(e.ctx) }) }

// spawn runs f on a goroutine, for which Close waits. It returns false if the engine is closed.
func (e *Engine) spawn(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.work.Go(f)
	return true
}

// The keys of the tasks that the engine retries.
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
	rereadTerms                  // of a server, after a failed write
)

// Retry does a task in the background at the given time, and again until it succeeds or the engine is closed. It
// replaces a task with the same key, which must be comparable.
func (e *Engine) Retry(key any, at time.Time, complaint string, do func(context.Context) error) {
	e.retries.add(key, at, complaint, do)
}

// RetryAfterFailedWrite is Retry for reading the state after a failed write: when storage answers, and again when the
// write can no longer take effect.
func (e *Engine) RetryAfterFailedWrite(key any, complaint string, look func(context.Context) error) {
	final := time.Now().Add(LateCommit)
	e.Retry(key, time.Now(), complaint, func(ctx context.Context) error {
		began := time.Now()
		if err := look(ctx); err != nil || !began.Before(final) {
			return err
		}
		e.Retry(key, final, complaint, look)
		return nil
	})
}

// touch records a read. It writes at most once a second, so that readers on many cores don't contend for the cache
// line.
func (s *slot) touch(now time.Time) {
	at := now.Sub(s.engine.epoch)
	if at-time.Duration(s.lastRead.Load()) > time.Second {
		s.lastRead.Store(int64(at))
	}
}

// view returns the input of next. token is the held token, or nil if the caller cannot use it. mu is held.
func (s *slot) view(now time.Time, token *Token, asked bool) view {
	v := view{
		now:            now,
		token:          token,
		storageRetryAt: s.storageRetryAt,
		lastRead:       s.engine.epoch.Add(time.Duration(s.lastRead.Load())),
		idleTimeout:    s.idleTimeout,
		asked:          asked,
		flying:         s.flight.Load() != nil,
		stopped:        s.engine.ctx.Err() != nil || s.engine.passive() && !asked,
	}
	if f := s.failed.Load(); f != nil {
		v.failing, v.failedAt, v.windowEnd = true, f.at, s.windowEnd(f, token, now)
		if c := f.current(); c != nil {
			v.failedAt = c.at // a failure of another name of the client counts
		}
	}
	return v
}

// windowEnd returns the end of f's backoff window for the name. t is the held token; nil if callers wait for another.
// If only requests for other names of the client have failed, the fault may be in those names. So this name may try
// headStart earlier, and shortly before t expires its window is as short as if callers waited. The names of a server
// share its credentials: if these were refused for one name, the others don't get the head start. mu is held, or the
// flight calls it.
func (s *slot) windowEnd(f *failure, t *Token, now time.Time) time.Time {
	end := f.end(t.ValidAt(now))
	c := f.current()
	if c == nil || c.client == nil || c.limited || s.triedRun.Equal(c.since) || slices.Contains(c.refusedServers, s.name.Server) {
		return end
	}
	early := minTime(f.end(false), c.at.Add(waitingMost-headStart))
	if t.ValidAt(now) {
		early = later(early, t.Expires.Add(-2*waitingMost))
	}
	return minTime(end, early)
}

// begin opens an attempt. mu is held.
func (s *slot) begin() attempt {
	ctx, cancel := context.WithCancel(s.engine.ctx)
	s.cancelAttempt = cancel
	return attempt{ctx: ctx, revision: s.revision, load: !s.loaded}
}

// endAttempt frees the attempt's context. mu is held.
func (s *slot) endAttempt() {
	if s.cancelAttempt != nil {
		s.cancelAttempt()
	}
}

// supersede voids the attempt under way for the name. mu is held.
func (s *slot) supersede() {
	s.revision++
	s.turn.Store(nil)
	s.endAttempt()
}

// storageFailed records a flight that failed in storage. mu is held.
func (s *slot) storageFailed(err error, now time.Time) {
	s.storageFailures++
	s.storageRetryAt = now.Add(storageRetry(s.storageFailures))
	s.engine.log.Warn("storage error during token refresh", "name", s.name.String(), "error", err)
}

// hold replaces the held token; nil drops it. mu is held.
func (s *slot) hold(t *Token) {
	s.held.Store(t)
	s.unsaved = false
}

// renew makes the held token due, since it was obtained with other credentials. mu is held.
func (s *slot) renew(now time.Time) {
	s.credentialsFrom = now
	if t := s.held.Load(); t != nil {
		s.held.Store(t.dueBy(now))
	}
}

// drop empties and removes the slot, since its name is not configured. mu is held.
func (s *slot) drop() {
	s.supersede()
	s.gone = true
	s.hold(nil)
	s.failed.Store(nil)
	s.stopTimer()
	s.engine.remove(s)
}

// stopTimer stops the timer, if it is armed. mu is held.
func (s *slot) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// stop stops the slot's timer. After the engine's context has ended, advance never arms it again.
func (s *slot) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimer()
}
