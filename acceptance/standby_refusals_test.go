package acceptance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Brokers at standbys replace a refused token, and their calls succeed although a standby returns the refused token
// for a moment. The brokers use brokerauth, mcp-token-proxy and the examples' modules.
func TestRefusedTokensAreReplacedAtStandbys(t *testing.T) {
	t.Parallel()
	s := newStandbyServers(t, standbys(t), 40)
	t.Run("without waiting", s.readOnceAfterARefresh)
	for name, start := range map[string]func(*testing.T) brokers{
		"brokerauth": s.startBrokerauth,
		"proxy":      s.startTokenProxies,
	} {
		t.Run(name, func(t *testing.T) { s.replaceAll(t, start) })
	}
	for language, command := range copiedExamples(t, standbyDrivers) {
		t.Run(language, func(t *testing.T) {
			s.replaceAll(t, func(t *testing.T) brokers { return s.startDrivers(t, command) })
		})
	}
}

// brokers call each server once, and return the number of failed calls and their errors.
type brokers func() (failed int, why error)

// standbyServers are MCP servers, each with a broker at a standby.
type standbyServers struct {
	*cluster
	servers []*upstream
}

func newStandbyServers(t *testing.T, c *cluster, n int) *standbyServers {
	t.Helper()
	s := &standbyServers{cluster: c}
	for i := range n {
		u := newUpstream(t, c.bed, fmt.Sprintf("-%d", i), time.Hour)
		u.root = c.clients[c.active]
		u.configure(t, nil)
		s.servers = append(s.servers, u)
	}
	return s
}

// at returns the node used by the broker of the i-th server.
func (s *standbyServers) at(i int) *bed.Node { return s.standbys[i%len(s.standbys)] }

// oldEnough waits until each token may be replaced and the standbys have it, and returns the tokens.
func (s *standbyServers) oldEnough(t *testing.T) []*bed.Token {
	t.Helper()
	var held []*bed.Token
	for _, u := range s.servers {
		held = append(held, s.atStandbys(t, u, "token/"+u.name))
	}
	bed.Eventually(t, 2*cooldown, func() error {
		for _, token := range held {
			if age := time.Since(token.LastVaultRotation); age < cooldown+time.Second { // its time is rounded down to a second
				return fmt.Errorf("a token is %s old", age)
			}
		}
		return nil
	})
	return held
}

// each calls do for all servers at once.
func (s *standbyServers) each(do func(i int) error) (failed int, why error) {
	failures := make([]error, len(s.servers))
	var all sync.WaitGroup
	for i := range s.servers {
		all.Go(func() { failures[i] = do(i) })
	}
	all.Wait()
	for _, err := range failures {
		if err != nil {
			failed++
		}
	}
	return failed, errors.Join(failures...)
}

// replaceAll makes all servers refuse their tokens, and calls each server through its broker before and after. Each
// server gets one request with the refused token, and no call fails.
func (s *standbyServers) replaceAll(t *testing.T, start func(*testing.T) brokers) {
	t.Helper()
	held := s.oldEnough(t) // before the brokers read, as a lagging standby would give them an older token
	call := start(t)
	if _, err := call(); err != nil {
		t.Fatalf("before any token was refused: %v", err)
	}
	before := s.unauthorized()
	for i, u := range s.servers {
		u.mcp.Refuse(claims(held[i].AccessToken).ID)
	}
	failed, err := call()
	if err != nil {
		t.Error(err)
	}
	if n := s.unauthorized() - before; n != len(s.servers) {
		t.Errorf("%d requests were answered with a 401, want one of each broker", n)
	}
	t.Logf("%d of %d refusals were passed on", failed, len(s.servers))
}

// unauthorized returns the number of tokens answered with 401.
func (s *standbyServers) unauthorized() int {
	n := 0
	for _, u := range s.servers {
		n += u.mcp.Counts().Unauthorized
	}
	return n
}

// readOnceAfterARefresh logs how many reads right after a refresh return the refused token. On a fast machine the
// number may be 0.
func (s *standbyServers) readOnceAfterARefresh(t *testing.T) {
	t.Helper()
	held := s.oldEnough(t)
	repeated := make([]bool, len(s.servers))
	_, err := s.each(func(i int) error {
		u, client := s.servers[i], s.clients[s.at(i)]
		_, err := client.Logical().WriteWithContext(t.Context(), bed.Mount+"/refresh/"+u.name, map[string]any{"token_id": held[i].TokenID})
		if err != nil {
			return err
		}
		token, err := s.bed.ReadToken(t.Context(), client, "token/"+u.name)
		repeated[i] = err == nil && token.TokenID == held[i].TokenID
		return err
	})
	bed.OK(t, err)
	n := 0
	for _, repeated := range repeated {
		if repeated {
			n++
		}
	}
	t.Logf("%d of %d reads right after a refresh returned the refused token", n, len(repeated))
}

