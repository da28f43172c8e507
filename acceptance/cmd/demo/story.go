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

// lifetime of the access tokens: short, so that refreshes can be watched.
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

	running sync.WaitGroup // the broker's loop
	cancel  context.CancelFunc
}

// tell tells the story, or only the set-up.
func (s *story) tell(ctx context.Context, setUpOnly bool) error {
	steps := []func(context.Context) error{
		s.startParts, s.enablePlugin, s.writeConfig, s.admitBroker, s.startAgent, s.startBroker,
	}
	if !setUpOnly {
		steps = append(steps, s.refuseOther, s.watchRefresh, s.refuseWrongSecret, s.rotateSecret, s.countUp)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
	}
	return nil
}

// stop ends the broker's loop.
func (s *story) stop() {
	if s.cancel != nil {
		s.cancel()
	}
	s.running.Wait()
}

// product returns the server's name and version.
func (s *story) product() string { return string(s.vault.Product) + " " + s.vault.Version }

func (s *story) startParts(ctx context.Context) error {
	var err error
	s.mcp, err = s.bed.NewMCPServer(ctx, bed.Resource{Scope: "tools:list tools:call", TTL: lifetime}, bed.MCPOptions{})
	if err != nil {
		return err
	}
	s.client = bed.Client{ID: "weather-client", Secret: rand.Text(), Scope: "tools:list tools:call"}
	if err := s.bed.AS.SetClient(ctx, s.client); err != nil {
		return err
	}
	s.step("The parts", fmt.Sprintf(`%-21s %s
authorization server  %s, where %s is registered with a client secret
MCP server            %s, which takes access tokens of that authorization server
                      that were issued for it, for %s each`,
		s.product(), s.vault.Address, s.bed.AS.Issuer, s.client.ID, s.mcp.URL, lifetime))
	return nil
}

func (s *story) enablePlugin(ctx context.Context) error {
	s.step("The operator registers and enables the plugin", "")
	version, err := exec.CommandContext(ctx, filepath.Join(s.bed.PluginDir(), bed.PluginName), "-version").Output()
	if err != nil {
		return fmt.Errorf("%s -version: %w", bed.PluginName, err)
	}
	_, err = s.must(ctx, "plugin", "register", "-sha256="+s.bed.PluginSHA256, "-command="+bed.PluginName,
		"-version="+strings.TrimSpace(string(version)), "secret", bed.PluginName)
	if err != nil {
		return err
	}
	_, err = s.must(ctx, "secrets", "enable", "-path="+bed.Mount, bed.PluginName)
	return err
}

func (s *story) writeConfig(ctx context.Context) error {
	s.step("The operator gives Vault the client credentials for the MCP server", `The MCP server's URL and the credentials are all that it takes: the plugin finds the authorization
server and the scopes, and gets a first token before it stores anything.`)
	if err := s.file("client-secret", s.client.Secret+"\n"); err != nil {
		return err
	}
	_, err := s.runWithSecret(ctx, "client-secret", "write", "mcp-oauth/config/weather",
		"server_url="+s.mcp.URL,
		"client_id="+s.client.ID,
		"client_secret=-")
	if err != nil {
		return err
	}
	config, err := s.must(ctx, "read", "mcp-oauth/config/weather")
	if err != nil {
		return err
	}
	s.check(!strings.Contains(config, "client_secret "), "reading the config does not bring the secret back")
	s.probes = s.mcp.Counts().Requests
	s.check(s.probes == 1 && strings.Contains(config, s.bed.AS.TokenURL()),
		"the MCP server was asked %d time without a token, and its 401 led to %s", s.probes, s.bed.AS.TokenURL())
	requests, err := s.bed.AS.Requests(ctx, s.client.ID)
	if err != nil {
		return err
	}
	s.check(len(requests) == 1 && requests[0].Scope == s.client.Scope,
		"the authorization server has seen %d token request, for %s with scope %s", len(requests), s.mcp.URL, s.client.Scope)
	return nil
}

