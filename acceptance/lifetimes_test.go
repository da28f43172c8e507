package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A broker uses a Vault Agent's file through more than four lifetimes of 20 s tokens without a 401. The authorization
// server gets one token request per refresh interval.
func TestBrokerWorksThroughTokenLifetimes(t *testing.T) {
	t.Parallel()
	const lifetime = 20 * time.Second
	u := newConfigured(t, shared(t), "", lifetime)

	agent := u.agent(t, u.broker(t))
	broker := u.bed.NewBroker(u.mcp, agent.File)
	tools := bed.Must(broker.ListTools(t.Context()))(t)
	if !slices.Contains(tools, "forecast") {
		t.Fatalf("the broker sees tools %q, want forecast among them", tools)
	}

	watch, cancel := context.WithTimeout(t.Context(), 4*lifetime+5*time.Second)
	defer cancel()
	broker.Run(watch, 500*time.Millisecond)

	if counts := broker.Counts(); counts.Failures > 0 || counts.Calls < 100 {
		t.Errorf("%d of the broker's %d calls failed, the last: %v", counts.Failures, counts.Calls, counts.Last)
	}
	counts := u.mcp.Counts()
	if counts.Unauthorized > 0 {
		t.Errorf("%d of %d requests were answered with a 401", counts.Unauthorized, counts.Requests)
	}
	// Vault Agent reads a 20 s token again after 16.3 s at the latest.
	if counts.Tokens < 5 {
		t.Errorf("the broker used %d tokens in four lifetimes, want at least 5", counts.Tokens)
	}

	// A 20 s token is refreshed 10 s after its issue (margin = min(30 s, lifetime/2)). Jitter makes it up to a second
	// earlier; only a busy machine makes it later.
	requests := u.requests(t)
	if n := refused(requests); n > 0 {
		t.Errorf("%d of %d token requests were refused", n, len(requests))
	}
	elapsed := time.Since(requests[0].Time).Seconds()
	least, most := int(math.Floor(elapsed/10)), int(math.Ceil(elapsed/9))+1
	if len(requests) < least || len(requests) > most {
		t.Fatalf("%d token requests in %.1f s, want %d to %d", len(requests), elapsed, least, most)
	}
	var gaps []time.Duration
	for i := 1; i < len(requests); i++ {
		gaps = append(gaps, requests[i].Time.Sub(requests[i-1].Time))
	}
	slices.Sort(gaps)
	// One stall of the machine does not change the median.
	if median := gaps[len(gaps)/2]; median < 8900*time.Millisecond || median > 11*time.Second {
		t.Errorf("the token requests came %s after each other, want 9 to 10 s", gaps)
	}
	t.Logf("%d calls, %d tokens, %d token requests in %.0f s", broker.Counts().Calls, counts.Tokens, len(requests), elapsed)
}

// Vault parses its default policy at each request, so docs/performance.md recommends brokers' tokens without it. A
// Vault Agent with the broker's policy and its own renewal keeps the file, with one login.
func TestAgentNeedsNoDefaultPolicy(t *testing.T) {
	t.Parallel()
	u := newConfigured(t, shared(t), "", 20*time.Second)
	rules := `
path "` + bed.Mount + `/token/` + u.name + `" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}`
	id := newIdentity(t, u.bed, u.name, rules)
	bed.Must(u.root.Logical().WriteWithContext(t.Context(), "auth/approle/role/"+u.name, map[string]any{
		"token_no_default_policy": true,
		"token_ttl":               "15s",
	}))(t)
	agent := u.agent(t, id)
	first := bed.Must(os.ReadFile(agent.File))(t)
	log := filepath.Join(u.bed.LogDir(), "agent-"+u.name+".log")
	bed.Eventually(t, 3*time.Minute, func() error {
		file, err := os.ReadFile(agent.File)
		if err != nil {
			return err
		}
		if bytes.Equal(file, first) {
			return errNotRefreshed
		}
		written, err := os.ReadFile(log)
		if renewals := bytes.Count(written, []byte("renewed auth token")); err == nil && renewals < 3 {
			return fmt.Errorf("the agent renewed its Vault token %d times", renewals)
		}
		return err
	})
	written := bed.Must(os.ReadFile(log))(t)
	if logins := bytes.Count(written, []byte("authenticating")); logins != 1 {
		t.Errorf("the agent logged in %d times, want once", logins)
	}
	if bytes.Contains(written, []byte("permission denied")) {
		t.Error("the agent got a permission error")
	}
}