// startBrokerauth starts MCP clients of the Go SDK.
func (s *standbyServers) startBrokerauth(t *testing.T) brokers {
	t.Helper()
	var sessions []*mcp.ClientSession
	for i, u := range s.servers {
		sessions = append(sessions, connect(t, authorized(t, u.source(t, s.clients[s.at(i)]), u.mcp.URL, nil)))
	}
	return func() (int, error) { return s.each(func(i int) error { return forecast(t.Context(), sessions[i]) }) }
}

// startTokenProxies starts an mcp-token-proxy for each standby, and clients of its URLs.
func (s *standbyServers) startTokenProxies(t *testing.T) brokers {
	t.Helper()
	urls := map[*bed.Node]string{}
	for _, node := range s.standbys {
		dir, port, monitor := t.TempDir(), freePort(t), freePort(t)
		config := fmt.Sprintf("listener \"tcp\" {\n  address = \"127.0.0.1:%s\"\n}\nmonitoring {\n  address = \"127.0.0.1:%s\"\n}\n", port, monitor)
		for i, u := range s.servers {
			if s.at(i) == node {
				config += fmt.Sprintf("route %q {\n  upstream = %q\n  token_path = %q\n}\n", u.name, u.mcp.URL, bed.Mount+"/token/"+u.name)
			}
		}
		bed.OK(t, os.WriteFile(filepath.Join(dir, "proxy.hcl"), []byte(config), 0o600))
		runTokenProxy(t, s.bed, node.ID, dir, monitor, "VAULT_ADDR="+node.Address, "VAULT_TOKEN="+s.bed.Vault.RootToken)
		urls[node] = "http://127.0.0.1:" + port + "/"
	}
	var sessions []*mcp.ClientSession
	for i, u := range s.servers {
		sessions = append(sessions, connect(t, &mcp.StreamableClientTransport{Endpoint: urls[s.at(i)] + u.name}))
	}
	return func() (int, error) { return s.each(func(i int) error { return forecast(t.Context(), sessions[i]) }) }
}

// standbyDrivers take token paths and URLs as arguments. For each line they call all servers at once, and answer with
// the number of failed calls and one error.
var standbyDrivers = map[string]string{
	"python": `
import sys
from concurrent.futures import ThreadPoolExecutor
from broker import McpServer
from vault_mcp_auth import VaultToken

arguments = sys.argv[1:]
servers = [
    McpServer(url, VaultToken.from_environment(path)) for path, url in zip(arguments[::2], arguments[1::2])
]


def call(server):
    try:
        server.tools()
    except RuntimeError as error:
        return str(error)


with ThreadPoolExecutor(len(servers)) as pool:
    for _ in sys.stdin:
        failures = [failure for failure in pool.map(call, servers) if failure]
        print(len(failures), *failures[:1], flush=True)
`,
	"typescript": `
import process from "node:process";
import { createInterface } from "node:readline";
import { VaultToken, vaultFetch } from "./vault_mcp_auth.ts";

const body = JSON.stringify({
  jsonrpc: "2.0", id: 1, method: "initialize",
  params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "broker", version: "1.0.0" } },
});
const headers = { "Content-Type": "application/json", Accept: "application/json, text/event-stream" };
const calls: (() => Promise<unknown>)[] = [];
const [, , ...parameters] = process.argv;
for (let i = 0; i < parameters.length; i += 2) {
  const [path = "", url = ""] = parameters.slice(i, i + 2);
  const send = vaultFetch(VaultToken.fromEnvironment(path), url);
  calls.push(async () => {
    try {
      const response = await send(url, { method: "POST", headers, body });
      await response.text();
      return response.ok ? undefined : response.status;
    } catch (error) {
      return error;
    }
  });
}
for await (const _ of createInterface({ input: process.stdin })) {
  const failures = (await Promise.all(calls.map((call) => call()))).filter((failure) => failure !== undefined);
  console.log(failures.length, ...failures.slice(0, 1).map(String));
}
`,
}

// startDrivers starts a driver for each standby.
func (s *standbyServers) startDrivers(t *testing.T, command []string) brokers {
	t.Helper()
	var drivers []*exampleProcess
	for _, node := range s.standbys {
		all := append([]string{}, command...)
		for i, u := range s.servers {
			if s.at(i) == node {
				all = append(all, bed.Mount+"/token/"+u.name, u.mcp.URL)
			}
		}
		name := strings.ToLower(filepath.Base(t.Name())) + "-" + node.ID
		drivers = append(drivers, startBroker(t, s.bed, name, all, "VAULT_ADDR="+node.Address, "VAULT_TOKEN="+s.bed.Vault.RootToken))
	}
	return func() (failed int, why error) {
		for _, driver := range drivers {
			var n int
			answer := driver.tell(t, "")
			if _, err := fmt.Sscan(answer, &n); err != nil || n > 0 {
				why = errors.Join(why, fmt.Errorf("the calls that failed: %s", answer))
			}
			failed += n
		}
		return failed, why
	}
}
