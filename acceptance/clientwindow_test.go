package acceptance

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
)

const (
	// underWay is the largest number of concurrent token requests from the plugin to a server.
	underWay = 8
	// backBound is the longest time from a server's recovery to a served reader: the longest window while readers
	// ask, and two seconds.
	backBound = 12 * time.Second
)

// All names of a client, here roles of two configs, share the client's failure. The server gets the requests under
// way, and then one request in each window. The first success ends the window of all names.
func TestNamesOfAClientShareTheWindowOfAFailure(t *testing.T) {
	t.Parallel()
	b := shared(t)
	// The failures mostly wait, so all run at once, whatever -parallel says.
	var kinds sync.WaitGroup
	for i, f := range trouble.Failures() {
		kinds.Go(func() { t.Run(f.Name, func(t *testing.T) { testCrowd(t, b, fmt.Sprintf("crowd-%d", i), f) }) })
	}
	kinds.Wait()
}

func testCrowd(t *testing.T, b *bed.Bed, mount string, f trouble.Failure) {
	names := 60
	if f.Name == "429 for 10 min" || f.Name == "invalid_client, 401" {
		names = 300
	}
	r := bed.Must(f.Crowd(t.Context(), newStage(t, b, mount), names, 12*time.Second))(t)
	t.Logf("%d names: %d requests at once, in %s, %d in the next %s, at least %s apart; served %s after the recovery, all %s later, for %d requests",
		r.Names, r.AtOnce, round(r.Burst), r.Windows, round(r.Watched), round(r.Gap), round(r.Served), round(r.Behind), r.Healing)
	most := underWay
	if f.Limit == 0 {
		most += mostAttempts(r.Burst, time.Second, 10*time.Second) - 1 // windows that ended during the burst
	}
	if r.AtOnce > most {
		t.Errorf("%d requests until every name had been read, want at most %d", r.AtOnce, most)
	}
	windows, gap := mostAttempts(r.Watched, time.Second, 10*time.Second), 700*time.Millisecond
	switch {
	case f.Limit > r.Watched:
		windows = 0
	case f.Limit > 0:
		windows, gap = int(r.Watched/f.Limit)+1, f.Limit
	}
	if r.Windows > windows {
		t.Errorf("%d requests in the next %s, want at most %d, one in each window", r.Windows, round(r.Watched), windows)
	}
	if r.Windows > 1 && f.Answer != nil && r.Gap < gap {
		t.Errorf("two requests within %s, want windows of at least %s", round(r.Gap), gap)
	}
	wantAll(t, "readers", r.Reads, http.StatusBadGateway, http.StatusBadRequest)
	if f.Limit > r.Watched {
		return
	}
	if r.Served > backBound {
		t.Errorf("a token was served %s after the recovery, want %s", round(r.Served), backBound)
	}
	wantAll(t, "after the first success the names", r.Last, http.StatusOK)
	if r.Healing > r.Names+windows {
		t.Errorf("%d requests from the recovery until all %d names were served", r.Healing, r.Names)
	}
}

// A write of a new secret gets one token, and the others are replaced in the background. If the server then limits or
// refuses the client, it gets only the requests under way, and readers get the held tokens.
func TestRotationIntoAFailureAsksNoMoreThanWasUnderWay(t *testing.T) {
	t.Parallel()
	for mount, failure := range map[string]trouble.Failure{
		"rotation-429": {Answer: bed.LimitFor(http.StatusTooManyRequests, 10*time.Minute)},
		"rotation-401": {Answer: bed.RefuseWith(http.StatusUnauthorized, "invalid_client", nil)},
	} {
		t.Run(mount, func(t *testing.T) {
			t.Parallel()
			names, watch := 300, 8*time.Second
			r := bed.Must(failure.Rotate(t.Context(), newStage(t, shared(t), mount), names, watch))(t)
			t.Logf("%d requests in %s for %d held tokens, then %d for as many callers of refresh/", r.Asked, watch, names, r.Refreshed)
			if most := 1 + underWay + mostAttempts(watch, time.Second, 10*time.Second); r.Asked > most {
				t.Errorf("%d requests, want at most %d", r.Asked, most)
			}
			wantAll(t, "readers of held tokens", r.Reads, http.StatusOK)
			wantAll(t, "callers of refresh/", r.Refreshes, http.StatusBadGateway, http.StatusBadRequest)
			if r.Refreshed > 2 {
				t.Errorf("%d requests for %d callers of refresh/, want at most one in each window", r.Refreshed, names)
			}
		})
	}
}

