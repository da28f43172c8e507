package trouble

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A Failure is a failure of a client at its server. All names of the client share its window.
type Failure struct {
	Name    string
	Answer  http.HandlerFunc // nil: the server refuses connections
	Timeout int              // request_timeout in seconds; 0: the default
	Limit   time.Duration    // the server's Retry-After; 0: none
}

// Failures returns the kinds of failures for Crowd.
func Failures() []Failure {
	const limit = 3 * time.Second
	return []Failure{
		{Name: "429 for 10 min", Answer: bed.LimitFor(http.StatusTooManyRequests, 10*time.Minute), Limit: 10 * time.Minute},
		{Name: "503 for 10 min", Answer: bed.LimitFor(http.StatusServiceUnavailable, 10*time.Minute), Limit: 10 * time.Minute},
		{Name: "429 for 3 s", Answer: bed.LimitFor(http.StatusTooManyRequests, limit), Limit: limit},
		{Name: "429", Answer: refuse(http.StatusTooManyRequests, "slow_down")},
		{Name: "500", Answer: refuse(http.StatusInternalServerError, "server_error")},
		{Name: "invalid_client, 401", Answer: refuse(http.StatusUnauthorized, "invalid_client")},
		{Name: "invalid_client, 400", Answer: refuse(http.StatusBadRequest, "invalid_client")},
		{Name: "unauthorized_client, 401", Answer: refuse(http.StatusUnauthorized, "unauthorized_client")},
		{Name: "timeout", Answer: bed.Hang, Timeout: 1},
		{Name: "connection reset", Answer: bed.Reset},
		{Name: "connection refused"},
	}
}

// A CrowdReport counts the requests of a client with many names to a failing server.
type CrowdReport struct {
	Failure
	Names   int
	AtOnce  int           // requests until every name had been read once
	Burst   time.Duration // duration of these reads
	Watched time.Duration // duration of the reads that followed
	Windows int           // requests in Watched
	Gap     time.Duration // shortest time between two requests in Watched; 0: fewer than two
	Served  time.Duration // from the server's recovery to the first token; 0: it did not recover
	Behind  time.Duration // from the first token until all names were served
	Healing int           // requests from the recovery until all names were served
	Reads   []Result      // failed reads
	Last    []Result      // reads of all names after the recovery
}

// Crowd reads all names of a client, which are roles of two configs, during a failure: all at once, then repeatedly,
// and after the recovery.
func (f Failure) Crowd(ctx context.Context, s *Stage, names int, watch time.Duration) (*CrowdReport, error) {
	r := &CrowdReport{Failure: f, Names: names}
	var paths []string
	for _, config := range []string{"first", "second"} {
		changes := map[string]any{}
		if f.Timeout > 0 {
			changes["request_timeout"] = f.Timeout
		}
		roles, err := s.Roles(ctx, config, names/2, changes)
		if err != nil {
			return nil, err
		}
		paths = append(paths, roles...)
	}
	if err := s.fail(f.Answer); err != nil {
		return nil, err
	}
	reading := time.Now()
	r.Reads = s.ReadAll(ctx, paths)
	asked, err := s.Asked(ctx)
	if err != nil {
		return nil, err
	}
	r.AtOnce, r.Burst = asked, time.Since(reading)

	begun := time.Now()
	for time.Since(begun) < watch {
		for chunk := range slices.Chunk(paths, 20) {
			r.Reads = append(r.Reads, s.ReadAll(ctx, chunk)...)
			if err := bed.Sleep(ctx, 400*time.Millisecond); err != nil {
				return nil, err
			}
		}
	}
	r.Watched = time.Since(begun)
	if asked, err = s.Asked(ctx); err != nil {
		return nil, err
	}
	r.Windows = asked - r.AtOnce
	r.Gap = shortestGap(s.AS.Requests(), begun)
	if f.Limit > watch {
		return r, nil
	}
	return r, r.heal(ctx, s, paths, asked)
}

// heal lets the server recover, and reads until every name has a token.
func (r *CrowdReport) heal(ctx context.Context, s *Stage, paths []string, asked int) error {
	s.AS.Set(s.AS.Issue(5 * time.Minute))
	if err := s.AS.Up(); err != nil {
		return err
	}
	back := time.Now()
	err := wait(ctx, "a token is served again", func() (bool, error) {
		return s.Read(ctx, paths[0]).Status == http.StatusOK, nil
	})
	if err != nil {
		return err
	}
	r.Served = time.Since(back)
	r.Last = s.ReadAll(ctx, paths)
	r.Behind = time.Since(back) - r.Served
	now, err := s.Asked(ctx)
	r.Healing = now - asked
	return err
}

// shortestGap returns the shortest time between two requests since the given time, or 0.
func shortestGap(requests []bed.ScriptedRequest, since time.Time) (shortest time.Duration) {
	var last time.Time
	for _, request := range requests {
		if request.Time.Before(since) {
			continue
		}
		if gap := request.Time.Sub(last); !last.IsZero() && (shortest == 0 || gap < shortest) {
			shortest = gap
		}
		last = request.Time
	}
	return shortest
}

// A Rotation is a write of a new secret with many held tokens. The write's own token request succeeds, and all later
// requests fail.
type Rotation struct {
	Names int
	Wrote Result
	Asked int      // requests from the start of the write to the end of the watch, including the write's own
	Reads []Result // reads of all names afterwards

	Refreshes []Result // calls of refresh/ for all names, as by brokers whose tokens are refused
	Refreshed int      // requests caused by Refreshes
}

// Rotate rotates the secret of a client with this many held tokens.
func (f Failure) Rotate(ctx context.Context, s *Stage, names int, watch time.Duration) (*Rotation, error) {
	r := &Rotation{Names: names}
	s.AS.Set(s.AS.Issue(time.Hour))
	paths, err := s.Roles(ctx, "rotated", names, nil)
	if err != nil {
		return nil, err
	}
	err = each(names, func(i int) error { return done(s.Read(ctx, paths[i])) })
	if err != nil {
		return nil, err
	}
	held := time.Now()
	before, err := s.Asked(ctx)
	if err != nil {
		return nil, err
	}
	issue, first := s.AS.Issue(time.Hour), make(chan struct{}, 1)
	first <- struct{}{}
	s.AS.Set(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-first:
			issue(w, r)
		default:
			f.Answer(w, r)
		}
	})
	secret := newSecret()
	s.Bed.Secrecy.AddClientSecret(s.Mount, secret)
	r.Wrote = s.Write(ctx, "config/rotated", map[string]any{"client_secret": secret})
	if err := done(r.Wrote); err != nil {
		return nil, fmt.Errorf("the rotation: %w", err)
	}
	if err := bed.Sleep(ctx, watch); err != nil {
		return nil, err
	}
	after, err := s.Asked(ctx)
	if err != nil {
		return nil, err
	}
	r.Asked = after - before
	r.Reads = s.ReadAll(ctx, paths)
	// A younger token would not be replaced.
	if err := bed.Sleep(ctx, time.Until(held.Add(10*time.Second))); err != nil {
		return nil, err
	}
	if before, err = s.Asked(ctx); err != nil {
		return nil, err
	}
	var refreshing sync.WaitGroup
	r.Refreshes = make([]Result, names)
	for i, path := range paths {
		refreshing.Go(func() {
			r.Refreshes[i] = s.Write(ctx, "refresh/"+strings.TrimPrefix(path, "token/"), nil)
		})
	}
	refreshing.Wait()
	after, err = s.Asked(ctx)
	r.Refreshed = after - before
	return r, err
}
