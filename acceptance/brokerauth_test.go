package acceptance

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/brokerauth"
)

// Package brokerauth does not import the MCP Go SDK, and fits it nevertheless.
var _ auth.OAuthHandler = (*brokerauth.Source)(nil)

// An MCP client of the Go SDK: its OAuth handler is a Source as it is. No redirect takes the token to another
// origin. The SDK passes no deadline on to its handler, so the token is asked for before.
func Example_mcpClient() {
	vault, err := api.NewClient(nil) // VAULT_ADDR, and VAULT_TOKEN where it is no Agent's or Proxy's
	if err != nil {
		log.Fatal(err)
	}
	source, err := brokerauth.NewSource(brokerauth.Config{Vault: vault, TokenPath: "mcp-oauth/token/weather"})
	if err != nil {
		log.Fatal(err)
	}
	transport := &mcp.StreamableClientTransport{
		Endpoint:     "https://mcp.example.com/mcp",
		OAuthHandler: source,
		HTTPClient:   &http.Client{CheckRedirect: sameOrigin},
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := source.TokenContext(ctx); err != nil {
		log.Print("no token: ", err)
		return
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
	session, err := client.Connect(ctx, transport, nil)
	if err != nil {
		log.Print(err)
		return
	}
	defer session.Close()
	log.Print("connected to ", session.InitializeResult().ServerInfo.Name)
}

// sameOrigin is the CheckRedirect of an HTTP client whose requests have a token.
func sameOrigin(req *http.Request, via []*http.Request) error {
	if at := via[0].URL; req.URL.Scheme != at.Scheme || req.URL.Host != at.Host || len(via) >= 10 {
		return errors.New("redirected to another origin, or too often")
	}
	return nil
}

// An MCP server revokes the token under two brokers with sessions, one of which has the Source as the
// SDK's OAuth handler, the other a Transport below the SDK. Both go on in the same sessions, with a
// new token that costs one request. That holds with a Vault token, and without any through the
// listener of a Vault Agent or a Vault Proxy.
func TestMCPClientsGoOnWhenTheirTokenIsRevoked(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"token", "agent", "proxy"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, shared(t), "", 5*time.Minute)
			u.configure(t, nil)
			obtained := time.Now()
			client := u.compareAndRefresh(t)
			if way != "token" {
				client = u.throughListener(t, way)
			}
			byHandler := connect(t, &mcp.StreamableClientTransport{
				Endpoint:     u.mcp.URL,
				OAuthHandler: u.source(t, client),
			})
			transport, err := brokerauth.NewTransport(u.source(t, client), u.mcp.URL)
			if err != nil {
				t.Fatal(err)
			}
			byTransport := connect(t, &mcp.StreamableClientTransport{
				Endpoint:   u.mcp.URL,
				HTTPClient: &http.Client{Transport: transport},
			})
			sessions := map[string]*mcp.ClientSession{"handler": byHandler, "transport": byTransport}
			for name, session := range sessions {
				if err := forecast(t.Context(), session); err != nil {
					t.Fatalf("%s, before: %v", name, err)
				}
			}
			held := u.token(t, "token/"+u.name)
			if n := u.mcp.Counts().Unauthorized; n != 0 {
				t.Fatalf("%d requests were answered with a 401 before any token was refused", n)
			}
			bed.Eventually(t, 2*cooldown, func() error {
				if age := time.Since(obtained); age < cooldown {
					return fmt.Errorf("the token is %s old", age)
				}
				return nil
			})

			u.mcp.Refuse(claims(held.AccessToken).ID)
			for name, session := range sessions {
				if err := forecast(t.Context(), session); err != nil {
					t.Errorf("%s, after: %v", name, err)
				}
			}
			if n := u.mcp.Counts().Unauthorized; n != len(sessions) {
				t.Errorf("%d requests were answered with a 401, want one of each client", n)
			}
			if requests := u.requests(t); len(requests) != 2 {
				t.Errorf("%d token requests, want the first and one more", len(requests))
			}
		})
	}
}

