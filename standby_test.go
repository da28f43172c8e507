package mcpoauth

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// passiveStates are the states in which a node may not write its own storage.
var passiveStates = map[string]consts.ReplicationState{
	"performance standby":                consts.ReplicationPerformanceStandby,
	"performance standby of a secondary": consts.ReplicationPerformanceSecondary | consts.ReplicationPerformanceStandby,
	"DR secondary":                       consts.ReplicationDRSecondary,
}

// replicated returns the storage of an active node. weather and its role have a token of an hour, a minute old. maps
// has a published, plugin-made key and no token.
func replicated(t *testing.T, as *authServer) *testStorage {
	t.Helper()
	storage := &testStorage{}
	active := newNode(t, storage, 0)
	active.configure(as, nil)
	active.write("role/weather/reader", fields{"verify": false})
	active.stash(weather, "t0ken-stored", time.Minute, time.Hour)
	active.stash(reader, "t0ken-of-the-role", time.Minute, time.Hour)
	active.write("config/maps", with(as.endpoint(), fields{"key_type": "ec-p256", "publish_jwks": true}))
	active.stop()
	return storage
}

// onPassiveNodes runs a test in a bubble for each kind of passive node, on the storage of replicated.
func onPassiveNodes(t *testing.T, test func(t *testing.T, as *authServer, m *mount, state consts.ReplicationState)) {
	for name, state := range passiveStates {
		t.Run(name, func(t *testing.T) {
			as := newAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				m := newNode(t, replicated(t, as), state)
				test(t, as, m, state)
			})
		})
	}
}

// A passive node serves tokens, published keys and its own metrics without a request.
func TestPassiveNodeServesStoredTokensAndKeys(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, _ consts.ReplicationState) {
		was := m.storage.entries(t)
		m.holds("weather", "t0ken-stored")
		m.holds("weather/reader", "t0ken-of-the-role")
		equal(t, "published keys", len(m.jwks("maps")), 1)
		if got, there := m.metrics()[`active{}`]; got != 0 || !there {
			t.Errorf("the metrics say that the node is active: %v", got)
		}
		m.storage.unchanged(t, was)
		as.asked(t, 0, "after reading everything")
	})
}

// Vault forwards a request that ends with logical.ErrReadOnly. The passive node must not contact a server first,
// because the active node repeats the whole request.
func TestPassiveNodeForwardsRequestsThatItMayNotServe(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, _ consts.ReplicationState) {
		mcp := newMCPServer(t, as, nil)
		m.stash(tokensOf("maps", ""), "t0ken-of-yesterday", 24*time.Hour, time.Hour)
		was := m.storage.entries(t)
		held, _ := m.read("token/weather")["token_id"].(string)
		for _, ask := range []struct {
			op   logical.Operation
			path string
			data fields
		}{
			{logical.ReadOperation, "token/maps", nil}, // the stored token has expired
			{logical.UpdateOperation, "refresh/maps", nil},
			{logical.UpdateOperation, "refresh/weather", nil},
			{logical.UpdateOperation, "refresh/weather", fields{"token_id": held}},
			{logical.UpdateOperation, "refresh/weather/reader", nil},
			{logical.UpdateOperation, "config/weather", as.client()}, // an unchanged config
			{logical.UpdateOperation, "config/weather", fields{"audience": "b"}},
			{logical.UpdateOperation, "config/weather", fields{"audience": "b", "verify": false}},
			{logical.UpdateOperation, "config/new", as.client()},
			{logical.UpdateOperation, "config/new", mcp.client()},
			{logical.UpdateOperation, "config/new", with(as.endpoint(), fields{"key_type": "ec-p256"})},
			{logical.DeleteOperation, "config/weather", nil},
			{logical.DeleteOperation, "config/absent", nil},
			{logical.UpdateOperation, "role/weather/reader", fields{"audience": "b"}},
			{logical.UpdateOperation, "role/weather/new", fields{"verify": false}},
			{logical.DeleteOperation, "role/weather/reader", nil},
			{logical.UpdateOperation, "keys/maps/rotate", nil},
			// A recent write may not have arrived at this node.
			{logical.ReadOperation, "token/absent", nil},
			{logical.ReadOperation, "token/weather/absent", nil},
			{logical.ReadOperation, "jwks/absent", nil},
			// Every node gives operators the same answer.
			{logical.ReadOperation, "status/weather", nil},
			{logical.ReadOperation, "status/weather/reader", nil},
			{logical.ReadOperation, "status/absent", nil},
			{logical.ListOperation, "status/", nil},
			{logical.ReadOperation, "config/weather", nil},
			{logical.ReadOperation, "config/absent", nil},
			{logical.ListOperation, "config/", nil},
			{logical.ReadOperation, "role/weather/reader", nil},
			{logical.ListOperation, "role/", nil},
			{logical.ListOperation, "role/weather/", nil},
			{logical.ListOperation, "status/weather/", nil},
			{logical.ReadOperation, "keys/maps", nil},
		} {
			m.readOnly(ask.op, ask.path, ask.data)
		}
		m.holds("weather", "t0ken-stored")
		m.storage.unchanged(t, was)
		as.asked(t, 0, "after all")
		m.counts(map[string]float64{ // refreshes count on the active node
			`token_reads_total{outcome="forwarded"}`:    3,
			`token_refreshes_total{outcome="replaced"}`: 0,
			`token_refreshes_total{outcome="kept"}`:     0,
			`token_refreshes_total{outcome="failed"}`:   0,
		})
		equal(t, "requests for metadata and to the MCP server", []int{as.looked(), mcp.called()}, []int{0, 0})
	})
}

