package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A cluster of three nodes is shared by tests that stop neither nodes nor plugins. Its standbys answer reads.
var (
	startStandbys  sync.Once
	sharedStandbys *bed.Bed
	errStandbys    error
)

// standbys returns the shared cluster.
func standbys(t *testing.T) *cluster {
	t.Helper()
	needs(t, bed.OpenBao)
	startStandbys.Do(func() {
		sharedStandbys, errStandbys = bed.Start(context.Background(), bed.Options{Nodes: 3})
	})
	if errStandbys != nil {
		t.Fatal(errStandbys)
	}
	sharedStandbys.ShowLogs(t)
	return newCluster(t, sharedStandbys)
}

// A cluster is several nodes, and for each a client with the root token.
type cluster struct {
	bed      *bed.Bed
	active   *bed.Node
	standbys []*bed.Node
	clients  map[*bed.Node]*api.Client
}

func newCluster(t *testing.T, b *bed.Bed) *cluster {
	t.Helper()
	active := bed.Must(b.Active(t.Context()))(t)
	c := &cluster{bed: b, active: active, clients: map[*bed.Node]*api.Client{}}
	for _, node := range b.Nodes {
		c.clients[node] = bed.Must(node.Client(b.Vault.RootToken))(t)
		if node != active {
			c.standbys = append(c.standbys, node)
		}
	}
	return c
}

// ownCluster starts a cluster for one test, with lines for the nodes' configuration, and writes a config whose tokens
// have this lifetime.
func ownCluster(t *testing.T, lifetime time.Duration, config string) (*cluster, *upstream) {
	t.Helper()
	needs(t, bed.OpenBao)
	c := newCluster(t, bed.New(t, bed.Options{Nodes: 3, Config: config}))
	u := c.upstream(t, lifetime)
	u.configure(t, nil)
	return c, u
}

// upstream registers a client whose config and tokens are written and read at the active node.
func (c *cluster) upstream(t *testing.T, lifetime time.Duration) *upstream {
	t.Helper()
	u := newUpstream(t, c.bed, "", lifetime)
	u.root = c.clients[c.active]
	return u
}

// readAtStandbys reads a token path at each standby, and at no other node, until the test ends.
func (c *cluster) readAtStandbys(t *testing.T, u *upstream, path string) *readers {
	t.Helper()
	all := newReaders(t, time.Hour)
	for _, node := range c.standbys {
		all.start(node.ID, u, c.clients[node], path, 50*time.Millisecond)
	}
	return all
}

// waitForChanges waits until the reader at each standby has received n new tokens.
func (c *cluster) waitForChanges(t *testing.T, all *readers, n int, limit time.Duration) {
	t.Helper()
	bed.Until(t, limit, fmt.Sprint("new tokens at each standby: ", n), func() bool {
		changes := all.changes()
		return !slices.ContainsFunc(c.standbys, func(node *bed.Node) bool { return len(changes[node.ID]) < n })
	})
}

// checkFresh checks that no read failed, and that each token had at least this time left when it was replaced.
func checkFresh(t *testing.T, all *readers, left time.Duration) {
	t.Helper()
	all.checkSoFar(t)
	for reader, changes := range all.changes() {
		if least := slices.Min(changes); least < left {
			t.Errorf("%s: a token was replaced with %s left of it, want %s", reader, round(least), left)
		}
		t.Logf("%s: left of each token when it was replaced: %s", reader, changes)
	}
}

// Reads at standbys alone keep a token from becoming idle. It is refreshed ahead, so brokers do not notice a short
// outage of the authorization server.
func TestReadersAtStandbysKeepATokenFresh(t *testing.T) {
	t.Parallel()
	c := standbys(t)
	const lifetime = 16 * time.Second // refreshed after 8 s
	u := c.upstream(t, lifetime)
	proxy := u.behindProxy(t, map[string]any{"idle_timeout": 1})
	all := c.readAtStandbys(t, u, "token/"+u.name)
	c.waitForChanges(t, all, 2, 3*lifetime)
	checkFresh(t, all, lifetime/4)

	// This outage is shorter than a token's remaining lifetime at its refresh.
	bed.OK(t, proxy.Set(bed.Refused))
	select {
	case <-time.After(lifetime * 5 / 8):
	case <-t.Context().Done():
	}
	bed.OK(t, proxy.Set(bed.NoFault))
	c.waitForChanges(t, all, 3, lifetime)
	all.finish()
	checkFresh(t, all, 0)
}

// metrics returns the metrics of one node.
func (c *cluster) metrics(t *testing.T, node *bed.Node) map[string]float64 {
	t.Helper()
	series := bed.Must(c.tryMetrics(t.Context(), node))(t)
	return series
}

// tryMetrics returns the metrics of a node that may not answer yet.
func (c *cluster) tryMetrics(ctx context.Context, node *bed.Node) (map[string]float64, error) {
	series, err := tryScrape(ctx, &http.Client{Transport: withToken(c.bed.Vault.RootToken)}, node.Address+"/v1/"+bed.Mount+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", node.ID, err)
	}
	return series, nil
}