func (s *story) admitBroker(ctx context.Context) error {
	s.step("The operator lets one broker read the token", "The broker logs in with an AppRole. Its policy names the one path that it may read.")
	if err := s.policy(ctx, "weather-broker", "mcp-oauth/token/weather"); err != nil {
		return err
	}
	if _, err := s.must(ctx, "auth", "enable", "approle"); err != nil {
		return err
	}
	var err error
	s.id, err = s.appRole(ctx, "weather-broker")
	return err
}

func (s *story) startAgent(ctx context.Context) error {
	s.step("Vault Agent keeps the broker's credential in a file", "")
	var err error
	if s.agent, err = s.bed.NewAgent(s.id, "token/weather"); err != nil {
		return err
	}
	config, err := os.ReadFile(s.agent.Config)
	if err != nil {
		return err
	}
	// Only the template is shown.
	s.printf("   $ %s agent -config=agent.hcl\n", s.vault.Product.Command())
	_, template, _ := strings.Cut(string(config), "template {")
	s.show("template {" + strings.ReplaceAll(template, filepath.Dir(s.agent.File)+"/", ""))
	if err := s.agent.WaitRendered(ctx); err != nil {
		return err
	}
	rendered, err := os.ReadFile(s.agent.File)
	if err != nil {
		return err
	}
	s.printf("   $ cat authorization\n")
	s.show(string(rendered))
	s.check(strings.HasPrefix(string(rendered), "Bearer "), "the file holds what belongs into the Authorization header")
	return nil
}

func (s *story) startBroker(ctx context.Context) error {
	s.step("The broker uses the MCP server", "It takes its Authorization header from the file at each request. It knows no client secret.")
	s.broker = s.bed.NewBroker(s.mcp, s.agent.File)
	tools, err := s.broker.ListTools(ctx)
	if err != nil {
		return err
	}
	s.printf("   initialize, tools/list: %s\n", strings.Join(tools, ", "))
	s.check(slices.Contains(tools, "forecast"), "the broker sees the tool forecast")
	answer, err := s.broker.CallTool(ctx, "forecast", map[string]any{"city": "Oslo"})
	if err != nil {
		return err
	}
	s.printf("   tools/call forecast: %s\n", answer)
	s.printf("   From here on it lists the tools twice a second.\n")
	ctx, s.cancel = context.WithCancel(ctx)
	s.running.Go(func() { s.broker.Run(ctx, 500*time.Millisecond) })
	return nil
}

func (s *story) refuseOther(ctx context.Context) error {
	s.step("Another broker is refused", "It has an AppRole and a policy of its own, for another MCP server.")
	if err := s.policy(ctx, "calendar-broker", "mcp-oauth/token/calendar"); err != nil {
		return err
	}
	other, err := s.appRole(ctx, "calendar-broker")
	if err != nil {
		return err
	}
	for _, path := range []string{"mcp-oauth/token/weather", "mcp-oauth/config/weather"} {
		out, err := s.run(ctx, "CALENDAR_BROKER", other.Client.Token(), "read", path)
		s.check(err != nil && strings.Contains(out, "Code: 403"), "%s is refused to it", path)
	}
	return nil
}

func (s *story) watchRefresh(ctx context.Context) error {
	s.step("The token is refreshed ahead of its end", "Half way through its life (for one so short) the plugin fetches the next, in the background.")
	before, err := s.tokenID(ctx)
	if err != nil {
		return err
	}
	failures := s.broker.Counts().Failures
	start := time.Now()
	after, err := s.awaitToken(ctx, before, lifetime)
	if err != nil {
		return err
	}
	s.printf("   %.0f s later:\n", time.Since(start).Seconds())
	if _, err := s.tokenID(ctx); err != nil {
		return err
	}
	s.check(after != before, "Vault holds another token, and nobody had to wait for it")
	s.check(s.broker.Counts().Failures == failures, "the broker went on meanwhile")
	return nil
}

