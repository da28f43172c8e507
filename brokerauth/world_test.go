package brokerauth

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
)

// world is a Vault with the plugin's paths for one server, and the MCP server. They answer as the fields say. Both
// are reached without a network, so a test can run in a bubble of fake time.
type world struct {
	t *testing.T

	mu        sync.Mutex // guards the fields below once the world is in use
	number    int        // of Vault's current token
	issued    time.Time
	lifetime  time.Duration
	ttl       int           // seconds
	skew      time.Duration // of Vault's clock
	age       time.Duration // of the token when a read returns it
	latency   time.Duration // from a read's look at the token to its answer
	writing   time.Duration // the same for a refresh
	cooldown  time.Duration
	stuck     bool           // after a refresh, the token path still returns the old token
	lag       time.Duration  // how long it does
	older     bool           // instead of the old token, it returns one an hour older
	fetching  map[string]int // by method: the number of 504 answers to come, each after the plugin's wait
	status    map[string]int // by method: the status of an error answer
	body      string         // of the error answer
	lost      error          // returned instead of any answer
	calls     map[string]int // by method
	last      *http.Request  // to Vault
	refused   map[string]bool
	picky     bool     // the server refuses every token, except at /any
	presented []string // access tokens sent to the server, in order
	bodies    []string // of the server's requests
}

func newWorld(t *testing.T) *world {
	return &world{
		t:        t,
		number:   1,
		issued:   time.Now().Add(-time.Hour), // older than any cooldown
		lifetime: 5 * time.Minute,
		ttl:      200,
		status:   map[string]int{},
		fetching: map[string]int{},
		calls:    map[string]int{},
		refused:  map[string]bool{},
	}
}

// story runs a test in a bubble of fake time. Calls without a waiting caller may end by their own timeouts. If a
// goroutine is left after that, the bubble reports a deadlock.
func story(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		f(t, newWorld(t))
		time.Sleep(3 * callTimeout)
	})
}