// Within a day every token becomes due and expires.
func TestPassiveNodeDoesNothingByItself(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, _ consts.ReplicationState) {
		synctest.Wait() // the loading ends
		was := m.storage.entries(t)
		toStorage, toVault := m.storage.calls.Load(), m.system.calls.Load()
		time.Sleep(24 * time.Hour)
		equal(t, "storage calls in a day without a request", m.storage.calls.Load()-toStorage, int64(0))
		equal(t, "calls to Vault in a day without a request", m.system.calls.Load()-toVault, int64(0))
		m.readOnly(logical.ReadOperation, "token/weather", nil)
		m.readOnly(logical.ReadOperation, "token/weather/reader", nil)
		m.storage.unchanged(t, was)
		as.asked(t, 0, "after a day")
	})
}

// A passive node forwards the read of a token that is due for refresh, so that the active node learns of the reader.
func TestPassiveNodeLeavesRefreshingToTheActiveOne(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, _ consts.ReplicationState) {
		for range 29 {
			m.holds("weather", "t0ken-stored")
			time.Sleep(time.Minute)
		}
		for range 20 {
			time.Sleep(time.Minute)
			m.readOnly(logical.ReadOperation, "token/weather", nil)
		}
		as.asked(t, 0, "after an hour of reading")
	})
}

// On a node that becomes active, Vault mounts again. The mount sets the timers without a read.
func TestNodeThatBecomesActiveTakesUpRefreshing(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, state consts.ReplicationState) {
		m.token("weather")
		m.stop()
		m.system.becomes(state &^ (consts.ReplicationPerformanceStandby | consts.ReplicationDRSecondary))
		m.start()
		m.holds("weather", "t0ken-stored")
		synctest.Wait()
		as.asked(t, 0, "after the change of state")
		time.Sleep(45 * time.Minute)
		as.asked(t, 2, "after the time at which both tokens are due")
		for _, name := range []string{"weather", "weather/reader"} {
			if got := m.token(name); got != "t0ken-1" && got != "t0ken-2" {
				t.Errorf("the token of %s is %q; want a new one", name, got)
			}
		}
		time.Sleep(time.Hour)
		as.asked(t, 4, "an hour later")
	})
}

