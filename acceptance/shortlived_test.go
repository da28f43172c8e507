package acceptance

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
)

// Tokens with a lifetime below 10 s are fetched only for reads: 300 tokens of a second, read once, cause one or two
// requests each and no storage write.
func TestTokensTooShortToRefreshAheadCostNothingUnread(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{})
	s := newStage(t, b, "short-lived")
	r := bed.Must(trouble.ShortLived{Names: 300, Lifetime: time.Second, Calm: 10 * time.Second}.Run(t.Context(), s))(t)
	t.Logf("%d names: %d requests and %d storage writes for their reads; %d requests, %d storage writes in the next %s (%d in as long a time before); %d stored",
		r.Names, r.Asked, r.Writes, r.CalmAsked, r.CalmWrites, r.Calm, r.IdleWrites, r.Stored)
	// A token of a second may have expired on arrival, because lifetimes count from the whole second of the request.
	if served := trouble.Statuses(r.Reads)[http.StatusOK]; served < r.Names*9/10 {
		t.Errorf("the reads were answered with %v; one is %s", trouble.Statuses(r.Reads), trouble.Other(r.Reads, http.StatusOK))
	}
	if r.Asked > 2*r.Names {
		t.Errorf("%d requests for %d names read once, want one each, or two if a token expired in transit", r.Asked, r.Names)
	}
	if r.CalmAsked != 0 {
		t.Errorf("%d requests without a reader, want none", r.CalmAsked)
	}
	// Vault itself makes some storage writes.
	const vaults = 5
	if r.Writes > r.IdleWrites+vaults || r.CalmWrites > r.IdleWrites+vaults {
		t.Errorf("%d storage writes while the names were read, %d in the calm afterwards, want only Vault's own", r.Writes, r.CalmWrites)
	}
	if r.Stored != 0 {
		t.Errorf("%d tokens are stored, want none", r.Stored)
	}
	if warning := strings.Join(r.Warned, "; "); !strings.Contains(warning, "lifetime") && !strings.Contains(warning, "expires") {
		t.Errorf("the config write warns %q, want a warning that tokens are too short-lived to be refreshed ahead", warning)
	}
}

// A token with a lifetime below 10 s is not fetched ahead. Readers share one request, and get the held token while it
// is valid. A longer token is fetched ahead.
func TestShortLivedTokensAreFetchedOnDemand(t *testing.T) {
	t.Parallel()
	s := newStage(t, shared(t), "on-demand")
	for _, c := range []struct {
		name     string
		answer   http.HandlerFunc
		changes  map[string]any
		lifetime time.Duration
		ahead    bool
	}{
		{"expires-in", s.AS.Issue(5 * time.Second), nil, 5 * time.Second, false},
		{"expires-in-just-below", s.AS.Issue(9 * time.Second), nil, 9 * time.Second, false},
		{"max-ttl", s.AS.Issue(time.Hour), map[string]any{"max_ttl": 5}, 5 * time.Second, false},
		{"default-ttl", withoutLifetime(s), map[string]any{"default_ttl": 5}, 5 * time.Second, false},
		{"long-enough", s.AS.Issue(12 * time.Second), nil, 12 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, s.Bed, "on-demand-"+c.name)
			s.AS.Set(c.answer)
			bed.OK(t, s.Configure(t.Context(), "some", c.changes))
			results := s.ReadAll(t.Context(), slices.Repeat([]string{"token/some"}, 40))
			results = append(results, s.Read(t.Context(), "token/some"))
			if other := trouble.Other(results, http.StatusOK); other != nil {
				t.Fatal(other)
			}
			wantAsked(t, s, 1)
			bed.Eventually(t, 2*c.lifetime, func() error {
				if ended := s.Read(t.Context(), "status/some"); ended.Data["token_id"] != nil && !c.ahead {
					return fmt.Errorf("a token is held: %v", ended.Data["expires_at"])
				}
				if n := len(s.AS.Requests()); c.ahead && n < 2 {
					return errNotRefreshed
				}
				return nil
			})
			if n := len(s.AS.Requests()); !c.ahead && n != 1 {
				t.Errorf("%d requests, want only requests for readers", n-1)
			}
			asked := len(s.AS.Requests())
			wantAll(t, "a caller", []trouble.Result{s.Read(t.Context(), "token/some")}, http.StatusOK)
			if n := len(s.AS.Requests()); !c.ahead && n != asked+1 {
				t.Errorf("%d requests for a read without a valid token, want 1", n-asked)
			}
		})
	}
}

// withoutLifetime answers with a token that has no lifetime.
func withoutLifetime(s *trouble.Stage) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s.AS.AnswerToken(w, rand.Text(), nil)
	}
}
