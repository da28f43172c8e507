package acceptance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/brokerauth"
)

// A reader and a caller of refresh/ wait for at most 5 s, and a write that contacts servers for at most 15 s. Sealing
// or stepping down takes at most a second longer.
const (
	readerBound = 6 * time.Second
	writeBound  = 16 * time.Second
	// waitBound includes a second to start many readers.
	waitBound = 7 * time.Second
	// promptly is shorter than any wait for a hanging server.
	promptly = 3 * time.Second
)

func newStage(t *testing.T, b *bed.Bed, mount string) *trouble.Stage {
	t.Helper()
	s := bed.Must(trouble.NewStage(t.Context(), b, mount))(t)
	return s
}

// A Vault that seals or steps down waits for the requests under way; OpenBao cancels them when it seals. A token
// endpoint that never answers delays the event, and reads of KV, only as long as a reader waits, or a write if one is
// under way. Readers get the end of their wait as an error.
//
// The test is not parallel: the bounds leave no time for the load of other tests.
func TestWaitingReadersHoldUpNeitherSealNorStepDown(t *testing.T) {
	b := bed.New(t, bed.Options{Nodes: 3})
	s := newStage(t, b, "hanging")
	bed.OK(t, trouble.MountKV(t.Context(), s.Root))
	for _, c := range []struct {
		name  string
		hang  trouble.Hang
		bound time.Duration
	}{
		{"seal", trouble.Hang{Event: trouble.Seal, Readers: 100}, readerBound},
		{"step-down", trouble.Hang{Event: trouble.StepDown, Readers: 100, Clients: true}, readerBound},
		{"step-down-and-write", trouble.Hang{Event: trouble.StepDown, Readers: 100, Write: true}, writeBound},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := bed.Must(c.hang.Run(t.Context(), b, s, c.name))(t)
			t.Logf("%s took %s, KV was back %s later; the slowest reads took %s and %s of KV; %v", c.hang.Event,
				round(r.Took), round(r.Back), round(trouble.Slowest(r.Reads)), round(r.KV), trouble.Statuses(r.Reads))
			if r.Took > c.bound {
				t.Errorf("%s took %s, want at most %s", c.hang.Event, round(r.Took), c.bound)
			}
			if r.KV > c.bound {
				t.Errorf("a read of KV took %s, want at most %s", round(r.KV), c.bound)
			}
			if c.hang.Event == trouble.Seal && b.Vault.Product == bed.OpenBao {
				// OpenBao cancels the requests under way, so they end earlier.
				if good := trouble.Other(r.Reads, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusGatewayTimeout); good != nil {
					t.Errorf("a read was answered with %s", good)
				}
				return
			}
			checkEndOfWait(t, r.Reads)
			if w := r.Wrote; w != nil && (w.Took > writeBound || w.Status != http.StatusGatewayTimeout && w.Status != http.StatusBadGateway) {
				t.Errorf("the write: %s, want 504 or 502 within %s", w, writeBound)
			}
		})
	}
}

// wantAsked fails the test unless the stage's server has received n requests.
func wantAsked(t *testing.T, s *trouble.Stage, n int) {
	t.Helper()
	if got := len(s.AS.Requests()); got != n {
		t.Errorf("%d token requests, want %d", got, n)
	}
}

// wantAll fails the test unless each request was answered with one of the statuses.
func wantAll(t *testing.T, who string, results []trouble.Result, statuses ...int) {
	t.Helper()
	if other := trouble.Other(results, statuses...); other != nil {
		t.Errorf("%s: answered with %v, want %v; one is %s", who, trouble.Statuses(results), statuses, other)
	}
}

// checkEndOfWait checks that each request got a 504 in time, with advice.
func checkEndOfWait(t *testing.T, results []trouble.Result) {
	t.Helper()
	if slowest := trouble.Slowest(results); slowest > waitBound {
		t.Errorf("the slowest of %d requests took %s, want at most %s", len(results), round(slowest), waitBound)
	}
	other := trouble.Other(results, http.StatusGatewayTimeout)
	if other != nil {
		t.Fatalf("answered with %v, want 504 to all; one is %s", trouble.Statuses(results), other)
	}
	for _, r := range results {
		if !saysThatTheFetchGoesOn.MatchString(r.Text) || !saysToReadAgain.MatchString(r.Text) {
			t.Fatalf("the 504 does not say that the fetch goes on, and to read again: %s", r)
		}
	}
}

var (
	saysThatTheFetchGoesOn = regexp.MustCompile(`(?i)goes on|continues|still under way`)
	saysToReadAgain        = regexp.MustCompile(`(?i)(read|reading|try|retry|trying) (it |the token )?again`)
)