// withToken is a transport that adds a Vault token to each request.
type withToken string

func (token withToken) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("X-Vault-Token", string(token))
	return http.DefaultTransport.RoundTrip(req)
}

// In an outage, every node reports the active node's state of a token.
func TestEveryNodeReportsAnOutage(t *testing.T) {
	t.Parallel()
	c := standbys(t)
	u := c.upstream(t, 15*time.Second)
	proxy := u.behindProxy(t, map[string]any{})
	u.token(t, "token/"+u.name)
	c.readAtStandbys(t, u, "token/"+u.name)
	bed.OK(t, proxy.Set(bed.Unavailable))
	for _, want := range []string{"failing", "down", "ok"} {
		if want == "ok" {
			bed.OK(t, proxy.Set(bed.NoFault))
		}
		bed.Until(t, 30*time.Second, "state "+want, func() bool { return u.read(t, "status/"+u.name)["state"] == want })
		for _, node := range c.standbys {
			secret := bed.Must(c.clients[node].Logical().ReadWithContext(t.Context(), bed.Mount+"/status/"+u.name))(t)
			if got := secret.Data["state"]; got != want {
				t.Errorf("%s says %v, the active node %s", node.ID, got, want)
			}
			if cause, _ := secret.Data["last_error"].(string); (cause != "") != (want != "ok") {
				t.Errorf("%s reports the last failure %q in state %s", node.ID, cause, want)
			}
			list := bed.Must(c.clients[node].Logical().ListWithContext(t.Context(), bed.Mount+"/status"))(t)
			info, _ := list.Data["key_info"].(map[string]any)
			entry, _ := info[u.name].(map[string]any)
			if entry["state"] != want {
				t.Errorf("%s lists %v, the active node %s", node.ID, entry["state"], want)
			}
			// Only the active node has metrics of tokens.
			for series := range c.metrics(t, node) {
				if strings.HasPrefix(series, "mcp_oauth_tokens") || strings.Contains(series, fmt.Sprintf("server=%q", u.name)) {
					t.Errorf("%s, which refreshes nothing, has %s", node.ID, series)
				}
			}
		}
		failures := c.metrics(t, c.active)[fmt.Sprintf(`mcp_oauth_token_consecutive_failures{role="", server=%q}`, u.name)]
		if (failures > 0) != (want != "ok") {
			t.Errorf("the active node counts %v failures in state %s", failures, want)
		}
	}
	for _, node := range c.bed.Nodes {
		active := 0.0
		if node == c.active {
			active = 1
		}
		if got, there := c.metrics(t, node)["mcp_oauth_active"]; got != active || !there {
			t.Errorf("%s reports mcp_oauth_active %v, want %v", node.ID, got, active)
		}
	}
}

