package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/trouble"
)

// Three Vaults with raft go through a step-down, a killed leader, a killed and a reloaded plugin, seals and a
// restored snapshot, while readers go on, half of them through a balancer that prefers standbys. Valid tokens cost
// no token request, due tokens are refreshed, and every token is valid when it is read. Readers of tokens wait no
// longer than readers of another path of the mount, or than nodes take to seal or step down; those wait no longer than
// readers of KV and the plugin's start take. A broker with a Vault Agent has no failure.
func TestFailover(t *testing.T) {
	t.Parallel()
	testFailover(t, bed.Options{Nodes: 3})
}

// The same while OpenBao's standbys forward reads.
func TestFailoverWithoutStandbyReads(t *testing.T) {
	t.Parallel()
	needs(t, bed.OpenBao)
	testFailover(t, bed.Options{Nodes: 3, Config: "disable_standby_reads = true\n"})
}

func testFailover(t *testing.T, opts bed.Options) {
	t.Helper()
	f := newFailover(t, bed.New(t, opts))
	for _, event := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"step-down", f.stepDown},
		{"leader killed", f.killLeader},
		{"plugin killed", f.killPlugin},
		{"plugin reloaded", f.reloadPlugin},
		{"active node sealed and unsealed", f.sealActive},
		{"two of three nodes sealed and unsealed", f.sealMost},
	} {
		if !t.Run(event.name, func(t *testing.T) { f.through(t, event.do) }) {
			return
		}
	}
	t.Run("snapshot restored", f.restore)
	f.finish(t)
}

// Lifetimes: without a refresh during the test, with a refresh every 10 s, and with enough left for the longest
// absence of Vault: a token that expires meanwhile is not refreshed until it is read.
const (
	steadyLifetime = time.Hour
	briskLifetime  = 20 * time.Second
	unreadLifetime = 40 * time.Second
	servedLifetime = time.Minute
)

// A failover is a cluster with tokens of several lifetimes, each read all the time.
type failover struct {
	bed    *bed.Bed
	root   *api.Client
	behind *api.Client // root through a balancer that prefers standbys
	steady *upstream
	brisk  *upstream
	served *upstream            // used by the broker
	unread *upstream            // read only once
	paths  map[string]*upstream // of all tokens
	watch  map[string]*watcher
	broker *bed.Broker // with the file of a Vault Agent
	begun  time.Time
	events int
	held   time.Duration // the time that nodes took to seal or step down in this event
}

const (
	controlKV    = "KV"           // Vault's own engine
	controlMount = "the mount"    // a path without a token, answered by each node
	controlDue   = "forwarded"    // a path that standbys forward, like some reads of a due token
	atStandbys   = " at standbys" // suffix: read at standbys
)

func newFailover(t *testing.T, b *bed.Bed) *failover {
	t.Helper()
	f := &failover{bed: b, paths: make(map[string]*upstream), watch: make(map[string]*watcher), begun: time.Now()}
	f.root = bed.Must(b.Vault.Root())(t)
	f.behind = bed.Must(b.Standbys.Root())(t)
	bed.OK(t, trouble.MountKV(t.Context(), f.root))
	f.steady = newUpstream(t, b, "-steady", steadyLifetime)
	f.brisk = newUpstream(t, b, "-brisk", briskLifetime)
	for _, u := range []*upstream{f.steady, f.brisk} {
		u.configure(t, nil)
		u.write(t, "role/"+u.name+"/reader", map[string]any{"scopes": "tools:list"})
		for path, client := range map[string]*api.Client{"token/" + u.name: f.root, "token/" + u.name + "/reader": f.behind} {
			f.paths[path] = u
			f.watch[path] = startWatcher(t, func(ctx context.Context) (string, error) { return f.readToken(ctx, client, u, path) })
		}
	}
	f.unread = newUpstream(t, b, "-unread", unreadLifetime)
	f.unread.configure(t, nil)
	for where, client := range map[string]*api.Client{"": f.root, atStandbys: f.behind} {
		for control, path := range map[string]string{
			controlKV: "kv/control", controlMount: bed.Mount + "/metrics", controlDue: bed.Mount + "/status/" + f.steady.name,
		} {
			f.watch[control+where] = startWatcher(t, func(ctx context.Context) (string, error) {
				response, err := bed.ReadRaw(ctx, client, path)
				if err != nil {
					return "", err
				}
				return "", response.Body.Close()
			})
		}
	}
	f.served = newUpstream(t, b, "-served", servedLifetime)
	f.served.configure(t, nil)
	agent := f.served.agent(t, f.served.broker(t))
	f.broker = b.NewBroker(f.served.mcp, agent.File)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.broker.Run(ctx, 250*time.Millisecond) })
	t.Cleanup(func() { stop(); running.Wait() })
	f.answering(t)
	return f
}