// The authorization server answers after 7 s, which is longer than a reader waits and shorter than request_timeout.
// Readers get a 504, and the fetch goes on. Its token serves the next reads, for one request. A broker in Go calls
// once.
func TestLateAnswerServesTheReaderWhoReadsAgain(t *testing.T) {
	t.Parallel()
	const late = 7 * time.Second
	s := newStage(t, shared(t), "late")
	s.AS.Set(bed.After(late, s.AS.Issue(5*time.Minute)))
	for _, name := range []string{"read", "broker"} {
		bed.OK(t, s.Configure(t.Context(), name, map[string]any{"client_id": name, "request_timeout": 10}))
	}
	source := bed.Must(brokerauth.NewSource(brokerauth.Config{Vault: s.Root, TokenPath: s.Mount + "/token/broker"}))(t)
	brokered := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := source.TokenContext(ctx)
		brokered <- err
	}()

	const readers = 20
	checkEndOfWait(t, s.ReadAll(t.Context(), slices.Repeat([]string{"token/read"}, readers)))
	again := s.Read(t.Context(), "token/read")
	if again.Status != http.StatusOK || again.Took > waitBound {
		t.Errorf("reading again: %s, want the token", again)
	}
	if err := <-brokered; err != nil {
		t.Errorf("the broker's call: %v", err)
	}
	requests := map[string]int{}
	for _, r := range s.AS.Requests() {
		requests[r.ClientID]++
	}
	if requests["read"] != 1 || requests["broker"] != 1 {
		t.Errorf("token requests by client: %v, want 1 of each", requests)
	}
}

// Callers of refresh/ wait no longer than readers. Meanwhile readers get the held token, and the refresh goes on.
func TestRefreshCallersWaitNoLongerThanReaders(t *testing.T) {
	t.Parallel()
	const callers = 30
	s := newStage(t, shared(t), "refresh-callers")
	s.AS.Set(s.AS.Issue(5 * time.Minute))
	bed.OK(t, s.Configure(t.Context(), "held", map[string]any{"request_timeout": 25}))
	held := s.Read(t.Context(), "token/held")
	// A younger token is not replaced.
	waitForAge(t, held.Ended(), cooldown)
	s.AS.Set(bed.Hang)

	results := make([]trouble.Result, callers)
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() { results[i] = s.Write(t.Context(), "refresh/held", nil) })
	}
	bed.Until(t, readerBound, "one token request is under way", func() bool { return s.AS.Open() == 1 })
	for range 20 {
		if r := s.Read(t.Context(), "token/held"); r.Status != http.StatusOK || r.Data["token_id"] != held.Data["token_id"] {
			t.Errorf("a read during the refresh: %s, want the held token", r)
		}
	}
	group.Wait()
	checkEndOfWait(t, results)
	wantAsked(t, s, 2)
}

