package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

const (
	enginePath = "engine/token/weather" // below bed.Mount
	leasedPath = "leased/weather"

	agentLifetime = 20 * time.Second // of the tokens, and of the secret that replaces a lease
	// An agent may wait this much longer than the model says: in most cases, and at most. The first factor limits the
	// model's error; the second allows for a busy machine.
	lateMostly, lateAtAll = 1.05, 2
)

// TestModelAgreesWithVaultAgent compares the model with real Vault Agents that read tokens of 20 s from the plugin in
// a real Vault, by Vault's audit log: how often each reads when it starts, how long it waits after each answer, and
// the numbers of reads and token requests.
//
// KV v1 with a "ttl" in the secret replaces an engine with leases. Vault answers with that lease_duration, and Vault
// Agent looks at nothing else if there is no rotation_period.
func TestModelAgreesWithVaultAgent(t *testing.T) {
	b := bed.New(t, bed.Options{Bare: true})
	clientID := setUp(t, b)
	const engineAgents, leasedAgents = 4, 2
	var engine, leased []string // entity ids
	for i := range engineAgents + leasedAgents {
		id := bed.Must(b.Vault.NewIdentity(t.Context(), fmt.Sprintf("broker-%d", i+1), "reader"))(t)
		path := enginePath
		if i < engineAgents {
			engine = append(engine, id.EntityID)
		} else {
			path = leasedPath
			leased = append(leased, id.EntityID)
		}
		bed.Must(b.NewAgent(id, path))(t)
	}

	// This takes about 90 s: an agent reads a token of 20 s about every 10 s, and a lease of 20 s about every 18 s.
	audit := openAudit(t, b.Vault.AuditLog)
	bed.Eventually(t, 10*time.Minute, func() error {
		audit.read(t)
		for _, id := range engine {
			if n := len(audit.reads[id]); n < 9 {
				return fmt.Errorf("an agent has read %d times", n)
			}
		}
		for _, id := range leased {
			if n := len(audit.reads[id]); n < 5 {
				return fmt.Errorf("an agent has read %d times", n)
			}
		}
		return nil
	})

	for _, id := range slices.Concat(engine, leased) {
		if audit.lookups[id] != 1 {
			t.Errorf("an agent looked up its path's mount %d times, the model says once", audit.lookups[id])
		}
	}
	checkGaps(t, "lease", audit, leased, func(read) (least, most time.Duration) {
		return ofLease(agentLifetime, 0), ofLease(agentLifetime, 1)
	})
	checkGaps(t, "ttl", audit, engine, func(r read) (least, most time.Duration) {
		after := time.Duration(r.ttl)*time.Second + time.Second
		return after, after
	})
	checkCounts(t, b, audit, engine, clientID)
}

// setUp prepares Vault for agents, and returns the id of the client at the authorization server.
func setUp(t *testing.T, b *bed.Bed) string {
	t.Helper()
	root := bed.Must(b.Vault.Root())(t)
	client := bed.Client{ID: "fleet", Secret: rand.Text(), Scope: "tools:list"}
	resource := bed.Resource{URL: "https://weather.example.com/mcp", Scope: client.Scope, TTL: agentLifetime}
	write := func(path string, data map[string]any) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := root.Logical().WriteWithContext(ctx, bed.Mount+"/"+path, data)
			return err
		}
	}
	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error { return b.AS.SetClient(ctx, client) },
		func(ctx context.Context) error { return b.AS.SetResource(ctx, resource) },
		func(ctx context.Context) error {
			return root.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
				Name: bed.PluginName, Type: api.PluginTypeSecrets, Command: bed.PluginName, SHA256: b.PluginSHA256,
			})
		},
		func(ctx context.Context) error {
			return root.Sys().MountWithContext(ctx, bed.Mount+"/engine", &api.MountInput{Type: bed.PluginName})
		},
		func(ctx context.Context) error {
			return root.Sys().MountWithContext(ctx, bed.Mount+"/leased", &api.MountInput{Type: "kv"})
		},
		func(ctx context.Context) error {
			return root.Sys().EnableAuthWithOptionsWithContext(ctx, "approle", &api.EnableAuthOptions{Type: "approle"})
		},
		func(ctx context.Context) error {
			return b.Vault.PutPolicy(ctx, "reader", `path "`+bed.Mount+`/*" { capabilities = ["read"] }`)
		},
		// The write is unverified, so that the first agent's read gets the first token, as in the model.
		write("engine/config/weather", map[string]any{
			"token_url": b.AS.TokenURL(), "server_url": resource.URL, "client_id": client.ID,
			"client_secret": client.Secret, "scopes": client.Scope, "verify": false,
		}),
		write(leasedPath, map[string]any{"authorization": "none", "ttl": agentLifetime.String()}),
	} {
		bed.OK(t, do(t.Context()))
	}
	return client.ID
}

