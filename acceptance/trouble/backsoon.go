package trouble

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// An Outage is an outage of a client's server while readers read all its names.
type Outage struct {
	Name   string
	Answer http.HandlerFunc // nil: the server refuses connections
	Length time.Duration
	Names  int
	Lost   bool // requests during the outage are never answered

	// Lifetime of the tokens held when the outage begins, just before their refresh; 0: no tokens are held.
	Lifetime time.Duration
}

// RequestTimeout is the default request_timeout.
func (Outage) RequestTimeout() time.Duration { return 10 * time.Second }

// Outages returns all kinds with the same length. Blips are short refusals: a deployment, a restart, a disabled
// client.
func Outages(length, blip time.Duration) []Outage {
	const names = 5
	return []Outage{
		{Name: "connection refused", Length: length, Names: names},
		{Name: "503", Answer: refuse(http.StatusServiceUnavailable, "temporarily_unavailable"), Length: length, Names: names},
		{Name: "hangs, connections break when it is back", Answer: bed.Hang, Length: length, Names: names},
		{Name: "hangs, requests are lost", Answer: bed.NeverAnswer, Length: length, Names: names, Lost: true},
		{Name: "401 invalid_client", Answer: refuse(http.StatusUnauthorized, "invalid_client"), Length: blip, Names: names},
		{Name: "401 unauthorized_client", Answer: refuse(http.StatusUnauthorized, "unauthorized_client"), Length: blip, Names: names},
		{Name: "400 invalid_scope", Answer: refuse(http.StatusBadRequest, "invalid_scope"), Length: blip, Names: 1},
	}
}

// HeldOutages begin with held tokens of 20 s and end after the tokens do. By then, failed refreshes have made the
// window long.
func HeldOutages() []Outage {
	const lifetime, length, names = 20 * time.Second, 12 * time.Second, 5
	return []Outage{
		{Name: "503, held", Answer: refuse(http.StatusServiceUnavailable, "temporarily_unavailable"), Length: length, Names: names, Lifetime: lifetime},
		{Name: "401 invalid_client, held", Answer: refuse(http.StatusUnauthorized, "invalid_client"), Length: length, Names: names, Lifetime: lifetime},
	}
}

// An OutageReport has the readers' waits and the server's requests in an outage.
type OutageReport struct {
	Outage
	Down   int           // requests during the outage
	Served time.Duration // from the server's return until one name was served a new token
	All    time.Duration // from the server's return until all names were served a new token
	Back   int           // requests until all names were served, except those under way at the return
	Reads  []Result      // failed reads
}

// Run runs the outage.
func (o Outage) Run(ctx context.Context, s *Stage) (*OutageReport, error) {
	report := &OutageReport{Outage: o}
	paths, err := s.Roles(ctx, "client", o.Names, nil)
	if err != nil {
		return nil, err
	}
	if err := o.hold(ctx, s, paths); err != nil {
		return nil, err
	}
	before, err := s.Asked(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.fail(o.Answer); err != nil {
		return nil, err
	}
	readers := startReaders(ctx, s, paths)
	defer readers.finish()
	if err := bed.Sleep(ctx, o.Length); err != nil {
		return nil, err
	}
	during, err := s.Asked(ctx)
	if err != nil {
		return nil, err
	}
	underWay := s.AS.Open() // the plugin counts these when they end
	report.Down = during + underWay - before
	s.AS.Set(s.AS.Issue(5 * time.Minute))
	if err := s.AS.Up(); err != nil {
		return nil, err
	}
	back := time.Now()
	err = wait(ctx, "all names are served", func() (bool, error) {
		first, all := readers.servedSince(back)
		if first.IsZero() || all.IsZero() {
			return false, nil
		}
		report.Served, report.All = first.Sub(back), all.Sub(back)
		return true, nil
	})
	readers.finish()
	report.Reads = readers.failed
	if err != nil {
		return report, err
	}
	after, err := s.Asked(ctx)
	report.Back = after - during - underWay
	return report, err
}

// hold gets a token for each name, and waits until just before the refresh.
func (o Outage) hold(ctx context.Context, s *Stage, paths []string) error {
	if o.Lifetime == 0 {
		return nil
	}
	s.AS.Set(s.AS.Issue(o.Lifetime))
	for _, r := range s.ReadAll(ctx, paths) {
		if err := done(r); err != nil {
			return err
		}
	}
	return bed.Sleep(ctx, o.Lifetime/2-2*time.Second) // a refresh may come a second early
}

// readers read names repeatedly.
type readers struct {
	paths []string
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu     sync.Mutex           // guards the fields below
	issued map[string]time.Time // by name: when its current token was issued
	served map[string]time.Time // by name: when its current token was first served
	failed []Result
}

func startReaders(ctx context.Context, s *Stage, paths []string) *readers {
	ctx, cancel := context.WithCancel(ctx)
	l := &readers{stop: cancel, paths: paths, issued: map[string]time.Time{}, served: map[string]time.Time{}}
	for _, path := range paths {
		l.done.Go(func() {
			for ctx.Err() == nil {
				r := s.Read(ctx, path)
				if ctx.Err() != nil {
					return
				}
				l.add(r)
				if bed.Sleep(ctx, 250*time.Millisecond) != nil {
					return
				}
			}
		})
	}
	return l
}

func (l *readers) add(r Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Status != http.StatusOK {
		l.failed = append(l.failed, r)
		return
	}
	// The time is rounded down to a second, like the outage's end.
	text, _ := r.Data["last_vault_rotation"].(string)
	issued, err := time.Parse(time.RFC3339, text)
	if err == nil && !issued.Equal(l.issued[r.Path]) {
		l.issued[r.Path], l.served[r.Path] = issued, r.Ended()
	}
}

// servedSince returns when the first and the last name got a token issued after the given time. They may be zero.
func (l *readers) servedSince(since time.Time) (first, all time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	missing := false
	for _, path := range l.paths {
		at := l.served[path]
		if l.issued[path].Before(since.Truncate(time.Second)) {
			missing = true
			continue
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(all) {
			all = at
		}
	}
	if missing {
		return first, time.Time{}
	}
	return first, all
}

func (l *readers) finish() {
	l.stop()
	l.done.Wait()
}
