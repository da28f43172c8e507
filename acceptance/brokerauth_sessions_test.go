package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/brokerauth"
)

// This checks brokerauth's README on calls that an MCP server refuses. With the handler, the call fails with a
// reason, and the session goes on. Without the handler, the session ends, unless the refusal is a JSON-RPC error.
// Then a new session works.
func TestRefusedCallEndsASessionAsTheREADMESays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuse refusal
		young  bool             // the refused token is too young to be replaced
		why    func(error) bool // with the handler
		goesOn bool             // without the handler
	}{
		"401 to a token that is too young to be replaced": {young: true, why: notReplaced},
		"401 to the token and to the next one": {
			refuse: refusal{status: http.StatusUnauthorized, body: "refused"},
			why:    notReplaced,
		},
		"401 to both, with a JSON-RPC error": {
			refuse: refusal{status: http.StatusUnauthorized, body: `{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"refused"}}`},
			why:    notReplaced,
			goesOn: true,
		},
		"403": {
			refuse: refusal{status: http.StatusForbidden, body: "refused"},
			why:    func(err error) bool { return strings.Contains(err.Error(), "would have the same scopes") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newConfigured(t, shared(t), "", 5*time.Minute)
			client := u.compareAndRefresh(t)
			if c.young {
				bed.Until(t, time.Minute, "a refreshed token", func() bool {
					return u.write(t, "refresh/"+u.name, nil).Data["refreshed"] == true
				})
			}
			before := len(u.requests(t))
			refuse := &refusing{refusal: c.refuse}
			withHandler := authorized(t, u.source(t, client), u.mcp.URL, refuse)
			without := authorized(t, u.source(t, client), u.mcp.URL, refuse)
			without.OAuthHandler = nil
			goesOn, ends := connect(t, withHandler), connect(t, without)

			if c.young {
				u.mcp.Refuse(claims(u.token(t, "token/"+u.name).AccessToken).ID)
			} else {
				refuse.on.Store(true)
			}
			if err := forecast(t.Context(), goesOn); err == nil || !c.why(err) {
				t.Errorf("with the handler: %v, want the reason of the refusal", err)
			}
			bed.WantError(t, forecast(t.Context(), ends), http.StatusText(max(c.refuse.status, http.StatusUnauthorized)))
			refuse.on.Store(false)
			bed.Eventually(t, time.Minute, func() error { return forecast(t.Context(), goesOn) })
			if err := forecast(t.Context(), ends); (err == nil) != c.goesOn {
				t.Errorf("without the handler, the next call: %v; want the session to go on: %t", err, c.goesOn)
			}
			bed.OK(t, forecast(t.Context(), connect(t, without))) // a new session
			// All refused calls together cause at most one token request.
			if n := len(u.requests(t)) - before; n > 1 {
				t.Errorf("%d token requests, want at most one", n)
			}
		})
	}
}

func notReplaced(err error) bool { return errors.Is(err, brokerauth.ErrNotReplaced) }

// A refusal is an answer of refusing.
type refusal struct {
	status int
	body   string
}

// refusing refuses each request while it is switched on.
type refusing struct {
	refusal
	on atomic.Bool
}

func (r *refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	if !r.on.Load() {
		return http.DefaultTransport.RoundTrip(req)
	}
	if req.Body != nil {
		req.Body.Close()
	}
	return &http.Response{
		StatusCode: r.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(r.body)), Request: req,
	}, nil
}

// A balancer breaks the stream of messages, and the SDK reopens it without asking its handler. If the token has been
// revoked, it is still replaced, once, and the session goes on.
func TestMCPSessionGoesOnWhenItsStreamIsCutAndTheTokenRevoked(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	obtained := time.Now()
	b := newBalancer(t, u.mcp.URL)
	session := connect(t, authorized(t, u.source(t, u.compareAndRefresh(t)), b.URL, nil))
	b.waitForStreams(t, 1)
	waitForAge(t, obtained, cooldown)

	u.mcp.Refuse(claims(u.token(t, "token/"+u.name).AccessToken).ID)
	b.cutStream()
	b.waitForStreams(t, 3)
	if got, want := b.streams(), []int{http.StatusOK, http.StatusUnauthorized, http.StatusOK}; !slices.Equal(got, want) {
		t.Errorf("the GETs were answered with %v, want %v", got, want)
	}
	bed.OK(t, forecast(t.Context(), session))
	u.wantRequests(t, 2)
}