// A write that contacts hanging servers ends within 15 s with an upstream error. It blocks nothing else on the mount.
func TestWritesThatContactHangingServersEnd(t *testing.T) {
	t.Parallel()
	s := newStage(t, shared(t), "hanging-writes")
	s.AS.Set(s.AS.Issue(5 * time.Minute))
	for _, name := range []string{"held", "calm"} {
		bed.OK(t, s.Configure(t.Context(), name, map[string]any{"client_id": name, "publish_jwks": false}))
		wantAll(t, "a caller", []trouble.Result{s.Read(t.Context(), "token/"+name)}, http.StatusOK)
	}
	discovering := func(server *bed.ScriptedServer) map[string]any {
		return map[string]any{
			"server_url": server.URL("/mcp"), "client_id": "discovering", "client_secret": newSecret(), "request_timeout": 25,
		}
	}
	hanging := bed.Must(s.Bed.NewScriptedServer())(t)
	hanging.Set(bed.Hang)
	slow := bed.Must(s.Bed.NewScriptedServer())(t)
	slow.Set(bed.After(4*time.Second, discoverable(slow, bed.Hang)))
	quick := bed.Must(s.Bed.NewScriptedServer())(t)
	quick.Set(discoverable(quick, bed.Hang))
	s.AS.Set(bed.Hang)

	writes := map[string]struct {
		path string
		data map[string]any
	}{
		"a token endpoint that hangs":                {"config/new", s.Config(map[string]any{"client_id": "new", "request_timeout": 25})},
		"with the default settings":                  {"config/plain", s.Config(map[string]any{"client_id": "plain"})},
		"an update":                                  {"config/held", map[string]any{"scopes": "other", "request_timeout": 25}},
		"a role":                                     {"role/held/reader", map[string]any{"scopes": "some"}},
		"an MCP server that hangs":                   {"config/mcp", discovering(hanging)},
		"an issuer that hangs":                       {"config/issuer", map[string]any{"issuer": hanging.URL("/"), "client_id": "issuer", "client_secret": newSecret(), "request_timeout": 25}},
		"slow servers, a token endpoint that hangs":  {"config/slow", discovering(slow)},
		"quick servers, a token endpoint that hangs": {"config/quick", discovering(quick)},
		"an issuer and an MCP server that hang":      {"config/both", map[string]any{"issuer": hanging.URL("/as"), "server_url": hanging.URL("/mcp"), "client_id": "both", "client_secret": newSecret(), "request_timeout": 25}},
	}
	var group sync.WaitGroup
	for name, w := range writes {
		group.Go(func() {
			r := s.Write(t.Context(), w.path, w.data)
			if slack := waitBound - readerBound; r.Took > writeBound+slack {
				t.Errorf("%s: a write took %s, want at most %s", name, round(r.Took), writeBound+slack)
			}
			// This config is deleted during the write.
			gone := strings.HasSuffix(w.path, "/held") || strings.HasPrefix(w.path, "role/")
			switch {
			case r.Status == http.StatusGatewayTimeout, r.Status == http.StatusBadGateway:
			case gone && (r.Status == http.StatusConflict || r.Status == http.StatusNotFound):
			default:
				t.Errorf("%s: %s, want 504 or 502", name, r)
			}
		})
	}
	// Other servers are served during the writes.
	bed.Until(t, readerBound, "three token requests are under way", func() bool { return s.AS.Open() >= 3 })
	for path, want := range map[string]int{
		"token/held": http.StatusOK, "token/calm": http.StatusOK, "config/held": http.StatusOK, "status/held": http.StatusOK,
		"jwks/held": http.StatusNotFound, "jwks/nowhere": http.StatusNotFound, "keys/held": 0, "token/nowhere": http.StatusNotFound,
	} {
		r := s.Read(t.Context(), path)
		if r.Took > promptly {
			t.Errorf("while writes wait, reading %s took %s", path, round(r.Took))
		}
		if want != 0 && r.Status != want {
			t.Errorf("while writes wait: %s, want %d", r, want)
		}
	}
	// A delete does not wait for an update of the same config. The update then fails.
	if r := s.Delete(t.Context(), "config/calm"); r.Status != http.StatusNoContent || r.Took > promptly {
		t.Errorf("deleting another config: %s", r)
	}
	if r := s.Delete(t.Context(), "config/held"); r.Status != http.StatusNoContent || r.Took > promptly {
		t.Errorf("deleting the config whose update waits: %s", r)
	}
	group.Wait()
}

// Deletes, writes and rotations do not wait for readers of a hanging server.
func TestOperatorDoesNotWaitForReadersOfAHangingServer(t *testing.T) {
	t.Parallel()
	const readers = 40
	s := newStage(t, shared(t), "hanging-operator")
	paths := bed.Must(s.Roles(t.Context(), "hung", readers, nil))(t)
	s.AS.Set(bed.Hang)
	results := make(chan []trouble.Result, 1)
	go func() { results <- s.ReadAll(t.Context(), paths) }()
	bed.Eventually(t, readerBound, func() error {
		n, err := trouble.UnderWay(t.Context(), s.Root, s.Mount)
		if err == nil && n != readers {
			err = fmt.Errorf("%d readers are under way, want %d", n, readers)
		}
		return err
	})
	for _, r := range []trouble.Result{
		s.Write(t.Context(), "config/hung", map[string]any{"client_secret": newSecret(), "verify": false}),
		s.Write(t.Context(), "role/hung/role-0", map[string]any{"scopes": "other", "verify": false}),
		s.Delete(t.Context(), "role/hung/role-1"),
		s.Delete(t.Context(), "config/hung"),
	} {
		if r.Status != http.StatusNoContent && r.Status != http.StatusOK || r.Took > promptly {
			t.Errorf("while %d readers wait: %s, want success within %s", readers, r, promptly)
		}
	}
	// Either the config has been deleted, or the wait has ended.
	all := <-results
	wantAll(t, "readers of a config that was deleted", all, http.StatusNotFound, http.StatusGatewayTimeout)
	if slowest := trouble.Slowest(all); slowest > waitBound {
		t.Errorf("the slowest reader waited %s", round(slowest))
	}
}

// discoverable acts as an MCP server at /mcp and as its authorization server, with this token endpoint.
func discoverable(server *bed.ScriptedServer, token http.HandlerFunc) http.HandlerFunc {
	answer := func(document map[string]any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(document)
		}
	}
	const metadata = "/.well-known/oauth-protected-resource/mcp"
	mux := http.NewServeMux()
	mux.HandleFunc("/mcp", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="`+server.URL(metadata)+`"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	mux.HandleFunc(metadata, answer(map[string]any{
		"resource": server.URL("/mcp"), "authorization_servers": []string{server.URL("")},
	}))
	mux.HandleFunc("/.well-known/oauth-authorization-server", answer(map[string]any{
		"issuer": server.URL(""), "token_endpoint": server.URL("/token"), "response_types_supported": []string{"code"},
	}))
	mux.HandleFunc("/token", token)
	return mux.ServeHTTP
}