// A refused scope or target concerns one name. Its siblings get tokens at once.
func TestRefusedScopeOrTargetDoesNotHurtSiblings(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"invalid_scope", "invalid_target"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			const roles = 20
			s := newStage(t, shared(t), "refused-"+code)
			issue, refuse := s.AS.Issue(5*time.Minute), bed.RefuseWith(http.StatusBadRequest, code, nil)
			refused := []string{"scope-1", "scope-7", "scope-13"}
			s.AS.Set(func(w http.ResponseWriter, r *http.Request) {
				if slices.Contains(refused, r.PostForm.Get("scope")) {
					refuse(w, r)
					return
				}
				issue(w, r)
			})
			paths := bed.Must(s.Roles(t.Context(), "some", roles, nil))(t)
			// The refused names come first, because a window would delay the others.
			var bad, good []string
			for i, path := range paths {
				if slices.Contains(refused, fmt.Sprintf("scope-%d", i)) {
					bad = append(bad, path)
				} else {
					good = append(good, path)
				}
			}
			for _, want := range []struct {
				paths  []string
				status int
			}{{bad, http.StatusBadRequest}, {good, http.StatusOK}, {bad, http.StatusBadRequest}} {
				results := s.ReadAll(t.Context(), want.paths)
				wantAll(t, "roles", results, want.status)
			}
			wantAsked(t, s, roles)
		})
	}
}

// A failing client delays neither other clients of its server nor the client with the same id at another server.
func TestFailingClientHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	s := newStage(t, shared(t), "neighbours")
	elsewhere := bed.Must(s.Bed.NewScriptedServer())(t)
	elsewhere.Set(elsewhere.Issue(5 * time.Minute))
	issue, limit := s.AS.Issue(5*time.Minute), bed.LimitFor(http.StatusTooManyRequests, 10*time.Minute)
	s.AS.Set(func(w http.ResponseWriter, r *http.Request) {
		if client, _, _ := r.BasicAuth(); client == "limited" {
			limit(w, r)
			return
		}
		issue(w, r)
	})
	for name, changes := range map[string]map[string]any{
		"limited":      {"client_id": "limited"},
		"same":         {"client_id": "limited"},
		"other-client": {"client_id": "other"},
		"other-server": {"client_id": "limited", "token_url": elsewhere.TokenURL()},
	} {
		bed.OK(t, s.Configure(t.Context(), name, changes))
	}
	for _, want := range []struct {
		name     string
		status   int
		requests int // for this read
	}{
		{"limited", http.StatusBadGateway, 1},
		{"same", http.StatusBadGateway, 0},
		{"other-client", http.StatusOK, 1},
		{"other-server", http.StatusOK, 0}, // from this server
	} {
		before := len(s.AS.Requests())
		r := s.Read(t.Context(), "token/"+want.name)
		if n := len(s.AS.Requests()) - before; r.Status != want.status || n != want.requests {
			t.Errorf("%s, for %d requests, want status %d for %d", r, n, want.status, want.requests)
		}
	}
}

var someTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// namedTime returns the time of the next attempt from an error.
func namedTime(r trouble.Result) (time.Time, error) {
	named := someTime.FindString(r.Text)
	if named == "" {
		return time.Time{}, fmt.Errorf("the error names no time: %s", r)
	}
	return time.Parse(time.RFC3339, named)
}