// Vault goes away. A broker goes on, in the same MCP session, for as long as its token is valid, and
// nothing but an expired token stops it. When Vault is back, so is the broker.
func TestBrokerOutlivesVaultForAsLongAsItsTokenIsValid(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{})
	u := newUpstream(t, b, "", 40*time.Second)
	u.configure(t, nil)
	ways := map[string]*api.Client{"token": u.compareAndRefresh(t), "agent": u.throughListener(t, "agent")}
	sources, sessions := map[string]*brokerauth.Source{}, map[string]*mcp.ClientSession{}
	for way, client := range ways {
		sources[way] = u.source(t, client)
		sessions[way] = connect(t, &mcp.StreamableClientTransport{
			Endpoint:             u.mcp.URL,
			OAuthHandler:         sources[way],
			DisableStandaloneSSE: true,
		})
	}
	ends := map[string]time.Time{}
	for way, source := range sources {
		token, err := source.Token()
		if err != nil {
			t.Fatal(err)
		}
		ends[way] = token.Expiry
	}
	if err := b.Nodes[0].Stop(); err != nil {
		t.Fatal(err)
	}

	calls, covered := map[string]int{}, map[string]int{}
	bed.Eventually(t, 2*time.Minute, func() error {
		for way, end := range ends {
			failing := sources[way].Err() != nil
			err := forecast(t.Context(), sessions[way])
			if err == nil {
				calls[way]++
				if failing {
					covered[way]++
				}
				continue
			}
			if time.Now().Before(end) {
				t.Fatalf("%s: %v before the token's end: %v", way, err, time.Until(end))
			}
			if leaks := b.Secrecy.ScanText("the error", []byte(err.Error())); len(leaks) > 0 {
				t.Error(leaks)
			}
			if _, ok := errors.AsType[*brokerauth.Error](err); !ok {
				t.Errorf("%s: %v, want an *Error of brokerauth", way, err)
			}
			delete(ends, way)
		}
		if len(ends) > 0 {
			return fmt.Errorf("%d brokers still go on", len(ends))
		}
		return nil
	})
	// An Agent asks a Vault that is away again and again before it answers, so a read through it fails late.
	if covered["token"] == 0 {
		t.Error("no call was made after a read had failed")
	}
	for way := range ways {
		t.Logf("%s: %d calls without Vault, %d of them after a read had failed", way, calls[way], covered[way])
	}

	if err := b.Nodes[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for way, session := range sessions {
		bed.Eventually(t, 2*time.Minute, func() error { return forecast(t.Context(), session) })
		if err := sources[way].Err(); err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// A broker whose policy lets it read only is told what it lacks. Once it is allowed to, it goes on in
// the same session.
func TestBrokerWithoutRefreshIsToldWhatItLacks(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	u.configure(t, nil)
	source := u.source(t, u.broker(t).Client)
	session := connect(t, &mcp.StreamableClientTransport{Endpoint: u.mcp.URL, OAuthHandler: source})
	refused := u.token(t, "token/"+u.name)
	u.mcp.Refuse(claims(refused.AccessToken).ID)

	err := forecast(t.Context(), session)
	failure, ok := errors.AsType[*brokerauth.Error](err)
	if !ok || failure.StatusCode != http.StatusForbidden || failure.Path != bed.Mount+"/refresh/"+u.name {
		t.Errorf("got %v, want that the refresh path is forbidden", err)
	}
	rules := `
path "` + bed.Mount + `/token/` + u.name + `" { capabilities = ["read"] }
path "` + bed.Mount + `/refresh/` + u.name + `" { capabilities = ["update"] }`
	if err := u.bed.Vault.PutPolicy(t.Context(), u.name, rules); err != nil {
		t.Fatal(err)
	}
	// The token's cooldown, and the source's own wait before it names the token again.
	bed.Eventually(t, 2*time.Minute, func() error { return forecast(t.Context(), session) })
}

// What brokerauth's README says of sessions of the Go SDK. A refused token that is too young to be replaced
// fails a call: with the handler the session goes on, with a Transport it has ended. A second 401, to
// the request with the new token, ends both. A new session is all that is needed then.
func TestMCPSessionsEndWhereTheREADMESaysSo(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	u.configure(t, nil)
	client := u.compareAndRefresh(t)
	var refuse refusing
	// Each has sources and transports of its own, and can connect more than once.
	newHandler := func() func() *mcp.ClientSession {
		source := u.source(t, client)
		return func() *mcp.ClientSession {
			return connect(t, &mcp.StreamableClientTransport{
				Endpoint:     u.mcp.URL,
				OAuthHandler: source,
				HTTPClient:   &http.Client{Transport: &refuse, CheckRedirect: sameOrigin},
			})
		}
	}
	newTransport := func() func() *mcp.ClientSession {
		transport, err := brokerauth.NewTransport(u.source(t, client), u.mcp.URL)
		if err != nil {
			t.Fatal(err)
		}
		transport.Base = &refuse
		return func() *mcp.ClientSession {
			return connect(t, &mcp.StreamableClientTransport{
				Endpoint:   u.mcp.URL,
				HTTPClient: &http.Client{Transport: transport},
			})
		}
	}
	connectAgain := newTransport()
	byHandler, byTransport := newHandler()(), connectAgain()
	others := map[string]func() *mcp.ClientSession{"handler": newHandler(), "transport": newTransport()}
	otherSessions := map[string]*mcp.ClientSession{}
	for name, connect := range others {
		otherSessions[name] = connect()
	}

	u.mcp.Refuse(claims(u.token(t, "token/"+u.name).AccessToken).ID)
	if err := forecast(t.Context(), byHandler); !errors.Is(err, brokerauth.ErrNotReplaced) {
		t.Errorf("handler: %v, want ErrNotReplaced", err)
	}
	if err := forecast(t.Context(), byTransport); err == nil || !strings.Contains(err.Error(), "Unauthorized") {
		t.Errorf("transport: %v, want the 401", err)
	}
	bed.Eventually(t, time.Minute, func() error { return forecast(t.Context(), byHandler) })
	if err := forecast(t.Context(), byTransport); err == nil {
		t.Error("transport: the session has not ended")
	}
	if err := forecast(t.Context(), connectAgain()); err != nil {
		t.Errorf("transport, a new session: %v", err)
	}

	for name, session := range otherSessions {
		refuse.on.Store(true)
		if err := forecast(t.Context(), session); err == nil || !strings.Contains(err.Error(), "Unauthorized") {
			t.Errorf("%s: %v, want the second 401", name, err)
		}
		refuse.on.Store(false)
		if err := forecast(t.Context(), session); err == nil {
			t.Errorf("%s: the session has not ended", name)
		}
		if err := forecast(t.Context(), others[name]()); err != nil {
			t.Errorf("%s, a new session: %v", name, err)
		}
	}
	if n := len(u.requests(t)); n != 2 {
		t.Errorf("%d token requests, want the first and one more", n)
	}
}

// refusing answers each request with a 401 while it is on.
type refusing struct{ on atomic.Bool }

func (r *refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	if !r.on.Load() {
		return http.DefaultTransport.RoundTrip(req)
	}
	if req.Body != nil {
		req.Body.Close()
	}
	return &http.Response{
		Status: "401 Unauthorized", StatusCode: http.StatusUnauthorized, Header: http.Header{},
		Body: http.NoBody, Request: req,
	}, nil
}

// The README's CheckRedirect keeps the token from another port of the same host, to which Go would take it.
func TestRedirectTakesNoTokenOfTheHandlerElsewhere(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	u.configure(t, nil)
	var asked, authorized atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "" {
			authorized.Add(1)
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	source := u.source(t, u.compareAndRefresh(t))
	for name, c := range map[string]struct {
		check func(*http.Request, []*http.Request) error
		taken bool
	}{"Go's own": {nil, true}, "the README's": {sameOrigin, false}} {
		asked.Store(0)
		authorized.Store(0)
		client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
		session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{
			Endpoint:     server.URL,
			OAuthHandler: source,
			HTTPClient:   &http.Client{CheckRedirect: c.check},
		}, nil)
		if err == nil {
			_ = session.Close()
			t.Errorf("%s: connected to what is no MCP server", name)
		}
		if taken := authorized.Load() > 0; taken != c.taken || (asked.Load() > 0) != c.taken {
			t.Errorf("%s: %d requests were made elsewhere, %d with a token; want any: %t",
				name, asked.Load(), authorized.Load(), c.taken)
		}
	}
}

// source is a Source of the upstream's token.
func (u *upstream) source(t *testing.T, client *api.Client) *brokerauth.Source {
	t.Helper()
	source, err := brokerauth.NewSource(brokerauth.Config{Vault: client, TokenPath: bed.Mount + "/token/" + u.name})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// throughListener is a client without a token, of the listener of an Agent or a Proxy that logs in with
// the upstream's AppRole.
func (u *upstream) throughListener(t *testing.T, command string) *api.Client {
	t.Helper()
	id, err := u.bed.Vault.Login(t.Context(), u.name)
	if err != nil {
		t.Fatal(err)
	}
	through, err := u.bed.NewListener(t.Context(), command, id)
	if err != nil {
		t.Fatal(err)
	}
	client, err := through.Client("")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// connect opens an MCP session, which ends with the test.
func connect(t *testing.T, transport *mcp.StreamableClientTransport) *mcp.ClientSession {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
	session, err := client.Connect(t.Context(), transport, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() }) // the test's context is done by then
	return session
}

// forecast calls the MCP server's tool.
func forecast(ctx context.Context, session *mcp.ClientSession) error {
	_, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "forecast", Arguments: map[string]any{"city": "Oslo"}})
	return err
}
