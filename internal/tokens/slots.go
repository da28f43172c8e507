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

// slot is all that the engine holds for one name.
type slot struct {
	engine *Engine
	name   Name

	// held is the current token, maybe expired. Stored under mu, read without.
	held atomic.Pointer[Token]
	// failed is the outcome of the latest fetch, nil if it succeeded. Stored
	// under mu, read without.
	failed atomic.Pointer[failure]
	// lastRead is when a caller last asked for the token, in nanoseconds since
	// Engine.epoch; within a second of the truth.
	lastRead atomic.Int64
	// reported is when a passive node last forwarded a read of the token since it was due, in
	// nanoseconds since Engine.epoch; 0 is never.
	reported atomic.Int64
	// flight is the fetch under way; nil if none is. Stored under mu, read without.
	flight atomic.Pointer[flight]
	// turn is the refresh that waits for its turn; nil if none does. Stored under mu, read without.
	turn atomic.Pointer[turn]

	mu sync.Mutex // guards the fields below; never held across a call that waits
	// revision counts the changes of the name's terms. An attempt begun under an
	// older one is void, its failure included.
	revision uint64
	// loaded reports whether storage was looked into since the slot was made.
	loaded bool
	// gone reports whether the name is not configured, and the slot no longer in use.
	gone bool
	// idleTimeout and host are those of the terms last seen.
	idleTimeout time.Duration
	host        unique.Handle[string] // one string for all names of a host
	// credentialsFrom is when the credentials last changed: a token that was obtained
	// earlier is due at once.
	credentialsFrom time.Time
	// unsaved reports whether held could not be stored yet.
	unsaved bool
	// storageFailures counts the flights in a row that storage failed; storageRetryAt is
	// the earliest time of the next one in the background.
	storageFailures int
	storageRetryAt  time.Time
	// triedRun is the beginning of the client's run of failures in which a request for this name
	// failed last. Written by the flight, which reads it without mu.
	triedRun time.Time
	// timer fires when the next background work is due; nil if none is.
	timer *time.Timer
	// cancelAttempt ends the attempt of the flight under way.
	cancelAttempt context.CancelFunc
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

// Retry does a task in the background at the given time, and again until it succeeds or the
// engine is closed. A task of the same key, which must be comparable, is replaced.
func (e *Engine) Retry(key any, at time.Time, complaint string, do func(context.Context) error) {
	e.retries.add(key, at, complaint, do)
}

// RetryAfterFailedWrite is Retry for a look at what a write that failed has left: as soon as
// storage answers, and once more when the write can no longer take effect.
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

// touch records a read. It writes at most once a second, so that readers on many
// cores do not fight for the cache line.
func (s *slot) touch(now time.Time) {
	at := now.Sub(s.engine.epoch)
	if at-time.Duration(s.lastRead.Load()) > time.Second {
		s.lastRead.Store(int64(at))
	}
}

// view is what next decides by. token is the held one, or none if a caller cannot use it.
// mu is held.
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
			v.failedAt = c.at // what another name of the client met counts for this one
		}
	}
	return v
}

// windowEnd is the end of f's backoff window for the name, which holds the token t; nil if callers
// wait for one. If only requests for other names of the client have failed, those names may have a
// fault of their own. So this name has a head start of them, and before its token ends it does not
// wait for longer than they do. The names of a server share its credentials: if these were refused for one, the
// others have none. mu is held, or it is the flight's.
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

// supersede makes whatever is under way for the name void. mu is held.
func (s *slot) supersede() {
	s.revision++
	s.turn.Store(nil)
	s.endAttempt()
}

// storageFailed notes that storage failed a flight. mu is held.
func (s *slot) storageFailed(err error, now time.Time) {
	s.storageFailures++
	s.storageRetryAt = now.Add(storageRetry(s.storageFailures))
	s.engine.log.Warn("storage error during token refresh", "name", s.name.String(), "error", err)
}

// hold replaces the held token, by none if t is nil. mu is held.
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

// drop empties the slot of a name that is not configured. mu is held.
func (s *slot) drop() {
	s.supersede()
	s.gone = true
	s.hold(nil)
	s.failed.Store(nil)
	s.stopTimer()
	s.engine.remove(s)
}

// stopTimer leaves the slot without a timer. mu is held.
func (s *slot) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// stop ends the slot's last timer: advance sets none once the engine's
// context has ended.
func (s *slot) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimer()
}