// This checks the README on a refused stream. If it is refused at first, the session goes on without it. If it breaks
// and cannot be reopened, the session ends.
func TestRefusedStreamEndsASessionAsTheREADMESays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status   int64
		cut      bool // the stream breaks, and reopening it is refused
		disabled bool
	}{
		"401 at first":                {status: http.StatusUnauthorized},
		"403 at first":                {status: http.StatusForbidden},
		"401 when it is opened again": {status: http.StatusUnauthorized, cut: true},
		"403 when it is opened again": {status: http.StatusForbidden, cut: true},
		"disabled":                    {status: http.StatusUnauthorized, disabled: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newConfigured(t, shared(t), "", 5*time.Minute)
			b := newBalancer(t, u.mcp.URL)
			transport := authorized(t, u.source(t, u.compareAndRefresh(t)), b.URL, nil)
			transport.DisableStandaloneSSE = c.disabled
			if !c.cut {
				b.refuse.Store(c.status)
			}
			session := connect(t, transport)
			if c.cut {
				b.waitForStreams(t, 1)
				b.refuse.Store(c.status)
				b.cutStream()
				bed.WantError(t, session.Wait(), http.StatusText(int(c.status)))
			}
			if err := forecast(t.Context(), session); (err != nil) != c.cut {
				t.Errorf("%v; want the session to have ended: %t", err, c.cut)
			}
			if n := len(b.streams()); (n == 0) != c.disabled {
				t.Errorf("%d requests for a stream", n)
			}
			b.refuse.Store(0)
			bed.OK(t, forecast(t.Context(), connect(t, transport))) // a new session
		})
	}
}

// A stream that breaks while no token is available is not reopened. The session ends after the SDK's retries.
func TestStreamThatFindsNoTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 15*time.Second)
	b := newBalancer(t, u.mcp.URL)
	client := u.compareAndRefresh(t)
	vault := newHanging(t, client.Address())
	bed.OK(t, client.SetAddress(vault.URL))
	source := u.source(t, client)
	transport := authorized(t, source, b.URL, nil)
	transport.MaxRetries = 1
	session := connect(t, transport)
	b.waitForStreams(t, 1)
	vault.Close()
	waitForEnd(t, source)

	b.cutStream()
	bed.WantError(t, session.Wait(), "brokerauth: read "+bed.Mount+"/token/"+u.name)
	if n := len(b.streams()); n != 1 {
		t.Errorf("%d requests for a stream, want one, as there is no token for a second", n)
	}
}

// waitForEnd waits until the source's token has expired. It calls Vault only if a read is due.
func waitForEnd(t *testing.T, source *brokerauth.Source) {
	t.Helper()
	held := bed.Must(source.Token())(t)
	bed.Until(t, time.Minute, "the token's end", func() bool { return !time.Now().Before(held.Expiry) })
}

// A balancer is a proxy in front of an MCP server. It can break the stream of messages, and refuse to open it.
type balancer struct {
	URL    string
	refuse atomic.Int64 // status of the refusal; 0: does not refuse

	mu       sync.Mutex // guards the fields below
	cut      context.CancelFunc
	statuses []int // of the answers to the GETs that open the stream
}

func newBalancer(t *testing.T, serverURL string) *balancer {
	t.Helper()
	to := bed.Must(url.Parse(serverURL))(t)
	b := &balancer{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL, r.Out.Host = to, "" },
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Method == http.MethodGet {
				b.note(r.StatusCode)
			}
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			proxy.ServeHTTP(w, r)
			return
		}
		if status := int(b.refuse.Load()); status != 0 {
			b.note(status)
			w.WriteHeader(status)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		b.mu.Lock()
		b.cut = cancel
		b.mu.Unlock()
		proxy.ServeHTTP(w, r.WithContext(ctx))
	}))
	t.Cleanup(server.Close)
	b.URL = server.URL
	return b
}