// A write that meets a limit fails with the time of the next attempt. Until then, writes of this client make no token
// request; writes of other clients do. Later a write succeeds.
func TestWriteThatMetALimitSaysWhenToTryAgain(t *testing.T) {
	t.Parallel()
	const limit = 8 * time.Second
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, shared(t), fmt.Sprintf("limited-writes-%d", status))
			s.AS.Set(s.AS.Issue(5 * time.Minute))
			bed.OK(t, s.Configure(t.Context(), "old", nil))
			wantAll(t, "a caller", []trouble.Result{s.Read(t.Context(), "token/old")}, http.StatusOK)
			issue, limited := s.AS.Issue(5*time.Minute), bed.LimitFor(status, limit)
			s.AS.Set(func(w http.ResponseWriter, r *http.Request) {
				if client, _, _ := r.BasicAuth(); client == "other" {
					issue(w, r)
					return
				}
				limited(w, r)
			})
			begun := time.Now()
			for i, w := range []struct {
				path string
				data map[string]any
			}{
				{"config/old", map[string]any{"scopes": "other"}},
				{"config/old", map[string]any{"scopes": "other"}},
				{"config/old", map[string]any{"scopes": "another"}},
				{"role/old/reader", map[string]any{"scopes": "some"}},
				{"config/new", s.Config(nil)},
			} {
				r := s.Write(t.Context(), w.path, w.data)
				if r.Status != http.StatusBadGateway {
					t.Errorf("write %d: %s, want 502", i+1, r)
				}
				if next, err := namedTime(r); err != nil {
					t.Errorf("write %d: %v", i+1, err)
				} else if wait := next.Sub(begun); wait < limit-time.Second || wait > limit+limit/2 {
					t.Errorf("write %d says to wait for %s, want the %s of Retry-After: %s", i+1, round(wait), limit, r)
				}
				wantAsked(t, s, 2)
			}
			wantAll(t, "a caller", []trouble.Result{s.Write(t.Context(), "config/else", s.Config(map[string]any{"client_id": "other"}))}, http.StatusNoContent)
			wantAll(t, "a caller", []trouble.Result{s.Read(t.Context(), "token/old")}, http.StatusOK)
			s.AS.Set(s.AS.Issue(5 * time.Minute))
			bed.Until(t, 2*limit, "a write goes through", func() bool {
				return s.Write(t.Context(), "config/old", map[string]any{"scopes": "other"}).Status == http.StatusNoContent
			})
			if took := time.Since(begun); took < limit {
				t.Errorf("a write succeeded after %s, want failures until the server's %s have passed", round(took), limit)
			}
		})
	}
}

// After an operator has repaired a refused client, a write ignores its window and ends it for all names.
func TestWriteOpensTheWindowOfARefusedClient(t *testing.T) {
	t.Parallel()
	s := newStage(t, shared(t), "corrected")
	s.AS.Set(bed.RefuseWith(http.StatusUnauthorized, "invalid_client", nil))
	paths := bed.Must(s.Roles(t.Context(), "some", 40, nil))(t)
	if other := trouble.Other(s.ReadAll(t.Context(), paths), http.StatusBadRequest); other != nil {
		t.Fatalf("a reader of a refused client: %s, want 400", other)
	}
	if n := len(s.AS.Requests()); n > underWay {
		t.Errorf("%d requests, want at most %d", n, underWay)
	}
	s.AS.Set(s.AS.Issue(5 * time.Minute))
	wantAll(t, "a caller", []trouble.Result{s.Write(t.Context(), "config/some", s.Config(nil))}, http.StatusNoContent)
	// On a busy machine, storing all tokens takes longer than a reader waits.
	for _, statuses := range [][]int{{http.StatusOK, http.StatusGatewayTimeout}, {http.StatusOK}} {
		results := s.ReadAll(t.Context(), paths)
		wantAll(t, "after the write readers", results, statuses...)
	}
}

// A server may announce the end of its limit without Retry-After.
func TestLimitWithoutRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	const limit = 90 * time.Second
	seconds := strconv.Itoa(int(limit / time.Second))
	epoch := func() string { return strconv.FormatInt(time.Now().Add(limit).Unix(), 10) }
	for name, headers := range map[string]func() map[string]string{
		"ratelimit-seconds":    func() map[string]string { return map[string]string{"RateLimit-Reset": seconds} },
		"ratelimit-epoch":      func() map[string]string { return map[string]string{"RateLimit-Reset": epoch()} },
		"x-rate-limit-epoch":   func() map[string]string { return map[string]string{"X-Rate-Limit-Reset": epoch()} },
		"x-rate-limit-seconds": func() map[string]string { return map[string]string{"X-Rate-Limit-Reset": seconds} },
		"retry-after-comes-first": func() map[string]string {
			return map[string]string{"Retry-After": seconds, "X-Rate-Limit-Reset": "1"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, shared(t), "reset-"+name)
			s.AS.Set(func(w http.ResponseWriter, r *http.Request) {
				bed.RefuseWith(http.StatusTooManyRequests, "slow_down", headers())(w, r)
			})
			for _, name := range []string{"one", "two"} {
				bed.OK(t, s.Configure(t.Context(), name, nil))
			}
			for _, name := range []string{"one", "one", "two"} {
				r := s.Read(t.Context(), "token/"+name)
				next, err := namedTime(r)
				if r.Status != http.StatusBadGateway || err != nil {
					t.Fatalf("%s, want 502 and the next attempt: %v", r, err)
				}
				if wait := next.Sub(r.Begun); wait < limit-5*time.Second || wait > limit+limit/2 {
					t.Errorf("the next attempt is in %s, want %s: %s", round(wait), limit, r)
				}
			}
			wantAsked(t, s, 1)
		})
	}
}