// with changes the world.
func (w *world) with(change func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// client is a Vault client without retries, so that each call is one request.
func (w *world) client() *api.Client {
	config := api.DefaultConfig()
	config.Address, config.AgentAddress = "http://vault.test", ""
	config.MaxRetries = 0
	config.HttpClient.Transport = roundTripper(w.vault)
	client, err := api.NewClient(config)
	if err != nil {
		w.t.Fatal(err)
	}
	client.ClearNamespace()
	client.SetToken("vault-token")
	return client
}

// pluginWait is the plugin's limit for a caller's wait for an authorization server.
const pluginWait = 5 * time.Second

const tokenPath = "mcp-oauth/token/weather"

// source is a Source with its own client.
func (w *world) source() *Source {
	return w.newSource(Config{Vault: w.client(), TokenPath: tokenPath})
}

func (w *world) newSource(c Config) *Source {
	w.t.Helper()
	s, err := NewSource(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// vault is Vault's API as the client sees it.
func (w *world) vault(req *http.Request) (*http.Response, error) {
	var body struct {
		TokenID string `json:"token_id"`
	}
	if req.Body != nil {
		defer req.Body.Close()
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
			return nil, err
		}
	}
	answer, latency, err := w.answer(req, body.TokenID)
	select {
	case <-time.After(latency):
		return answer, err
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

// answer is Vault's answer to a request, after a delay.
func (w *world) answer(req *http.Request, id string) (*http.Response, time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[req.Method]++
	w.last = req
	recorder := httptest.NewRecorder()
	switch status := w.status[req.Method]; {
	case w.lost != nil:
		return nil, w.latency, w.lost
	case w.fetching[req.Method] > 0:
		w.fetching[req.Method]--
		recorder.WriteHeader(http.StatusGatewayTimeout)
		_, _ = recorder.WriteString(`{"errors":["the fetch goes on: read again"]}`)
		return result(recorder, req), pluginWait, nil
	case status != 0:
		if status == http.StatusTemporaryRedirect {
			recorder.Header().Set("Location", req.URL.String())
		}
		recorder.WriteHeader(status)
		_, _ = recorder.WriteString(w.body)
	case req.Method == http.MethodGet && req.URL.Path == "/v1/"+tokenPath:
		w.reply(recorder, w.token())
	case req.Method == http.MethodPut && req.URL.Path == "/v1/mcp-oauth/refresh/weather":
		w.reply(recorder, w.refresh(id))
		return result(recorder, req), w.writing, nil
	default:
		recorder.WriteHeader(http.StatusNotFound)
		_, _ = recorder.WriteString(`{"errors":[]}`)
	}
	return result(recorder, req), w.latency, nil
}

func (w *world) reply(to io.Writer, data map[string]any) {
	if err := json.NewEncoder(to).Encode(map[string]any{"data": data}); err != nil {
		w.t.Error(err)
	}
}

// token is the data of the token path. w.mu is held.
func (w *world) token() map[string]any {
	value, obtained := access(w.number), time.Now().Add(w.skew-w.age)
	switch lags := w.number > 1 && time.Since(w.issued) < w.lag; {
	case w.stuck:
		value = access(1)
	case lags && w.older:
		value, obtained = access(w.number-2), obtained.Add(-time.Hour)
	case lags:
		value = access(w.number - 1)
	}
	return map[string]any{
		"access_token":        value,
		"token_type":          "Bearer",
		"authorization":       "Bearer " + value,
		"expires_at":          time.Now().Add(w.skew + w.lifetime - w.age).UTC().Format(time.RFC3339),
		"scope":               "tools:list",
		"ttl":                 w.ttl,
		"rotation_period":     w.ttl,
		"last_vault_rotation": obtained.UTC().Format(time.RFC3339),
		"token_id":            tokenID(value),
	}
}

// refresh acts as the refresh path. w.mu is held.
func (w *world) refresh(id string) map[string]any {
	refreshed := id == tokenID(access(w.number)) && time.Since(w.issued) >= w.cooldown
	if refreshed {
		w.number++
		w.issued = time.Now()
	}
	return map[string]any{"token_id": tokenID(access(w.number)), "refreshed": refreshed}
}

// access is the n-th access token.
func access(n int) string { return fmt.Sprintf("secret-%d", n) }

// serve is the MCP server. It echoes the request's body, or answers 401 if it refuses the token. The path /moved
// redirects to another host, which returns the Authorization header that it received.
func (w *world) serve(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body.Close()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	recorder := httptest.NewRecorder()
	if req.URL.Host != "mcp.test" {
		_, _ = recorder.WriteString(req.Header.Get("Authorization"))
		return result(recorder, req), nil
	}
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	w.presented = append(w.presented, token)
	w.bodies = append(w.bodies, string(body))
	switch {
	case w.refused[token] || (w.picky && req.URL.Path != "/any"):
		recorder.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		recorder.WriteHeader(http.StatusUnauthorized)
		_, _ = recorder.WriteString("refused")
	case req.URL.Path == "/moved":
		http.Redirect(recorder, req, "https://elsewhere.test/", http.StatusTemporaryRedirect)
	default:
		_, _ = recorder.Write(body)
	}
	return result(recorder, req), nil
}

func result(recorder *httptest.ResponseRecorder, req *http.Request) *http.Response {
	response := recorder.Result()
	response.Request = req
	return response
}

// called returns the number of calls to Vault with the method.
func (w *world) called(method string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[method]
}

// lastRequest returns the last request to Vault.
func (w *world) lastRequest() *http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// wantCalls checks the numbers of reads and refreshes that Vault has received.
func (w *world) wantCalls(reads, refreshes int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls[http.MethodGet] != reads || w.calls[http.MethodPut] != refreshes {
		w.t.Errorf("%d reads and %d refreshes, want %d and %d",
			w.calls[http.MethodGet], w.calls[http.MethodPut], reads, refreshes)
	}
}

// wantToken checks that the source returns the n-th token without waiting.
func (w *world) wantToken(s *Source, n int) {
	w.t.Helper()
	before := time.Now()
	token, err := s.Token()
	if err != nil {
		w.t.Error(err)
		return
	}
	if token.AccessToken != access(n) {
		w.t.Errorf("got token %s, want %s", token.AccessToken, access(n))
	}
	if waited := time.Since(before); waited != 0 {
		w.t.Errorf("the caller waited %s", waited)
	}
}

// hold makes the source hold the current token.
func (w *world) hold(s *Source) {
	w.t.Helper()
	if _, err := s.Token(); err != nil {
		w.t.Error(err)
	}
}

// holding runs a story with a source that holds a token.
func holding(t *testing.T, f func(t *testing.T, w *world, s *Source)) {
	story(t, func(t *testing.T, w *world) {
		s := w.source()
		w.hold(s)
		f(t, w, s)
	})
}

// replace replaces a token, which must succeed.
func (w *world) replace(s *Source, rejected string) {
	w.t.Helper()
	if err := s.Replace(w.t.Context(), rejected); err != nil {
		w.t.Error(err)
	}
}

// parallel runs n functions at once and waits for them.
func parallel(n int, f func()) {
	var all sync.WaitGroup
	for range n {
		all.Go(f)
	}
	all.Wait()
}

// roundTripper turns a function into an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// pass lets time pass in a story.
func pass(d time.Duration) { time.Sleep(d) }