// If a mount's state changes, requests notice within seconds. Then a read of a due token starts refreshing.
func TestStateThatChangesUnderAMount(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, state consts.ReplicationState) {
		m.token("weather")
		synctest.Wait()
		m.system.becomes(consts.ReplicationDRDisabled | consts.ReplicationPerformanceDisabled)
		m.readOnly(logical.ReadOperation, "token/maps", nil) // the change is unnoticed yet
		time.Sleep(replicationStateLife)
		m.holds("maps", "t0ken-1")
		m.write("config/maps", fields{"max_ttl": "2h", "verify": false})
		time.Sleep(45 * time.Minute)
		m.holds("weather", "t0ken-stored")
		synctest.Wait()
		asked := as.count()
		time.Sleep(time.Hour)
		if as.count() < asked+2 {
			t.Errorf("%d requests in an hour; want one for weather and one for maps at least", as.count()-asked)
		}

		m.system.becomes(state)
		m.metrics() // any request reads the state
		asked = as.count()
		was := m.storage.entries(t)
		time.Sleep(24 * time.Hour)
		m.readOnly(logical.ReadOperation, "token/weather", nil)
		m.storage.unchanged(t, was)
		as.asked(t, asked, "after a passive day")
	})
}

// cluster is a primary and a performance secondary. Configs and roles are replicated; each cluster has its own
// tokens.
type cluster struct {
	t                  *testing.T
	primary, secondary *mount
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return &cluster{
		t:         t,
		primary:   newNode(t, &testStorage{}, consts.ReplicationPerformancePrimary),
		secondary: newNode(t, &testStorage{}, consts.ReplicationPerformanceSecondary),
	}
}

// replicate copies the primary's configs and roles to the secondary, and invalidates the changed keys, as Vault does.
func (c *cluster) replicate() {
	c.t.Helper()
	from, to, storage := c.primary.storage.entries(c.t), c.secondary.storage.entries(c.t), &c.secondary.storage.InmemStorage
	all := maps.Clone(from)
	maps.Copy(all, to)
	for key := range all {
		value, exists := from[key]
		if strings.HasPrefix(key, tokenPrefix) || exists && to[key] == value {
			continue
		}
		if exists {
			noError(c.t, storage.Put(c.t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}))
		} else {
			noError(c.t, storage.Delete(c.t.Context(), key))
		}
		c.secondary.b.InvalidateKey(c.t.Context(), key)
	}
}

// The active node of a performance secondary fetches, stores and refreshes its own tokens.
func TestPerformanceSecondaryKeepsItsOwnTokens(t *testing.T) {
	as := newAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.primary.write("config/weather", as.client()) // t0ken-1
		c.primary.stop()                               // its refreshes would be counted
		c.replicate()
		c.secondary.holds("weather", "t0ken-2")
		equal(t, "the secondary's keys", keysOf(t, c.secondary), []string{"config/weather", "token/weather"})
		c.secondary.restart()
		c.secondary.holds("weather", "t0ken-2")
		time.Sleep(46 * time.Minute)
		c.secondary.holds("weather", "t0ken-3")
		equal(t, "refreshed", c.secondary.refresh("weather", nil)["refreshed"], true)
		c.secondary.holds("weather", "t0ken-4")
		c.secondary.restart()
		c.secondary.holds("weather", "t0ken-4")
	})
	as.asked(t, 4, "after all")
}

// Configs, roles and keys are written only by the primary.
func TestPerformanceSecondaryHasWritesForwarded(t *testing.T) {
	as := newAuthServer(t)
	storage := replicated(t, as)
	was := storage.entries(t)
	m := newNode(t, storage, consts.ReplicationPerformanceSecondary)
	for _, path := range []string{"config/weather", "config/new", "role/weather/reader", "role/weather/new"} {
		m.readOnly(logical.UpdateOperation, path, as.client())
		m.readOnly(logical.DeleteOperation, path, nil)
	}
	m.readOnly(logical.UpdateOperation, "keys/maps/rotate", nil)
	storage.unchanged(t, was)
	as.asked(t, 0, "after refused writes")
}