func (b *balancer) note(status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.statuses = append(b.statuses, status)
}

func (b *balancer) cutStream() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut()
}

func (b *balancer) streams() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.statuses)
}

func (b *balancer) waitForStreams(t *testing.T, n int) {
	t.Helper()
	bed.Until(t, time.Minute, fmt.Sprint("answers to GETs: ", n), func() bool { return len(b.streams()) >= n })
}

// A caller who cancels while Vault hangs does not wait: during Connect without a token, after the last token has
// expired, or while a refused token is being replaced. The session goes on.
func TestCallerWhoGivesUpOnVaultKeepsTheSession(t *testing.T) {
	t.Parallel()
	// The token is not due here, because a read of a due token would be shared.
	u := newConfigured(t, shared(t), "", 40*time.Second)
	client := u.compareAndRefresh(t)
	vault := newHanging(t, client.Address())
	bed.OK(t, client.SetAddress(vault.URL))
	source := u.source(t, client)
	transport := authorized(t, source, u.mcp.URL, nil)

	// givingUp calls do, and cancels its context when Vault has the request.
	givingUp := func(name string, do func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		defer vault.hang(cancel)()
		err := do(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the error of the caller's context", name, err)
		}
		if vault.waiting.Load() == 0 {
			t.Errorf("%s: no request to Vault is under way, want the caller's to go on", name)
		}
	}
	givingUp("without a token", func(ctx context.Context) error {
		_, err := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil).Connect(ctx, transport, nil)
		return err
	})
	session := connect(t, transport)
	release := vault.hang(func() {})
	waitForEnd(t, source)
	release()
	givingUp("with an expired token", func(ctx context.Context) error { return forecast(ctx, session) })
	bed.Eventually(t, time.Minute, func() error { return forecast(t.Context(), session) })
	held := bed.Must(source.Token())(t)
	u.mcp.Refuse(claims(held.AccessToken).ID)
	givingUp("with a refused token", func(ctx context.Context) error { return forecast(ctx, session) })
	bed.Eventually(t, time.Minute, func() error { return forecast(t.Context(), session) })
}

// hanging is a proxy in front of Vault that can make requests wait.
type hanging struct {
	*httptest.Server
	waiting atomic.Int64 // number of waiting requests

	mu       sync.Mutex    // guards the fields below
	released chan struct{} // nil while it does not hang
	asked    func()        // called for each waiting request
}

func newHanging(t *testing.T, address string) *hanging {
	t.Helper()
	to := bed.Must(url.Parse(address))(t)
	h := &hanging{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		released, asked := h.released, h.asked
		h.mu.Unlock()
		if released != nil {
			h.waiting.Add(1)
			asked()
			select {
			case <-released:
			case <-r.Context().Done():
			}
			h.waiting.Add(-1)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

// hang makes requests wait until release is called.
func (h *hanging) hang(asked func()) (release func()) {
	released := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released, h.asked = released, asked
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.released = nil
		close(released)
	}
}

// A redirect to another port of the same host gets no token. Go would forward a header that the SDK sets.
func TestRedirectTakesNoTokenElsewhere(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	var asked, authorizedToo, redirected atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "" {
			authorizedToo.Add(1)
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			redirected.Add(1)
		}
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
	session, err := client.Connect(t.Context(), authorized(t, u.source(t, u.compareAndRefresh(t)), server.URL, nil), nil)
	if err == nil {
		_ = session.Close()
		t.Error("connected to a server that is not an MCP server")
	}
	if redirected.Load() == 0 || asked.Load() == 0 || authorizedToo.Load() > 0 {
		t.Errorf("%d requests with a token were redirected; of %d redirected requests, %d had a token",
			redirected.Load(), asked.Load(), authorizedToo.Load())
	}
	u.wantRequests(t, 1)
}
