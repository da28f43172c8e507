package tokens

import (
	"context"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// outcome is the outcome of an attempt.
type outcome struct {
	// terms are the terms in storage; nil if err is set.
	terms *Terms
	// stored is the token in storage, if the attempt loads it and it exists; else nil.
	stored *Token
	// token is the authorization server's token; nil if the server was not called, or if the request failed.
	token *Token
	// saved reports whether token is stored, or need not be.
	saved bool
	// failure is the failure of the request; nil if the authorization server was not called, or answered with a token.
	failure *failure
	// tried is the time since which the client has been failing, if a request for this name failed; else zero.
	tried time.Time
	// recovered is the client if the answer ended its failure.
	recovered *client
	// probing is the client for which another name probes; nil without a probe, or if a caller waits.
	probing *client
	// err is set if storage failed, or the name is not configured.
	err error
}

// look reads the terms and, if load is set, the stored token.
func (s *slot) look(ctx context.Context, load bool) (o outcome) {
	if o.terms, o.err = s.engine.store.Terms(ctx, s.name); o.err != nil || !load {
		return o
	}
	o.stored, o.err = s.engine.store.Load(ctx, s.name)
	return o
}

// ask calls the authorization server once, when the client and the bounds on fetches permit it. While another name
// probes, it waits only if a caller waits.
func (s *slot) ask(a attempt, f *flight, terms *Terms) outcome {
	for {
		leave, waited, err := s.engine.gates.enter(a.ctx, terms.Host, &f.awaited)
		if err != nil {
			return outcome{err: err}
		}
		o, probing := s.askInside(a, f, terms, waited)
		leave()
		if probing == nil || !f.awaited.Load() {
			return o
		}
		select {
		case <-probing:
		case <-a.ctx.Done():
			return outcome{err: a.ctx.Err()}
		}
	}
}

// askInside is ask after the gates. If another name probes for the same client, it returns a channel. The channel
// closes when the probe has ended.
func (s *slot) askInside(a attempt, f *flight, terms *Terms, waited bool) (o outcome, probing <-chan struct{}) {
	if waited { // the configuration may have changed
		if o = s.look(a.ctx, false); o.err != nil {
			return o, nil
		}
		terms = o.terms
	}
	o.terms = terms
	c, release := s.engine.clients.use(terms.Client)
	defer release()
	began := time.Now()
	var serving *Token // nil if a caller waits for another
	if !f.awaited.Load() {
		serving = s.held.Load()
	}
	held := serving.ValidAt(began)
	p, refused, probing := c.admit(began, func(f *failure) time.Time { return s.windowEnd(f, serving, began) })
	switch {
	case refused != nil:
		s.engine.log.Debug("token not asked for: the client waits after a failure", "name", s.name.String())
		o.failure = refused
		return o, nil
	case p == nil:
		o.probing = c
		return o, probing
	}
	defer p.close()
	t, err := s.engine.obtain(a.ctx, terms)
	now := time.Now()
	if a.ctx.Err() != nil {
		return outcome{err: a.ctx.Err()}, nil
	}
	if grant.ClientWide(err) {
		o.failure = p.failed(s.name.Server, terms.Host, err, now)
		o.tried = o.failure.since
		s.logFailure(o.failure, held, now)
		return o, nil
	}
	if p.succeeded() {
		o.recovered = c
	}
	if o.token = t; t.ValidAt(now) {
		return o, nil
	}
	if o.token = nil; err == nil {
		err = &grant.UnavailableError{Reason: "the token had expired when it arrived"}
	}
	o.failure = s.failed.Load().next(terms.Host, err, now)
	o.failure.begun = began
	s.logFailure(o.failure, held, now)
	return o, nil
}

// obtain calls the authorization server. A lifetime counts from a whole second, so a token with a lifetime of a
// second may expire on the way: then obtain fetches another one at once.
func (e *Engine) obtain(ctx context.Context, terms *Terms) (*Token, error) {
	for again := false; ; again = true {
		answer, err := e.fetch(ctx, terms)
		if err != nil {
			return nil, err
		}
		t := newToken(answer, terms)
		if again || t.ValidAt(time.Now()) || t.Lifetime() > time.Second {
			return t, nil
		}
	}
}

// fetch calls the authorization server once.
func (e *Engine) fetch(ctx context.Context, terms *Terms) (*grant.Token, error) {
	begun := time.Now()
	token, err := terms.Fetch(ctx)
	e.observer.Fetched(time.Since(begun), err)
	return token, err
}

func (s *slot) logFailure(f *failure, held bool, now time.Time) {
	s.engine.log.Warn("token could not be obtained", "name", s.name.String(), "host", f.host, "error", f.cause,
		"failures", f.count, "next_attempt_in", f.end(held).Sub(now).Round(time.Second).String(),
		"token_held", s.held.Load().ValidAt(now))
}

// save stores a token before it is handed out: after a failover the next node must not serve the previous one. It
// returns with the server's write lock held, for the commit of the outcome.
func (s *slot) save(a attempt, o outcome) (_ outcome, unlock func()) {
	unlock, err := s.engine.lock(s.engine.ctx, s.name.Server)
	if err != nil {
		return outcome{err: err}, func() {}
	}
	if o.token != nil && a.ctx.Err() == nil {
		o = s.saved(o)
	}
	return o, unlock
}

// saved stores the outcome's token. The write lock is held.
func (s *slot) saved(o outcome) outcome {
	now := time.Now()
	if prev := s.held.Load(); prev.ValidAt(now) && prev.Shape == o.token.Shape && prev.AccessToken == o.token.AccessToken {
		o.token = prev.repeated(o.token, now)
	}
	// If storage hangs, tokens that wait for each other to be stored would expire.
	o.saved = !s.owes(o.token) || !s.engine.unsavable.Load() && s.store(o.token) == nil
	return o
}

// owes reports whether storage must change before the token is handed out. A short-lived token is not stored, so
// storage must change only if it may hold an older token: a restart would load that.
func (s *slot) owes(t *Token) bool {
	if !ShortLived(t.Lifetime()) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	prev := s.held.Load()
	return !s.loaded || s.unsaved || prev != nil && !ShortLived(prev.Lifetime())
}

// slowSave is the duration from which a failed save means that storage hangs.
const slowSave = time.Second

// store stores a token or, if it is short-lived, deletes the previous one. The write lock is held.
func (s *slot) store(t *Token) error {
	began := time.Now()
	var err error
	if ShortLived(t.Lifetime()) {
		err = s.engine.store.Delete(s.engine.ctx, s.name)
	} else {
		err = s.engine.store.Save(s.engine.ctx, s.name, t)
	}
	s.engine.unsavable.Store(err != nil && time.Since(began) >= slowSave)
	return err
}