// Invalidations carry the primary's writes to the secondary's tokens.
func TestPerformanceSecondaryFollowsThePrimary(t *testing.T) {
	as := newAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.primary.configure(as, nil)
		c.primary.write("role/weather/reader", fields{"audience": "r", "verify": false})
		c.replicate()
		c.secondary.token("weather")
		c.secondary.token("weather/reader")
		as.asked(t, 2, "at first")

		c.primary.write("config/weather", fields{"audience": "b", "verify": false})
		c.replicate()
		c.secondary.token("weather")
		as.asked(t, 3, "after a config of another shape")
		equal(t, "the audience", as.await(3).form.Get("audience"), "b")
		c.secondary.token("weather/reader")
		as.asked(t, 3, "after reading the role, whose shape has not changed")

		c.primary.delete("role/weather/reader")
		c.replicate()
		synctest.Wait()
		equal(t, "the keys without the role", keysOf(t, c.secondary), []string{"config/weather", "token/weather"})
		c.secondary.missing("token/weather/reader")

		c.primary.write("role/weather/reader", fields{"verify": false})
		c.replicate()
		c.secondary.token("weather/reader")
		c.primary.delete("config/weather")
		c.replicate()
		synctest.Wait()
		equal(t, "the keys without the config", keysOf(t, c.secondary), nil)
		c.secondary.missing("token/weather")
		c.secondary.missing("token/weather/reader")
		asked := as.count()
		time.Sleep(24 * time.Hour)
		as.asked(t, asked, "a day after the delete")
	})
}

// A passive node drops orphans only from memory, and forwards reads of them to the active node.
func TestPassiveNodeDropsOrphansFromMemoryOnly(t *testing.T) {
	for name, state := range passiveStates {
		for _, gone := range []string{"config/weather", "role/weather/reader"} {
			t.Run(gone+" on a "+name, func(t *testing.T) {
				as := newAuthServer(t)
				synctest.Test(t, func(t *testing.T) {
					m := newNode(t, replicated(t, as), state)
					m.token("weather/reader")
					noError(t, m.storage.InmemStorage.Delete(t.Context(), gone))
					was := m.storage.entries(t)
					m.b.InvalidateKey(t.Context(), gone)
					m.readOnly(logical.ReadOperation, "token/weather/reader", nil)
					synctest.Wait()
					m.readOnly(logical.ReadOperation, "token/weather/reader", nil)
					m.storage.unchanged(t, was)
				})
				as.asked(t, 0, "after all")
			})
		}
	}
}

// Vault invalidates every changed key, including those of other entries.
func TestInvalidationOfOtherKeys(t *testing.T) {
	for name, state := range map[string]consts.ReplicationState{
		"active": 0, "performance standby": consts.ReplicationPerformanceStandby,
	} {
		t.Run(name, func(t *testing.T) {
			as := newAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				m := newNode(t, replicated(t, as), state)
				m.token("weather")
				synctest.Wait()
				was := m.storage.entries(t)
				for _, key := range []string{
					"", "/", "config", "config/", "config/absent", "config/weather/x", "role/", "role/weather",
					"role/weather/", "role/weather/absent", "role/weather/reader/x", "token/", "token/absent",
					"token/weather/", "token/weather/reader/x", "other/weather", "xtoken/weather",
				} {
					m.b.InvalidateKey(t.Context(), key)
				}
				synctest.Wait()
				m.holds("weather", "t0ken-stored")
				m.holds("weather/reader", "t0ken-of-the-role")
				m.storage.unchanged(t, was)
			})
			as.asked(t, 0, "after all")
		})
	}
}

func TestStandbyServesTheActiveNodesToken(t *testing.T) {
	as := newAuthServer(t)
	storage := replicated(t, as)
	active, standby := newNode(t, storage, 0), newNode(t, storage, consts.ReplicationPerformanceStandby)
	standby.readOnly(logical.ReadOperation, "token/maps", nil)
	rejected := standby.read("token/weather")["token_id"]

	got := active.refresh("weather", fields{"token_id": rejected}) // as Vault forwards it
	standby.b.InvalidateKey(t.Context(), "token/weather")
	held := standby.read("token/weather")["token_id"]
	equal(t, "the standby's token", held, got["token_id"])
	equal(t, "the rejected token is held", held == rejected, false)
	active.token("maps")
	standby.b.InvalidateKey(t.Context(), "token/maps")
	standby.holds("maps", active.token("maps"))
	as.asked(t, 2, "after all")
}
