package acceptance

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/brokerauth"
)

// Package brokerauth implements the MCP Go SDK's interface without importing it.
var _ auth.OAuthHandler = (*brokerauth.Transport)(nil)

// An MCP client of the Go SDK uses the Transport both as HTTP transport and as OAuth handler.
func Example_mcpClient() {
	vault, err := api.NewClient(nil) // VAULT_ADDR, and VAULT_TOKEN unless an Agent or Proxy adds it
	if err != nil {
		log.Fatal(err)
	}
	source, err := brokerauth.NewSource(brokerauth.Config{Vault: vault, TokenPath: "mcp-oauth/token/weather"})
	if err != nil {
		log.Fatal(err)
	}
	bearer, err := brokerauth.NewTransport(source, "https://mcp.example.com/mcp")
	if err != nil {
		log.Fatal(err)
	}
	transport := &mcp.StreamableClientTransport{
		Endpoint:     "https://mcp.example.com/mcp",
		HTTPClient:   &http.Client{Transport: bearer},
		OAuthHandler: bearer,
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
	session, err := client.Connect(ctx, transport, nil)
	if err != nil {
		log.Print(err)
		return
	}
	defer session.Close()
	log.Print("connected to ", session.InitializeResult().ServerInfo.Name)
}

// An MCP server revokes the token of two brokers with open sessions; one of them uses the Transport as OAuth handler
// too. Both sessions go on with a new token, for one token request. The brokers may use a Vault token, an Agent's
// listener or a Proxy's listener.
func TestMCPClientsGoOnWhenTheirTokenIsRevoked(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"token", "agent", "proxy"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			u := newConfigured(t, shared(t), "", 5*time.Minute)
			obtained := time.Now()
			client := u.compareAndRefresh(t)
			if way != "token" {
				client = u.throughListener(t, way)
			}
			below := authorized(t, u.source(t, client), u.mcp.URL, nil)
			below.OAuthHandler = nil
			sessions := map[string]*mcp.ClientSession{
				"with the handler": connect(t, authorized(t, u.source(t, client), u.mcp.URL, nil)),
				"without":          connect(t, below),
			}
			for name, session := range sessions {
				if err := forecast(t.Context(), session); err != nil {
					t.Fatalf("%s, before: %v", name, err)
				}
			}
			held := u.token(t, "token/"+u.name)
			u.wantUnauthorized(t, 0)
			waitForAge(t, obtained, cooldown)

			u.mcp.Refuse(claims(held.AccessToken).ID)
			for name, session := range sessions {
				if err := forecast(t.Context(), session); err != nil {
					t.Errorf("%s, after: %v", name, err)
				}
			}
			u.wantUnauthorized(t, len(sessions))
			u.wantRequests(t, 2)
		})
	}
}

// Vault stops. A broker goes on in the same session until its token expires, and again after Vault's return.
func TestBrokerOutlivesVaultForAsLongAsItsTokenIsValid(t *testing.T) {
	t.Parallel()
	b := bed.New(t, bed.Options{})
	u := newConfigured(t, b, "", 40*time.Second)
	ways := map[string]*api.Client{"token": u.compareAndRefresh(t), "agent": u.throughListener(t, "agent")}
	sources, sessions := map[string]*brokerauth.Source{}, map[string]*mcp.ClientSession{}
	for way, client := range ways {
		sources[way] = u.source(t, client)
		transport := authorized(t, sources[way], u.mcp.URL, nil)
		transport.DisableStandaloneSSE = true
		sessions[way] = connect(t, transport)
	}
	ends := map[string]time.Time{}
	for way, source := range sources {
		token := bed.Must(source.Token())(t)
		ends[way] = token.Expiry
	}
	bed.OK(t, b.Nodes[0].Stop())

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
			return fmt.Errorf("%d brokers go on after the token's end", len(ends))
		}
		return nil
	})
	// An Agent retries for a while before it answers, so a read through it fails later.
	if covered["token"] == 0 {
		t.Error("no call was made after a failed read")
	}
	for way := range ways {
		t.Logf("%s: %d calls without Vault, %d of them after a read had failed", way, calls[way], covered[way])
	}

	bed.OK(t, b.Nodes[0].Start(t.Context()))
	for way, session := range sessions {
		bed.Eventually(t, 2*time.Minute, func() error { return forecast(t.Context(), session) })
		if err := sources[way].Err(); err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// A broker without access to refresh/ gets an error with the path. When its policy allows the path, the same session
// goes on.
func TestBrokerWithoutRefreshGetsAnErrorWithThePath(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 5*time.Minute)
	source := u.source(t, u.broker(t).Client)
	session := connect(t, authorized(t, source, u.mcp.URL, nil))
	refused := u.token(t, "token/"+u.name)
	u.mcp.Refuse(claims(refused.AccessToken).ID)

	err := forecast(t.Context(), session)
	failure, ok := errors.AsType[*brokerauth.Error](err)
	if !ok || failure.StatusCode != http.StatusForbidden || failure.Path != bed.Mount+"/refresh/"+u.name {
		t.Errorf("got %v, want an error that the refresh path is forbidden", err)
	}
	rules := `
path "` + bed.Mount + `/token/` + u.name + `" { capabilities = ["read"] }
path "` + bed.Mount + `/refresh/` + u.name + `" { capabilities = ["update"] }`
	bed.OK(t, u.bed.Vault.PutPolicy(t.Context(), u.name, rules))
	// This takes the token's cooldown and the source's own window.
	bed.Eventually(t, 2*time.Minute, func() error { return forecast(t.Context(), session) })
}

func (u *upstream) source(t *testing.T, client *api.Client) *brokerauth.Source {
	t.Helper()
	source := bed.Must(brokerauth.NewSource(brokerauth.Config{Vault: client, TokenPath: bed.Mount + "/token/" + u.name}))(t)
	return source
}

// authorized returns the SDK's transport to an MCP server as in brokerauth's README, over base. Default:
// http.DefaultTransport.
func authorized(t *testing.T, source *brokerauth.Source, endpoint string, base http.RoundTripper) *mcp.StreamableClientTransport {
	t.Helper()
	bearer := bed.Must(brokerauth.NewTransport(source, endpoint))(t)
	bearer.Base = base
	return &mcp.StreamableClientTransport{
		Endpoint: endpoint, HTTPClient: &http.Client{Transport: bearer}, OAuthHandler: bearer,
	}
}

// throughListener returns a client without a token that uses the listener of an Agent or Proxy, which logs in with
// the upstream's AppRole.
func (u *upstream) throughListener(t *testing.T, command string) *api.Client {
	t.Helper()
	id := bed.Must(u.bed.Vault.Login(t.Context(), u.name))(t)
	through := bed.Must(u.bed.NewListener(t.Context(), command, id))(t)
	client := bed.Must(through.Client(""))(t)
	return client
}

// connect opens an MCP session until the end of the test.
func connect(t *testing.T, transport *mcp.StreamableClientTransport) *mcp.ClientSession {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
	session := bed.Must(client.Connect(t.Context(), transport, nil))(t)
	t.Cleanup(func() { _ = session.Close() }) // the test's context has ended by then
	return session
}

func forecast(ctx context.Context, session *mcp.ClientSession) error {
	_, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "forecast", Arguments: map[string]any{"city": "Oslo"}})
	return err
}