func (s *story) refuseWrongSecret(ctx context.Context) error {
	s.step("A wrong secret is refused when it is written", "What works goes on working.")
	before, err := s.readToken(ctx)
	if err != nil {
		return err
	}
	wrong := rand.Text()
	s.bed.Secrecy.AddClientSecret(s.client.ID, wrong)
	if err := s.file("wrong-secret", wrong+"\n"); err != nil {
		return err
	}
	out, err := s.runWithSecret(ctx, "wrong-secret", "write", "mcp-oauth/config/weather", "client_secret=-")
	s.check(err != nil && strings.Contains(out, "Code: 400") && strings.Contains(out, "invalid_client"),
		"Vault tells what the authorization server said: invalid_client")
	after, err := s.readToken(ctx)
	if err != nil {
		return err
	}
	s.check(after.TokenID == before.TokenID, "the token is the one of before, %s", before.TokenID)
	return nil
}

func (s *story) rotateSecret(ctx context.Context) error {
	s.step("The client secret is rotated under the running broker",
		"The authorization server's administrator gives the client a new secret; the old one is void at\nonce. The operator writes the new one into Vault.")
	before, err := s.readToken(ctx)
	if err != nil {
		return err
	}
	s.client.Secret = rand.Text()
	if err := s.bed.AS.SetClient(ctx, s.client); err != nil {
		return err
	}
	if err := s.file("new-client-secret", s.client.Secret+"\n"); err != nil {
		return err
	}
	calls := s.broker.Counts().Calls
	rendered, err := s.agent.TokenID()
	if err != nil {
		return err
	}
	_, err = s.runWithSecret(ctx, "new-client-secret", "write", "mcp-oauth/config/weather", "client_secret=-")
	if err != nil {
		return err
	}
	written := time.Now()
	after, err := s.awaitToken(ctx, before.TokenID, lifetime)
	if err != nil {
		return err
	}
	s.check(after != before.TokenID, "Vault holds a token got with the new secret")

	// The agent reads again after the ttl. Until then its file holds the token of the rotation or the one before.
	now := rendered
	for (now == rendered || now == before.TokenID) && time.Since(written) < lifetime+5*time.Second && ctx.Err() == nil {
		_ = bed.Sleep(ctx, 100*time.Millisecond)
		if now, err = s.agent.TokenID(); err != nil {
			return err
		}
	}
	s.check(now != rendered && now != before.TokenID, "the broker's file holds such a token after %.0f s", time.Since(written).Seconds())
	// Beyond the end of the last token that was got with the old secret.
	_ = bed.Sleep(ctx, time.Until(before.ExpiresAt.Add(time.Second)))
	counts := s.broker.Counts()
	s.check(counts.Calls > calls && counts.Failures == 0,
		"%d calls of the broker since the rotation, beyond the end of the old secret's last token, and none failed", counts.Calls-calls)
	return nil
}

func (s *story) countUp(ctx context.Context) error {
	s.stop()
	s.step("The counts", "")
	broker, server := s.broker.Counts(), s.mcp.Counts()
	server.Requests -= s.probes
	requests, err := s.bed.AS.Requests(ctx, s.client.ID)
	if err != nil {
		return err
	}
	refused := 0
	for _, r := range requests {
		if r.Status != http.StatusOK {
			refused++
		}
	}
	first, last := requests[0].Time, requests[len(requests)-1].Time
	s.printf(`   calls by the broker             %4d, of which failed %d
   its requests at the MCP server  %4d, of which answered with a 401 %d
   tokens that the broker used     %4d
   requests at the token endpoint  %4d in %.0f s, of which refused %d
`, broker.Calls, broker.Failures, server.Requests, server.Unauthorized, server.Tokens, len(requests), last.Sub(first).Seconds(), refused)
	s.check(broker.Calls > 0 && broker.Failures == 0, "no call of the broker failed")
	s.check(server.Unauthorized == 0, "the MCP server never had to answer it with a 401")
	s.check(refused == 1, "the authorization server refused the wrong secret and nothing else")
	// A 20 s token is refreshed after 10 s, up to a second earlier; the config writes come on top.
	most := int(last.Sub(first).Seconds()/9) + 4
	s.check(len(requests) <= most, "the authorization server was asked once in about 10 s and at the config's writes")
	return nil
}

// invite prints commands to try.
func (s *story) invite() {
	s.printf(`
Everything is up, and the broker goes on. Ctrl-C stops it all.

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