// After a write of a config or role, its token can be read at once on any node.
func TestNoNotFoundAfterAWrite(t *testing.T) {
	t.Parallel()
	c := standbys(t)
	u := c.upstream(t, time.Hour)
	const rounds = 20
	missing := 0
	for i := range rounds {
		name := fmt.Sprintf("%s-%d", u.name, i)
		for _, path := range []string{name, name + "/reader"} {
			if path == name {
				u.write(t, "config/"+name, u.settings(nil))
			} else {
				u.write(t, "role/"+path, map[string]any{"scopes": "tools:list"})
			}
			for _, node := range c.standbys {
				switch got := readStatus(t.Context(), c.clients[node], "token/"+path); got {
				case http.StatusOK:
				case http.StatusNotFound:
					missing++
				default:
					t.Errorf("%s answers %d for token/%s", node.ID, got, path)
				}
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d first reads at a standby were answered with 404", missing, 2*rounds*len(c.standbys))
	}
}

// Reads at standbys restart a dead plugin on the active node, in time for the refresh.
func TestReadersAtStandbysReviveTheActivePlugin(t *testing.T) {
	t.Parallel()
	const lifetime = 24 * time.Second // refreshed after 12 s
	c, u := ownCluster(t, lifetime, "")
	all := c.readAtStandbys(t, u, "token/"+u.name)
	const attempts = 5
	for attempt := 1; ; attempt++ {
		c.waitForChanges(t, all, attempt, lifetime)
		before := c.waitUntilNothingIsForwarded(t)
		killed := bed.Must(c.active.KillPlugin())(t)
		var after float64
		bed.Eventually(t, lifetime, func() error {
			now, err := c.active.PluginPID()
			if err == nil && (now == killed || now == 0) {
				err = errors.New("the plugin has not been started again")
			}
			after, _ = c.standbyReads(t)
			return err
		})
		if after > before {
			break
		}
		// The server itself calls its plugins about once a minute, and may have restarted the plugin.
		if t.Log("the plugin was started again by another than a reader"); attempt == attempts {
			t.Fatal("no reader had to restart the plugin")
		}
	}
	c.waitForChanges(t, all, 3, 3*lifetime)
	checkFresh(t, all, lifetime/4)
}

// standbyReads returns the numbers of reads that standbys have forwarded and answered.
func (c *cluster) standbyReads(t *testing.T) (forwarded, answered float64) {
	t.Helper()
	for _, node := range c.standbys {
		series := c.metrics(t, node)
		forwarded, answered = forwarded+series[readsForwarded], answered+series[readsAnswered]
	}
	return forwarded, answered
}

// waitUntilNothingIsForwarded waits until the standbys have answered 20 reads in a row, and returns the number of
// reads forwarded so far.
func (c *cluster) waitUntilNothingIsForwarded(t *testing.T) (forwarded float64) {
	t.Helper()
	since := 0.0
	bed.Eventually(t, 10*time.Second, func() error {
		now, answered := c.standbyReads(t)
		if now != forwarded || since == 0 {
			forwarded, since = now, answered
		}
		if answered-since < 20 {
			return errors.New("the standbys forward reads")
		}
		return nil
	})
	return forwarded
}

// With disable_standby_reads a standby forwards all reads.
func TestStandbysForwardWithoutStandbyReads(t *testing.T) {
	t.Parallel()
	c, u := ownCluster(t, time.Hour, "disable_standby_reads = true\n")
	u.token(t, "token/"+u.name)
	before := c.metrics(t, c.active)[readsAnswered]
	const reads = 20
	for _, node := range c.standbys {
		if active := c.metrics(t, node)["mcp_oauth_active"]; active != 1 {
			t.Errorf("mcp_oauth_active is %v at %s, which answered the read itself", active, node.ID)
		}
		for range reads {
			bed.Must(c.bed.ReadToken(t.Context(), c.clients[node], "token/"+u.name))(t)
		}
	}
	if got := c.metrics(t, c.active)[readsAnswered] - before; got != float64(reads*len(c.standbys)) {
		t.Errorf("the active node has answered %v of %d reads at standbys", got, reads*len(c.standbys))
	}
}

// These series count reads of tokens that a node answers itself or forwards.
const (
	readsAnswered  = `mcp_oauth_token_reads_total{outcome="success"}`
	readsForwarded = `mcp_oauth_token_reads_total{outcome="forwarded"}`
)

// waitForOwnAnswer reads a token at a standby until the standby answers by itself, which shows that it has received
// the write.
func (c *cluster) waitForOwnAnswer(t *testing.T, node *bed.Node, path string) {
	t.Helper()
	before := c.metrics(t, node)[readsAnswered]
	bed.Eventually(t, 10*time.Second, func() error {
		if _, err := c.bed.ReadToken(t.Context(), c.clients[node], path); err != nil {
			return err
		}
		series, err := c.tryMetrics(t.Context(), node)
		if err == nil && series[readsAnswered] == before {
			err = fmt.Errorf("%s has forwarded all reads of %s", node.ID, path)
		}
		return err
	})
}

// A standby answers reads of a token by itself until the token is due.
func TestWarmReadsStayAtTheStandby(t *testing.T) {
	t.Parallel()
	c, u := ownCluster(t, time.Hour, "")
	held := u.token(t, "token/"+u.name)
	for _, node := range c.standbys {
		c.waitForOwnAnswer(t, node, "token/"+u.name)
		before := c.metrics(t, node)
		for range 50 {
			if token, err := c.bed.ReadToken(t.Context(), c.clients[node], "token/"+u.name); err != nil || token.TokenID != held.TokenID {
				t.Fatal(node.ID, err)
			}
		}
		after := c.metrics(t, node)
		if local, passedOn := after[readsAnswered]-before[readsAnswered], after[readsForwarded]-before[readsForwarded]; local != 50 || passedOn != 0 {
			t.Errorf("%s has answered %v of 50 reads itself and forwarded %v", node.ID, local, passedOn)
		}
	}
	// Every node returns the token of the latest write.
	for audience := range 10 {
		want := fmt.Sprint(audience)
		u.write(t, "config/"+u.name, map[string]any{"audience": want, "verify": false})
		for _, node := range c.standbys {
			secret := bed.Must(c.clients[node].Logical().ReadWithContext(t.Context(), bed.Mount+"/config/"+u.name))(t)
			if secret == nil || secret.Data["audience"] != want {
				t.Errorf("%s reads an older config", node.ID)
			}
		}
	}
}

// If a node lacks the plugin's binary, a broker gets a hint.
func TestNodeWithoutTheBinary(t *testing.T) {
	t.Parallel()
	c, u := ownCluster(t, time.Hour, "")
	node := c.standbys[0]
	bed.OK(t, node.WithoutPlugin(t.Context()))
	source := u.source(t, c.clients[node])
	_, err := source.Token()
	bed.WantError(t, err, "no such config or role", "does not run on the node that answered")
	wantStatus(t, c.clients[node], "token/"+u.name, http.StatusNotFound)
}