// checkGaps compares the time between each answer and the next read with the answer's ttl.
func checkGaps(t *testing.T, what string, audit *auditLog, agents []string, wait func(read) (least, most time.Duration)) {
	t.Helper()
	var gaps []time.Duration
	var late []float64
	for _, id := range agents {
		reads := audit.reads[id]
		for i, next := range reads[1:] {
			least, most := wait(reads[i])
			gap := next.asked.Sub(reads[i].answered)
			if gap < least || gap > lateAtAll*most {
				t.Errorf("%s: read %d of an agent came %s after the previous answer, the model says %s to %s",
					what, i+2, gap, least, most)
			}
			gaps = append(gaps, gap)
			late = append(late, max(1, gap.Seconds()/most.Seconds()))
		}
	}
	if mostly := measure.Median(late); mostly > lateMostly {
		t.Errorf("%s: agents mostly waited %.2f times as long as the model says", what, mostly)
	}
	t.Logf("%s: %d agents waited %d times, for %s to %s, %.3f times as long as the model says, at most %.2f times",
		what, len(agents), len(gaps), slices.Min(gaps), slices.Max(gaps), measure.Median(late), slices.Max(late))
}

// checkCounts compares the numbers of reads and token requests with many simulations.
func checkCounts(t *testing.T, b *bed.Bed, audit *auditLog, agents []string, clientID string) {
	t.Helper()
	var begun, lastStart, end time.Time
	for i, id := range agents {
		reads := audit.reads[id]
		first, last := reads[0].asked, reads[len(reads)-1].asked
		if i == 0 || first.Before(begun) {
			begun = first
		}
		if first.After(lastStart) {
			lastStart = first
		}
		// The period ends with the earliest of the agents' last reads.
		if i == 0 || last.Before(end) {
			end = last
		}
	}
	count := 0
	for _, id := range agents {
		for _, r := range audit.reads[id] {
			if !r.asked.After(end) {
				count++
			}
		}
	}
	requests := bed.Must(b.AS.Requests(t.Context(), clientID))(t)
	requests = slices.DeleteFunc(requests, func(r bed.TokenRequest) bool { return r.Time.After(end) })

	f := Fleet{
		Brokers: len(agents), Servers: 1, Lifetime: agentLifetime,
		Spread: lastStart.Sub(begun), Horizon: end.Sub(begun), Latency: 50 * time.Millisecond,
	}
	most, mostRequests := 0, 0
	least, leastRequests := math.MaxInt, math.MaxInt
	for f.Seed = range 1000 {
		whole := Simulate(f, Engine)
		most, mostRequests = max(most, sum(whole.Reads)), max(mostRequests, sum(whole.Fetches))
		// On a busy machine, each read is late.
		part := f
		part.Horizon = f.Horizon * 4 / 5
		slow := Simulate(part, Engine)
		least, leastRequests = min(least, sum(slow.Reads)), min(leastRequests, sum(slow.Fetches))
	}
	// The observed period ends with a read, so it may have one more than a random period.
	most, mostRequests = most+1, mostRequests+1
	if count < least || count > most {
		t.Errorf("%d reads in %s, the model says %d to %d", count, f.Horizon, least, most)
	}
	if len(requests) < leastRequests || len(requests) > mostRequests {
		t.Errorf("%d token requests in %s, the model says %d to %d", len(requests), f.Horizon, leastRequests, mostRequests)
	}
	t.Logf("%d reads by %d agents and %d token requests in %s, the model says %d to %d and %d to %d",
		count, len(agents), len(requests), f.Horizon, least, most, leastRequests, mostRequests)
}

// A read is one read of a token by an agent.
type read struct {
	asked, answered time.Time
	ttl             int64 // of the answer; 0: none
}

// auditLog holds the reads found in Vault's audit log so far.
type auditLog struct {
	file    *os.File
	rest    []byte               // of an incomplete line
	asked   map[string]time.Time // by request id
	reads   map[string][]read    // by the reader's entity id
	lookups map[string]int       // lookups of mounts, by entity id
}

func openAudit(t *testing.T, name string) *auditLog {
	t.Helper()
	file := bed.Must(os.Open(name))(t)
	t.Cleanup(func() { file.Close() })
	return &auditLog{file: file, asked: map[string]time.Time{}, reads: map[string][]read{}, lookups: map[string]int{}}
}

// read adds the new entries of the log.
func (a *auditLog) read(t *testing.T) {
	t.Helper()
	more := bed.Must(io.ReadAll(a.file))(t)
	a.rest = append(a.rest, more...)
	for {
		line, rest, whole := bytes.Cut(a.rest, []byte("\n"))
		if !whole {
			return
		}
		a.rest = rest
		a.take(t, line)
	}
}

// take reads one line. Paths, times, entities and numbers are not hashed there.
func (a *auditLog) take(t *testing.T, line []byte) {
	t.Helper()
	var entry struct {
		Time time.Time `json:"time"`
		Type string    `json:"type"`
		Auth struct {
			EntityID string `json:"entity_id"`
		} `json:"auth"`
		Request struct {
			ID        string `json:"id"`
			Operation string `json:"operation"`
			Path      string `json:"path"`
		} `json:"request"`
		Response struct {
			Data map[string]any `json:"data"`
		} `json:"response"`
	}
	bed.OK(t, json.Unmarshal(line, &entry))
	r, reader := entry.Request, entry.Auth.EntityID
	token := r.Path == bed.Mount+"/"+enginePath || r.Path == bed.Mount+"/"+leasedPath
	switch {
	case r.Operation != "read" || reader == "":
	case entry.Type == "request" && strings.HasPrefix(r.Path, "sys/internal/ui/mounts/"):
		a.lookups[reader]++
	case entry.Type == "request" && token:
		a.asked[r.ID] = entry.Time
	case token:
		ttl, _ := entry.Response.Data["ttl"].(float64)
		a.reads[reader] = append(a.reads[reader], read{a.asked[r.ID], entry.Time, int64(ttl)})
	}
}
