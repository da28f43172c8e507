package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Each driver runs the module from docs/deployments.md, with clocks that the test sets. It reads one command per line
// and answers each:
//
//	clocks MONOTONIC WALL  sets the clocks, in seconds
//	get                    the token's id, or none
//	replace N              reports the last token refused by N requests at once: how many get another token
var exampleDrivers = map[string]string{
	"python": `
import os, sys, threading, time
from vault_mcp_auth import VaultError, VaultToken

monotonic = wall = 0.0
time.monotonic = lambda: monotonic
time.time = lambda: wall
vault = VaultToken(os.environ["VAULT_ADDR"], "mcp-oauth/token/files")
for line in sys.stdin:
    command, *numbers = line.split()
    if command == "clocks":
        monotonic, wall = map(float, numbers)
        answer = "set"
    elif command == "get":
        try:
            token = vault.get()
            answer = token["token_id"]
        except VaultError:
            answer = "none"
    else:
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(vault.replace(token)))
            for _ in range(int(numbers[0]))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answer = sum(answers)
    print(answer, flush=True)
`,
	"typescript": `
import process from "node:process";
import { createInterface } from "node:readline";
import { type Token, VaultError, VaultToken } from "./vault_mcp_auth.ts";

let monotonic = 0, wall = 0;
performance.now = () => monotonic;
Date.now = () => wall;
const vault = new VaultToken(process.env.VAULT_ADDR ?? "", "mcp-oauth/token/files");
let token: Token | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  const [command, first, second] = line.split(" ");
  if (command === "clocks") {
    monotonic = Number(first) * 1000;
    wall = Number(second) * 1000;
    console.log("set");
  } else if (command === "get") {
    try {
      token = await vault.get();
      console.log(token.token_id);
    } catch (error) {
      console.log(error instanceof VaultError ? "none" : error);
    }
  } else {
    const refused = token as Token;
    const answers = await Promise.all(Array.from({ length: Number(first) }, () => vault.replace(refused)));
    console.log(answers.filter((another) => another).length);
  }
}
`,
}

// A copiedToken is a copied module run by its driver.
type copiedToken struct {
	*exampleProcess
	vault *vaultAnswers
	begun time.Time // start of both clocks
}

// vaultAnswers answers as Vault would, because a real Vault's clock cannot be stopped.
type vaultAnswers struct {
	mu        sync.Mutex // guards the fields below
	away      bool
	refused   bool // refresh/ answers 403
	stuck     bool // refresh/ returns the same token
	fetching  int  // number of 504 answers left
	lag       int  // reads after a refresh that still return the old token
	lagging   int  // number of such reads left
	older     bool // such reads return a token that is an hour older
	another   bool // another broker refreshes before the reads
	ttl       int
	obtained  time.Time
	expires   time.Time
	reads     int
	refreshes int
	tokens    int // number of replacements so far
}