// readToken reads a token and checks it with the MCP server.
func (f *failover) readToken(ctx context.Context, client *api.Client, u *upstream, path string) (string, error) {
	token, err := f.bed.ReadToken(ctx, client, path)
	if err != nil {
		return "", err
	}
	if err := u.mcp.Check(token.AccessToken); err != nil {
		return "", fmt.Errorf("%w: %s: %w", errBad, path, err)
	}
	return token.TokenID, nil
}

// answering waits until every watcher has a new answer.
func (f *failover) answering(t *testing.T) {
	t.Helper()
	now := time.Now()
	bed.Eventually(t, 60*time.Second, func() error {
		for name, w := range f.watch {
			if _, at := w.last(); at.Before(now) {
				return fmt.Errorf("nothing has come from %s", name)
			}
		}
		return nil
	})
}

func (f *failover) ids(u *upstream) [2]string {
	own, _ := f.watch["token/"+u.name].last()
	role, _ := f.watch["token/"+u.name+"/reader"].last()
	return [2]string{own, role}
}

// refreshed waits until both tokens of an upstream are new.
func (f *failover) refreshed(t *testing.T, u *upstream, than [2]string) {
	t.Helper()
	bed.Until(t, 2*briskLifetime, "both tokens are refreshed", func() bool {
		now := f.ids(u)
		return now[0] != than[0] && now[1] != than[1]
	})
}

// through makes an event happen, waits until it is over, and checks the readers.
func (f *failover) through(t *testing.T, event func(t *testing.T)) {
	begun, steady, asked := time.Now(), f.ids(f.steady), len(f.steady.requests(t))
	event(t)
	bed.OK(t, f.bed.WaitHealthy(t.Context()))
	f.answering(t)
	over := time.Since(begun)
	f.events++
	// Refreshes go on, also without reads.
	alone := len(f.unread.requests(t))
	for range 2 {
		f.refreshed(t, f.brisk, f.ids(f.brisk))
	}
	bed.Eventually(t, unreadLifetime, func() error {
		if len(f.unread.requests(t)) > alone {
			return nil
		}
		status, err := f.root.Logical().ReadWithContext(t.Context(), bed.Mount+"/status/"+f.unread.name)
		if err != nil || status == nil { // nil after a second redirect
			return fmt.Errorf("no status: %v", err)
		}
		return fmt.Errorf("a token without readers was not refreshed: %v", status.Data)
	})
	f.notice(t, begun, over)
	if got := f.ids(f.steady); got != steady {
		t.Errorf("the tokens %v became %v", steady, got)
	}
	if got := len(f.steady.requests(t)); got != asked {
		t.Errorf("%d token requests for tokens that are valid, want none", got-asked)
	}
}

// pluginStart is the time to start a plugin's process on a busy machine. Readers of KV do not wait for it.
const pluginStart = 5 * time.Second

// busy is the largest difference between two waiting readers on a busy machine.
const busy = time.Second

