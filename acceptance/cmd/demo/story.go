package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// lifetime of the access tokens. It is short, so that users can watch refreshes.
const lifetime = 20 * time.Second

// A story is the demo's sequence of steps and their state.
type story struct {
	*transcript
	bed    *bed.Bed
	client bed.Client // at the authorization server
	mcp    *bed.MCPServer
	id     *bed.Identity // of the first broker
	agent  *bed.Agent
	broker *bed.Broker
	probes int // discovery requests of the plugin

	running sync.WaitGroup // runs the broker's loop
	cancel  context.CancelFunc
}

// tell runs the whole story, or the set-up only.
func (s *story) tell(ctx context.Context, setUpOnly bool) (err error) {
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case failure:
			err = failed.error
		default:
			panic(failed)
		}
	}()
	steps := []func(context.Context){
		s.startParts, s.enablePlugin, s.writeConfig, s.admitBroker, s.startAgent, s.startBroker,
	}
	if !setUpOnly {
		steps = append(steps, s.refuseOther, s.watchRefresh, s.refuseWrongSecret, s.rotateSecret, s.countUp)
	}
	for _, step := range steps {
		step(ctx)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
	}
	return nil
}

// A failure is a value of panic that ends the story with an error.
type failure struct{ error }

func ok(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func must[T any](value T, err error) T {
	ok(err)
	return value
}

func (s *story) stop() {
	if s.cancel != nil {
		s.cancel()
	}
	s.running.Wait()
}

func (s *story) product() string { return string(s.vault.Product) + " " + s.vault.Version }

func (s *story) startParts(ctx context.Context) {
	s.mcp = must(s.bed.NewMCPServer(ctx, bed.Resource{Scope: "tools:list tools:call", TTL: lifetime}, bed.MCPOptions{}))
	s.client = bed.Client{ID: "weather-client", Secret: rand.Text(), Scope: "tools:list tools:call"}
	ok(s.bed.AS.SetClient(ctx, s.client))
	s.step("The parts", fmt.Sprintf(`%-21s %s
authorization server  %s, at which %s is registered with a client secret
MCP server            %s, which accepts that authorization server's access
                      tokens for it; each lives for %s`,
		s.product(), s.vault.Address, s.bed.AS.Issuer, s.client.ID, s.mcp.URL, lifetime))
}

func (s *story) enablePlugin(ctx context.Context) {
	s.step("The operator registers and enables the plugin", "")
	version := must(exec.CommandContext(ctx, filepath.Join(s.bed.PluginDir(), bed.PluginName), "-version").Output())
	s.operator(ctx, "plugin", "register", "-sha256="+s.bed.PluginSHA256, "-command="+bed.PluginName,
		"-version="+strings.TrimSpace(string(version)), "secret", bed.PluginName)
	s.operator(ctx, "secrets", "enable", "-path="+bed.Mount, bed.PluginName)
}

func (s *story) writeConfig(ctx context.Context) {
	s.step("The operator gives Vault the client credentials for the MCP server", `The MCP server's URL and the credentials are enough: the plugin discovers the authorization server
and the scopes, and gets a first token before it stores anything.`)
	s.file("client-secret", s.client.Secret+"\n")
	must(s.runWithSecret(ctx, "client-secret", "write", "mcp-oauth/config/weather",
		"server_url="+s.mcp.URL,
		"client_id="+s.client.ID,
		"client_secret=-"))
	config := s.operator(ctx, "read", "mcp-oauth/config/weather")
	s.check(!strings.Contains(config, "client_secret "), "reading the config does not return the secret")
	s.probes = s.mcp.Counts().Requests
	s.check(s.probes == 1 && strings.Contains(config, s.bed.AS.TokenURL()),
		"the MCP server was asked %d time without a token, and its 401 led to %s", s.probes, s.bed.AS.TokenURL())
	requests := must(s.bed.AS.Requests(ctx, s.client.ID))
	s.check(len(requests) == 1 && requests[0].Scope == s.client.Scope,
		"the authorization server got %d token request, for %s with scope %s", len(requests), s.mcp.URL, s.client.Scope)
}

func (s *story) admitBroker(ctx context.Context) {
	s.step("The operator lets one broker read the token", "The broker logs in with an AppRole. Its policy names the one path that it may read.")
	s.policy(ctx, "weather-broker", "mcp-oauth/token/weather")
	s.operator(ctx, "auth", "enable", "approle")
	s.id = s.appRole(ctx, "weather-broker")
}

func (s *story) startAgent(ctx context.Context) {
	s.step("Vault Agent keeps the broker's credential in a file", "")
	s.agent = must(s.bed.NewAgent(s.id, "token/weather"))
	config := must(os.ReadFile(s.agent.Config))
	// Only the configuration's template is shown.
	s.printf("   $ %s agent -config=agent.hcl\n", s.vault.Product.Command())
	_, template, _ := strings.Cut(string(config), "template {")
	s.show("template {" + strings.ReplaceAll(template, filepath.Dir(s.agent.File)+"/", ""))
	ok(s.agent.WaitRendered(ctx))
	rendered := must(os.ReadFile(s.agent.File))
	s.printf("   $ cat authorization\n")
	s.show(string(rendered))
	s.check(strings.HasPrefix(string(rendered), "Bearer "), "the file holds the value of the Authorization header")
}

func (s *story) startBroker(ctx context.Context) {
	s.step("The broker uses the MCP server", "It reads its Authorization header from the file for each request, and has no client secret.")
	s.broker = s.bed.NewBroker(s.mcp, s.agent.File)
	tools := must(s.broker.ListTools(ctx))
	s.printf("   initialize, tools/list: %s\n", strings.Join(tools, ", "))
	s.check(slices.Contains(tools, "forecast"), "the broker sees the tool forecast")
	answer := must(s.broker.CallTool(ctx, "forecast", map[string]any{"city": "Oslo"}))
	s.printf("   tools/call forecast: %s\n", answer)
	s.printf("   From now on it lists the tools twice a second.\n")
	ctx, s.cancel = context.WithCancel(ctx)
	s.running.Go(func() { s.broker.Run(ctx, 500*time.Millisecond) })
}

func (s *story) refuseOther(ctx context.Context) {
	s.step("Another broker is refused", "Its own AppRole and policy are for another MCP server.")
	s.policy(ctx, "calendar-broker", "mcp-oauth/token/calendar")
	other := s.appRole(ctx, "calendar-broker")
	for _, path := range []string{"mcp-oauth/token/weather", "mcp-oauth/config/weather"} {
		out, err := s.run(ctx, "CALENDAR_BROKER", other.Client.Token(), "read", path)
		s.check(err != nil && strings.Contains(out, "Code: 403"), "it may not read %s", path)
	}
}

func (s *story) watchRefresh(ctx context.Context) {
	s.step("The token is refreshed before it expires", "After half of so short a lifetime the plugin fetches the next token in the background.")
	before := s.tokenID(ctx)
	failures := s.broker.Counts().Failures
	start := time.Now()
	after := s.awaitToken(ctx, before, lifetime)
	s.printf("   %.0f s later:\n", time.Since(start).Seconds())
	s.tokenID(ctx)
	s.check(after != before, "Vault holds another token, and no broker had to wait for it")
	s.check(s.broker.Counts().Failures == failures, "no call of the broker failed meanwhile")
}

func (s *story) refuseWrongSecret(ctx context.Context) {
	s.step("A wrong secret is refused when it is written", "The config and the token stay as they were.")
	before := s.readToken(ctx)
	wrong := rand.Text()
	s.bed.Secrecy.AddClientSecret(s.client.ID, wrong)
	s.file("wrong-secret", wrong+"\n")
	out, err := s.runWithSecret(ctx, "wrong-secret", "write", "mcp-oauth/config/weather", "client_secret=-")
	s.check(err != nil && strings.Contains(out, "Code: 400") && strings.Contains(out, "invalid_client"),
		"Vault reports the authorization server's error: invalid_client")
	after := s.readToken(ctx)
	s.check(after.TokenID == before.TokenID, "Vault still holds the token %s", before.TokenID)
}

func (s *story) rotateSecret(ctx context.Context) {
	s.step("The client secret is rotated under the running broker",
		"The authorization server's administrator gives the client a new secret, which replaces the old one\nat once. The operator writes the new one to Vault.")
	before := s.readToken(ctx)
	s.client.Secret = rand.Text()
	ok(s.bed.AS.SetClient(ctx, s.client))
	s.file("new-client-secret", s.client.Secret+"\n")
	calls := s.broker.Counts().Calls
	rendered := must(s.agent.TokenID())
	must(s.runWithSecret(ctx, "new-client-secret", "write", "mcp-oauth/config/weather", "client_secret=-"))
	written := time.Now()
	after := s.awaitToken(ctx, before.TokenID, lifetime)
	s.check(after != before.TokenID, "Vault holds a token obtained with the new secret")

	// The agent reads again after the ttl. Until then, its file holds the rotation's token or its predecessor.
	now := rendered
	for (now == rendered || now == before.TokenID) && time.Since(written) < lifetime+5*time.Second && ctx.Err() == nil {
		_ = bed.Sleep(ctx, 100*time.Millisecond)
		now = must(s.agent.TokenID())
	}
	s.check(now != rendered && now != before.TokenID, "the broker's file holds such a token after %.0f s", time.Since(written).Seconds())
	// This is after the end of the last token obtained with the old secret.
	_ = bed.Sleep(ctx, time.Until(before.ExpiresAt.Add(time.Second)))
	counts := s.broker.Counts()
	s.check(counts.Calls > calls && counts.Failures == 0,
		"none of the broker's %d calls since the rotation failed, also after the old secret's last token expired", counts.Calls-calls)
}

func (s *story) countUp(ctx context.Context) {
	s.stop()
	s.step("The counts", "")
	broker, server := s.broker.Counts(), s.mcp.Counts()
	server.Requests -= s.probes
	requests := must(s.bed.AS.Requests(ctx, s.client.ID))
	refused := 0
	for _, r := range requests {
		if r.Status != http.StatusOK {
			refused++
		}
	}
	first, last := requests[0].Time, requests[len(requests)-1].Time
	s.printf(`   calls by the broker             %4d, failed: %d
   its requests to the MCP server  %4d, answered with a 401: %d
   tokens that the broker used     %4d
   requests to the token endpoint  %4d in %.0f s, refused: %d
`, broker.Calls, broker.Failures, server.Requests, server.Unauthorized, server.Tokens, len(requests), last.Sub(first).Seconds(), refused)
	s.check(broker.Calls > 0 && broker.Failures == 0, "no call of the broker failed")
	s.check(server.Unauthorized == 0, "the MCP server never answered it with a 401")
	s.check(refused == 1, "the authorization server refused only the wrong secret")
	// A 20 s token is refreshed after 10 s, or up to a second earlier. Config writes get tokens in addition.
	most := int(last.Sub(first).Seconds()/9) + 4
	s.check(len(requests) <= most, "the authorization server got a request about every 10 s, and one for each write of the config")
}

func (s *story) invite() {
	s.printf(`
All parts are running, and the broker keeps listing the tools. Ctrl-C stops everything.

  export VAULT_ADDR=%[1]s VAULT_TOKEN=%[2]s
  %[3]s read mcp-oauth/config/weather
  %[3]s read mcp-oauth/token/weather
  %[3]s read mcp-oauth/status/weather
  %[3]s write mcp-oauth/role/weather/reader scopes=tools:list
  %[3]s read mcp-oauth/token/weather/reader

  %[3]s is %[4]s, %[5]s

  token endpoint  %[6]s
  MCP server      %[7]s
  rendered file   %[8]s
  logs            %[9]s
`, s.vault.Address, s.vault.RootToken, s.vault.Product.Command(), s.vault.Binary, s.product(), s.bed.AS.TokenURL(), s.mcp.URL, s.agent.File, s.bed.LogDir())
}