func (v *vaultAnswers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := func() string { return fmt.Sprintf("token-%d", v.tokens) }
	obtained := v.obtained
	data := map[string]any{}
	if r.Method == http.MethodGet {
		v.reads++
	}
	switch {
	case v.away:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case v.fetching > 0:
		v.fetching--
		w.WriteHeader(http.StatusGatewayTimeout)
		return
	case r.URL.Path == "/v1/mcp-oauth/refresh/files" && r.Method == http.MethodPost:
		v.refreshes++
		var refused struct {
			ID string `json:"token_id"`
		}
		err := json.NewDecoder(r.Body).Decode(&refused)
		if v.refused || err != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if !v.stuck && refused.ID == id() {
			v.tokens++
			v.lagging = v.lag
		}
		if v.another {
			defer func() { v.tokens++ }()
		}
	case r.URL.Path == "/v1/mcp-oauth/token/files" && r.Method == http.MethodGet:
		if v.lagging > 0 {
			v.lagging--
			back := 1
			if v.older {
				back, obtained = 2, obtained.Add(-time.Hour)
			}
			v.tokens -= back
			defer func() { v.tokens += back }()
		}
		data = map[string]any{
			"authorization": "Bearer " + id(), "ttl": v.ttl,
			"last_vault_rotation": obtained.UTC().Format(time.RFC3339),
			"expires_at":          v.expires.UTC().Format(time.RFC3339),
		}
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	data["token_id"] = id()
	_ = json.NewEncoder(w).Encode(map[string]any{"data": data}) // fails if the client has gone
}

func (v *vaultAnswers) with(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

// startCopied runs a copied module with a new token of an hour.
func startCopied(t *testing.T, command []string) *copiedToken {
	t.Helper()
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	vault := &vaultAnswers{ttl: 2700, obtained: begun, expires: begun.Add(time.Hour)}
	server := httptest.NewServer(vault)
	t.Cleanup(server.Close)
	name := strings.NewReplacer("/", "-", ",", "").Replace(t.Name())
	c := &copiedToken{
		exampleProcess: startExample(t, shared(t), name, command, exampleToken, server.URL, "VAULT_ADDR="+server.URL),
		vault:          vault, begun: begun,
	}
	c.clocks(t, 0, 0)
	return c
}

// clocks sets both clocks, relative to begun.
func (c *copiedToken) clocks(t *testing.T, monotonic, wall time.Duration) {
	t.Helper()
	c.say(t, "set", fmt.Sprintf("clocks %f %f", 1e6+monotonic.Seconds(), float64(c.begun.Unix())+wall.Seconds()))
}

// say sends the driver a command, and checks its answer.
func (c *copiedToken) say(t *testing.T, want, command string) {
	t.Helper()
	if got := c.tell(t, command); got != want {
		t.Fatalf("%s: %q, want %q", command, got, want)
	}
}

// copiedExamples returns the commands that run a driver with its module, by language.
func copiedExamples(t *testing.T, drivers map[string]string) map[string][]string {
	t.Helper()
	commands := map[string][]string{"typescript": compiled(t, drivers["typescript"])}
	if python, err := exec.LookPath("python3"); err == nil {
		dir := t.TempDir()
		for file, content := range map[string]string{
			"vault_mcp_auth.py": example(t, "python/vault_mcp_auth.py"), "broker.py": example(t, "python/broker.py"), "copied.py": drivers["python"],
		} {
			bed.OK(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
		}
		commands["python"] = []string{python, filepath.Join(dir, "copied.py")}
	} else {
		t.Log("NOT RUN: examples/python, as there is no python3 on this machine.")
	}
	return commands
}

// The module in docs/deployments.md uses its token until the token's end, and replaces it as rarely as possible.
func TestCopiedExamples(t *testing.T) {
	t.Parallel()
	for language, command := range copiedExamples(t, exampleDrivers) {
		for name, test := range map[string]func(*testing.T, *copiedToken){
			"a replacement is shared":             func(t *testing.T, c *copiedToken) { copiedSharesAReplacement(t, c, 0, false) },
			"no replacement is shared":            copiedSharesAFailure,
			"each token is refused":               func(t *testing.T, c *copiedToken) { copiedReplacesLessOften(t, c, false) },
			"each token is refused, and no other": func(t *testing.T, c *copiedToken) { copiedReplacesLessOften(t, c, true) },
			"tokens are refused now and then":     copiedReplacesEach,
			"the machine sleeps":                  func(t *testing.T, c *copiedToken) { copiedGoesByBothClocks(t, c, 0, 1) },
			"the clock is set back":               func(t *testing.T, c *copiedToken) { copiedGoesByBothClocks(t, c, 1, -1) },
			"a token's end":                       copiedKnowsATokensEnd,
			"a fetch takes long":                  copiedWaitsForAFetch,
			"a standby lags":                      func(t *testing.T, c *copiedToken) { copiedSharesAReplacement(t, c, 3, false) },
			"a standby lags far behind":           func(t *testing.T, c *copiedToken) { copiedSharesAReplacement(t, c, 3, true) },
			"another broker is faster":            copiedTakesANewerToken,
			"a standby lags too long":             copiedGivesUpAStandby,
		} {
			t.Run(language+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(t, startCopied(t, command))
			})
		}
	}
}

func (c *copiedToken) wantRefreshes(t *testing.T, least, most int) {
	t.Helper()
	c.vault.with(func() {
		if n := c.vault.refreshes; n < least || n > most {
			t.Errorf("%d writes to refresh/, want %d to %d", n, least, most)
		}
	})
}

// One refresh serves all requests. For a moment after it, a standby may return the refused token or an older one.
func copiedSharesAReplacement(t *testing.T, c *copiedToken, lag int, older bool) {
	c.vault.with(func() { c.vault.lag, c.vault.older = lag, older })
	c.say(t, "token-0", "get")
	c.say(t, "20", "replace 20")
	c.wantRefreshes(t, 1, 1)
	c.say(t, "token-1", "get")
}

// While Vault answers 504 because a fetch goes on, the module asks again a few times.
func copiedWaitsForAFetch(t *testing.T, c *copiedToken) {
	c.vault.with(func() { c.vault.fetching = 2 })
	c.say(t, "token-0", "get")
	c.vault.with(func() { c.vault.fetching = 2 })
	c.say(t, "20", "replace 20")
	c.wantRefreshes(t, 1, 1) // the counts exclude the 504s
	c.say(t, "token-1", "get")

	c.clocks(t, 2*time.Hour, 2*time.Hour)
	c.vault.with(func() { c.vault.fetching, c.vault.reads = 1000, 0 })
	c.say(t, "none", "get")
	c.vault.with(func() {
		if n := c.vault.reads; n < 3 || n > 10 {
			t.Errorf("%d reads with a 504, want a few", n)
		}
	})
}

// A token newer than the one that refresh/ named is accepted at once.
func copiedTakesANewerToken(t *testing.T, c *copiedToken) {
	c.vault.with(func() { c.vault.another = true })
	c.say(t, "token-0", "get")
	c.say(t, "20", "replace 20")
	c.wantRefreshes(t, 1, 1)
	c.vault.with(func() {
		if c.vault.reads != 2 {
			t.Errorf("%d reads, want one before the refresh and one after it", c.vault.reads)
		}
	})
	c.say(t, "token-2", "get")
}

// The module waits for a lagging standby for a second, and then reports a failure.
func copiedGivesUpAStandby(t *testing.T, c *copiedToken) {
	c.vault.with(func() { c.vault.lag, c.vault.reads = 1000, 0 })
	c.say(t, "token-0", "get")
	before := time.Now()
	c.say(t, "0", "replace 20")
	c.wantRefreshes(t, 1, 1)
	c.vault.with(func() {
		if n := c.vault.reads; n < 4 || n > 15 {
			t.Errorf("%d reads in %s, want some within a second", n, time.Since(before))
		}
	})
}

// If many requests are refused with one token, one of them asks Vault, and all use its answer. The next one asks
// after a second, then after two, and so on.
func copiedSharesAFailure(t *testing.T, c *copiedToken) {
	c.vault.with(func() { c.vault.refused = true })
	c.say(t, "token-0", "get")
	for _, at := range []struct {
		second    time.Duration
		refreshes int
	}{{0, 1}, {1, 2}, {2, 2}, {3, 3}, {6, 3}} {
		c.clocks(t, at.second*time.Second, at.second*time.Second)
		c.say(t, "0", "replace 20")
		c.wantRefreshes(t, at.refreshes, at.refreshes)
	}
	c.vault.with(func() { c.vault.refused = false })
	c.clocks(t, 7*time.Second, 7*time.Second)
	c.say(t, "20", "replace 20")
	c.wantRefreshes(t, 4, 4)
}

// A server that refuses every token causes few replacements, whether the tokens are new or the same.
func copiedReplacesLessOften(t *testing.T, c *copiedToken, stuck bool) {
	c.vault.with(func() { c.vault.stuck = stuck })
	const seconds = 600
	for second := range time.Duration(seconds) {
		c.clocks(t, second*time.Second, second*time.Second)
		c.tell(t, "get")
		c.tell(t, "replace 1")
	}
	c.wantRefreshes(t, 10, 10+seconds/300) // the waits double from a second to 5 minutes
}

// If a server refuses tokens only now and then, each is replaced at once.
func copiedReplacesEach(t *testing.T, c *copiedToken) {
	c.vault.with(func() { c.vault.expires = c.begun.Add(10 * time.Hour) })
	for i := range time.Duration(30) {
		c.clocks(t, i*6*time.Minute, i*6*time.Minute)
		c.say(t, fmt.Sprintf("token-%d", i), "get")
		c.say(t, "1", "replace 1")
	}
	c.wantRefreshes(t, 30, 30)
}

// A token ends as soon as either clock reaches its end: the monotonic clock may stop while the machine sleeps, and
// the wall clock may be set back.
func copiedGoesByBothClocks(t *testing.T, c *copiedToken, monotonic, wall time.Duration) {
	c.say(t, "token-0", "get")
	c.vault.with(func() { c.vault.away = true })
	const last = time.Hour - time.Second
	c.clocks(t, monotonic*last, wall*last)
	c.say(t, "token-0", "get")
	c.clocks(t, monotonic*time.Hour, wall*time.Hour)
	c.say(t, "none", "get")
}

// A token's end is known by Vault's answer and by this machine's clock, which may differ from Vault's.
func copiedKnowsATokensEnd(t *testing.T, c *copiedToken) {
	day := time.Duration(0)
	for _, of := range []struct {
		what      string
		ttl       int
		age, left time.Duration // the token's, on this machine's clock
		good      time.Duration
	}{
		{"the clocks agree", 40, 10 * time.Second, 50 * time.Second, 50 * time.Second},
		{"this one is ahead, and the token looks expired", 40, time.Hour, -time.Minute, 40 * time.Second},
		{"this one is ahead, and less than the ttl is left", 40, time.Minute, time.Second, 40 * time.Second},
		{"this one is behind, and the token looks good for an hour", 40, -time.Hour, time.Hour + time.Minute, time.Minute},
		{"the token is in its last second", 1, 59 * time.Second, time.Second, time.Second},
		{"the token ends within its ttl", 1, 59500 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond},
	} {
		// The cases are days apart. Vault's times are whole seconds.
		day += 24 * time.Hour
		fraction := of.left % time.Second
		at := func(after time.Duration) { c.clocks(t, day+after, day+after-fraction) }
		c.vault.with(func() {
			read := c.begun.Add(day - fraction)
			c.vault.away, c.vault.ttl = false, of.ttl
			c.vault.obtained, c.vault.expires = read.Add(-of.age), read.Add(of.left)
		})
		at(0)
		c.say(t, "token-0", "get")
		c.vault.with(func() { c.vault.away = true })
		const moment = 10 * time.Millisecond
		at(of.good - moment)
		before := c.tell(t, "get")
		at(of.good + moment)
		if after := c.tell(t, "get"); before != "token-0" || after != "none" {
			t.Errorf("%s: %s before the end, %s after it", of.what, before, after)
		}
	}
}