// notice checks the readers after an event: no invalid token, and no longer gap than other readers of Vault have.
func (f *failover) notice(t *testing.T, begun time.Time, over time.Duration) {
	t.Helper()
	control := func(name string) time.Duration {
		return max(f.watch[name].longest(begun), f.watch[name+atStandbys].longest(begun))
	}
	kv, mount, due := control(controlKV), control(controlMount), control(controlDue)
	gaps := make(map[*upstream]time.Duration)
	failures := 0
	for path, u := range f.paths {
		w := f.watch[path]
		gaps[u] = max(gaps[u], w.longest(begun))
		bad, failed := w.take()
		failures += failed
		for _, err := range bad {
			t.Error(err)
		}
	}
	t.Logf("over after %s; longest gap: tokens that are not due %s, that become due %s, the mount's path that nodes answer %s, "+
		"that they forward %s, KV %s; nodes took %s to seal or step down; %d reads of 4 readers failed",
		round(over), round(gaps[f.steady]), round(gaps[f.brisk]), round(mount), round(due), round(kv), round(f.held), failures)
	if mount > kv*3/2+pluginStart {
		t.Errorf("readers of the mount had no answer for %s, those of KV for %s", mount, kv)
	}
	// The mount's other paths wait for the same plugin. A node that seals or steps down holds requests meanwhile.
	if most := max(mount, f.held)*3/2 + busy; gaps[f.steady] > most {
		t.Errorf("readers of tokens that are not due had no answer for %s, want at most %s", gaps[f.steady], most)
	}
	if most := max(mount, due, f.held)*3/2 + busy; gaps[f.brisk] > most {
		t.Errorf("readers of tokens that become due had no answer for %s, want at most %s", gaps[f.brisk], most)
	}
	f.held = 0
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func (f *failover) active(t *testing.T) *bed.Node {
	t.Helper()
	node := bed.Must(f.bed.Active(t.Context()))(t)
	return node
}

// on returns a client of one node, with the root token.
func (f *failover) on(t *testing.T, node *bed.Node) *api.Client {
	t.Helper()
	client := bed.Must(node.Client(f.bed.Vault.RootToken))(t)
	return client
}

// holding calls do, which seals a node or has it step down, and adds the time that it took to held.
func (f *failover) holding(t *testing.T, node *bed.Node, do func(*api.Sys, context.Context) error) error {
	t.Helper()
	begun := time.Now()
	err := do(f.on(t, node).Sys(), t.Context())
	took := time.Since(begun)
	if took > readerBound {
		t.Errorf("a node took %s to seal or step down, want at most %s", round(took), readerBound)
	}
	if err == nil {
		f.held += took
	}
	return err
}

func (f *failover) stepDown(t *testing.T) {
	node := f.active(t)
	bed.OK(t, f.holding(t, node, (*api.Sys).StepDownWithContext))
	bed.Eventually(t, 60*time.Second, func() error {
		now, err := f.bed.Active(t.Context())
		if err == nil && now == node {
			err = fmt.Errorf("%s is still active", node.ID)
		}
		return err
	})
}

func (f *failover) killLeader(t *testing.T) {
	node := f.active(t)
	node.Kill()
	bed.Eventually(t, 60*time.Second, func() error {
		_, err := f.bed.Active(t.Context())
		return err
	})
	f.answering(t)
	bed.OK(t, node.Start(t.Context()))
}

func (f *failover) killPlugin(t *testing.T) {
	pid := bed.Must(f.active(t).KillPlugin())(t)
	bed.Until(t, 60*time.Second, "another process of the plugin", func() bool {
		now, err := f.active(t).PluginPID()
		return err == nil && now != pid && now != 0
	})
}

func (f *failover) reloadPlugin(t *testing.T) {
	before := pluginPID(t, f.active(t))
	reload := &api.ReloadPluginInput{Plugin: bed.PluginName, Scope: "global"}
	bed.Must(f.root.Sys().ReloadPluginWithContext(t.Context(), reload))(t)
	f.answering(t)
	if pluginPID(t, f.active(t)) == before {
		t.Error("the reload kept the plugin's process")
	}
}

func (f *failover) sealActive(t *testing.T) {
	node := f.active(t)
	bed.OK(t, f.holding(t, node, (*api.Sys).SealWithContext))
	f.answering(t)
	bed.OK(t, node.Unseal(t.Context()))
}

func (f *failover) sealMost(t *testing.T) {
	var sealed []*bed.Node
	for range 2 {
		bed.Eventually(t, 60*time.Second, func() error {
			node, err := f.bed.Active(t.Context())
			if err == nil && slices.Contains(sealed, node) {
				err = fmt.Errorf("%s is still active", node.ID)
			}
			if err != nil {
				return err
			}
			if err := f.holding(t, node, (*api.Sys).SealWithContext); err != nil {
				return err
			}
			sealed = append(sealed, node)
			return nil
		})
	}
	// A sealing node hands over to another node, which then has no quorum.
	bed.Until(t, 30*time.Second, "no active node without a quorum", func() bool {
		_, err := f.bed.Active(t.Context())
		return err != nil
	})
	for _, node := range sealed {
		bed.OK(t, node.Unseal(t.Context()))
	}
}

// restore restores a snapshot. A valid token of the snapshot costs no request; later tokens and configs are gone.
func (f *failover) restore(t *testing.T) {
	before := f.ids(f.steady)
	var snapshot bytes.Buffer
	bed.OK(t, f.on(t, f.active(t)).Sys().RaftSnapshotWithContext(t.Context(), &snapshot))
	later := newConfigured(t, f.bed, "-later", briskLifetime)
	later.token(t, "token/"+later.name)
	f.steady.write(t, "refresh/"+f.steady.name, map[string]any{"token_id": before[0]})
	bed.Until(t, 10*time.Second, "another token is read", func() bool { return f.ids(f.steady)[0] != before[0] })
	asked := len(f.steady.requests(t))

	begun := time.Now()
	bed.OK(t, f.on(t, f.active(t)).Sys().RaftSnapshotRestoreWithContext(t.Context(), &snapshot, false))
	bed.OK(t, f.bed.WaitHealthy(t.Context()))
	if f.bed.Vault.Product == bed.OpenBao { // its standbys keep their tokens, see docs/openbao.md
		commandSays(t, f.bed, "plugin", "reload", "-scope=global", "-plugin="+bed.PluginName)
	}
	f.answering(t)
	over := time.Since(begun)
	f.events++
	f.refreshed(t, f.brisk, f.ids(f.brisk))
	f.notice(t, begun, over)

	if got := f.ids(f.steady); got != before {
		t.Errorf("the tokens are %v, want those of the snapshot, %v", got, before)
	}
	if got := len(f.steady.requests(t)); got != asked {
		t.Errorf("%d token requests for tokens that are valid, want none", got-asked)
	}
	wantStatus(t, f.root, "token/"+later.name, http.StatusNotFound)
	for _, r := range later.requests(t) {
		if r.Time.After(begun.Add(over)) {
			t.Errorf("a token was asked for %s after its config had gone", round(r.Time.Sub(begun)))
		}
	}
}

func (f *failover) finish(t *testing.T) {
	t.Helper()
	elapsed := time.Since(f.begun)
	calls, server := f.broker.Counts(), f.served.mcp.Counts()
	if calls.Failures > 0 || calls.Calls == 0 {
		t.Errorf("%d of %d calls of the broker failed, the last: %v", calls.Failures, calls.Calls, calls.Last)
	}
	if server.Unauthorized > 0 {
		t.Errorf("%d of %d requests to the MCP server were answered with a 401", server.Unauthorized, server.Requests)
	}
	requests := f.brisk.requests(t)
	if n := refused(requests); n > 0 {
		t.Errorf("%d of %d token requests were refused", n, len(requests))
	}
	// A token of 20 s is refreshed after 9 to 10 s. An event loses at most the fetch under way.
	most := 2 * (int(elapsed/(9*time.Second)) + 2 + f.events)
	if len(requests) > most {
		t.Errorf("%d token requests for two names in %s and %d events, want at most %d", len(requests), round(elapsed), f.events, most)
	}
	t.Logf("%d calls of the broker, none failed; %d tokens used", calls.Calls, server.Tokens)
	t.Logf("%d token requests for two tokens of %s in %s and %d events, %d for two of %s",
		len(requests), briskLifetime, round(elapsed), f.events, len(f.steady.requests(t)), steadyLifetime)
}
