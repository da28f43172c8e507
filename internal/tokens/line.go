package tokens

import (
	"slices"
	"sync"
)

// Bounds on concurrent background fetches: three quarters of the bounds on all fetches.
const (
	hostBackground = hostFetches - hostFetches/4
	allBackground  = allFetches - allFetches/4
)

// turn is a background refresh in a queue: for a place, or for the end of another name's probe. Thousands may wait
// after an outage, so each gets a goroutine only when its turn comes.
type turn struct {
	// timed reports whether the token's own timer asked for the refresh.
	timed bool
	// start continues the refresh, with the place if it waited for one. It returns false if the refresh has left the
	// queue or the engine is closing: then the place is still free.
	start func() bool
}

// lines bounds background fetches per host and over all. Refreshes wait in one line for each host; the
// hosts take turns.
type lines struct {
	mu    sync.Mutex // guards the fields below and every line's
	taken int        // places over all
	hosts map[string]*line
	// ready are the lines with waiting turns whose hosts have free places. It is empty while a place over all is
	// free.
	ready []*line
}

// line is the background work at one host.
type line struct {
	host    string
	taken   int // places
	waiting []*turn
}

func newLines() *lines { return &lines{hosts: map[string]*line{}} }

// enter takes a place at host. It returns false if t must wait: then leave returns t later.
func (l *lines) enter(host string, t *turn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hosts[host]
	if h == nil {
		h = &line{host: host}
		l.hosts[host] = h
	}
	if h.taken < hostBackground && l.taken < allBackground {
		h.taken++
		l.taken++
		return true
	}
	h.waiting = append(h.waiting, t)
	if h.taken < hostBackground && len(h.waiting) == 1 {
		l.ready = append(l.ready, h)
	}
	return false
}

// leave gives back a place at host. It returns the turn that gets a place next, and its host; nil if the place stays
// free.
func (l *lines) leave(host string) (t *turn, at string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken--
	h := l.hosts[host]
	if h.taken--; h.taken == hostBackground-1 && len(h.waiting) > 0 {
		l.ready = append(l.ready, h)
	}
	if h.taken == 0 && len(h.waiting) == 0 {
		delete(l.hosts, host)
	}
	if len(l.ready) == 0 {
		return nil, ""
	}
	h = l.ready[0]
	l.ready = slices.Delete(l.ready, 0, 1)
	t = h.waiting[0]
	h.waiting[0] = nil
	if h.waiting = h.waiting[1:]; len(h.waiting) == 0 {
		h.waiting = nil
	}
	h.taken++
	l.taken++
	if h.taken < hostBackground && len(h.waiting) > 0 {
		l.ready = append(l.ready, h)
	}
	return t, h.host
}
