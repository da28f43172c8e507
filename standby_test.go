package mcpoauth

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// passiveStates are those of nodes that may not write their own storage.
var passiveStates = map[string]consts.ReplicationState{
	"performance standby":                consts.ReplicationPerformanceStandby,
	"performance standby of a secondary": consts.ReplicationPerformanceSecondary | consts.ReplicationPerformanceStandby,
	"DR secondary":                       consts.ReplicationDRSecondary,
}

// replicated is storage as an active node left it: weather and its role have a token
// of an hour, a minute old; maps, with a published key that the plugin made, has none.
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

// onPassiveNodes runs a test in a bubble on a passive node of each kind, with the storage of replicated and a new
// authorization server.
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

// Tokens, published keys and the node's own metrics are answered at the node, and cost no request.
func TestPassiveNodeServesWhatIsStored(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, _ consts.ReplicationState) {
		was := m.storage.entries(t)
		m.holds("weather", "t0ken-stored")
		if got := m.token("weather/reader"); got != "t0ken-of-the-role" {
			t.Errorf("the role's token is %q", got)
		}
		if published := m.jwks("maps"); len(published) != 1 {
			t.Errorf("the published keys are %q; want one", published)
		}
		if got, there := m.metrics()[`active{}`]; got != 0 || !there {
			t.Errorf("the metrics say that the node is active: %v", got)
		}
		m.storage.unchanged(t, was)
		as.asked(t, 0, "after reading everything")
	})
}

// Vault forwards what logical.ErrReadOnly comes back from. Nobody must have been
// contacted by then: the active node does it all again.
func TestPassiveNodeHasForwardedWhatItMayNotDo(t *testing.T) {
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
			{logical.ReadOperation, "token/maps", nil}, // what is stored has expired
			{logical.UpdateOperation, "refresh/maps", nil},
			{logical.UpdateOperation, "refresh/weather", nil},
			{logical.UpdateOperation, "refresh/weather", fields{"token_id": held}},
			{logical.UpdateOperation, "refresh/weather/reader", nil},
			{logical.UpdateOperation, "config/weather", as.client()}, // the same again
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
			// What was written a moment ago may not have reached this node.
			{logical.ReadOperation, "token/absent", nil},
			{logical.ReadOperation, "token/weather/absent", nil},
			{logical.ReadOperation, "jwks/absent", nil},
			// Operators are told the same at every node.
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
		m.counts(map[string]float64{ // they count where they are done
			`token_reads_total{outcome="forwarded"}`:    3,
			`token_refreshes_total{outcome="replaced"}`: 0,
			`token_refreshes_total{outcome="kept"}`:     0,
			`token_refreshes_total{outcome="failed"}`:   0,
		})
		if as.looked() != 0 || mcp.called() != 0 {
			t.Errorf("%d requests for metadata and %d to the MCP server; want none", as.looked(), mcp.called())
		}
	})
}

// A day goes by, in which every token comes due and expires.
func TestPassiveNodeDoesNothingByItself(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, _ consts.ReplicationState) {
		synctest.Wait() // until all is loaded
		was := m.storage.entries(t)
		toStorage, toVault := m.storage.calls.Load(), m.system.calls.Load()
		time.Sleep(24 * time.Hour)
		if n := m.storage.calls.Load() - toStorage; n != 0 {
			t.Errorf("%d storage calls in a day without a request; want none", n)
		}
		if n := m.system.calls.Load() - toVault; n != 0 {
			t.Errorf("%d calls to Vault in a day without a request; want none", n)
		}
		m.readOnly(logical.ReadOperation, "token/weather", nil)
		m.readOnly(logical.ReadOperation, "token/weather/reader", nil)
		m.storage.unchanged(t, was)
		as.asked(t, 0, "after a day")
	})
}

// Reading a token that is due for its refresh starts none here: it is left to the active node, which
// learns of the reader.
func TestPassiveNodeLeavesRefreshingToTheActiveOne(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, _ consts.ReplicationState) {
		for range 29 {
			if got := m.token("weather"); got != "t0ken-stored" {
				t.Fatalf("the token is %q", got)
			}
			time.Sleep(time.Minute)
		}
		for range 20 {
			time.Sleep(time.Minute)
			m.readOnly(logical.ReadOperation, "token/weather", nil)
		}
		as.asked(t, 0, "after an hour of reading")
	})
}

// Vault sets the mounts of a node that becomes active up anew. The timers are set then,
// without a read.
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

// Should the state change under a mount, requests notice it within seconds. Whoever
// reads a token that is due sets its refreshing going.
func TestStateThatChangesUnderAMount(t *testing.T) {
	onPassiveNodes(t, func(t *testing.T, as *authServer, m *mount, state consts.ReplicationState) {
		m.token("weather")
		synctest.Wait()
		m.system.becomes(consts.ReplicationDRDisabled | consts.ReplicationPerformanceDisabled)
		m.readOnly(logical.ReadOperation, "token/maps", nil) // it is not known yet
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
		m.metrics() // any request notices
		asked = as.count()
		was := m.storage.entries(t)
		time.Sleep(24 * time.Hour)
		m.readOnly(logical.ReadOperation, "token/weather", nil)
		m.storage.unchanged(t, was)
		as.asked(t, asked, "after a passive day")
	})
}

// cluster is a primary and a performance secondary. Configs and roles are replicated to
// the secondary, tokens are each one's own.
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

// replicate brings the secondary's configs and roles in line with the primary's, and
// tells it the keys that changed, as Vault does.
func (c *cluster) replicate() {
	c.t.Helper()
	there := c.secondary.storage.entries(c.t)
	maps.DeleteFunc(there, func(key, _ string) bool { return strings.HasPrefix(key, tokenPrefix) })
	for key, value := range c.primary.storage.entries(c.t) {
		if strings.HasPrefix(key, tokenPrefix) || there[key] == value {
			delete(there, key)
			continue
		}
		delete(there, key)
		err := c.secondary.storage.InmemStorage.Put(c.t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)})
		if err != nil {
			c.t.Fatal(err)
		}
		c.secondary.b.InvalidateKey(c.t.Context(), key)
	}
	for key := range there {
		if err := c.secondary.storage.InmemStorage.Delete(c.t.Context(), key); err != nil {
			c.t.Fatal(err)
		}
		c.secondary.b.InvalidateKey(c.t.Context(), key)
	}
}

// A performance secondary's active node fetches, keeps and refreshes tokens of its own.
func TestPerformanceSecondaryKeepsItsOwnTokens(t *testing.T) {
	as := newAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.primary.write("config/weather", as.client()) // t0ken-1
		c.primary.stop()                               // its refreshes are not the matter here
		c.replicate()
		c.secondary.holds("weather", "t0ken-2")
		equal(t, "the secondary's keys", keysOf(t, c.secondary), []string{"config/weather", "token/weather"})
		c.secondary.stop()
		c.secondary.start()
		c.secondary.holds("weather", "t0ken-2")
		time.Sleep(46 * time.Minute)
		c.secondary.holds("weather", "t0ken-3")
		if got := c.secondary.refresh("weather", nil); got["refreshed"] != true {
			t.Errorf("the refresh gives %v", got)
		}
		c.secondary.holds("weather", "t0ken-4")
		c.secondary.stop()
		c.secondary.start()
		c.secondary.holds("weather", "t0ken-4")
	})
	as.asked(t, 4, "after all")
}

// Configs, roles and keys are the primary's to write.
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

// The primary's writes reach the secondary's tokens by way of invalidation.
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
		if got := as.await(3).form.Get("audience"); got != "b" {
			t.Errorf("the audience is %q; want the new one", got)
		}
		c.secondary.token("weather/reader")
		as.asked(t, 3, "after reading the role, whose shape is as it was")

		c.primary.delete("role/weather/reader")
		c.replicate()
		synctest.Wait()
		equal(t, "the keys without the role", keysOf(t, c.secondary), []string{"config/weather", "token/weather"})
		c.secondary.refused(http.StatusNotFound, logical.ReadOperation, "token/weather/reader", nil)

		c.primary.write("role/weather/reader", fields{"verify": false})
		c.replicate()
		c.secondary.token("weather/reader")
		c.primary.delete("config/weather")
		c.replicate()
		synctest.Wait()
		equal(t, "the keys without the config", keysOf(t, c.secondary), nil)
		c.secondary.refused(http.StatusNotFound, logical.ReadOperation, "token/weather", nil)
		c.secondary.refused(http.StatusNotFound, logical.ReadOperation, "token/weather/reader", nil)
		asked := as.count()
		time.Sleep(24 * time.Hour)
		as.asked(t, asked, "a day after the delete")
	})
}

// On a node that may not write, what is orphaned goes from memory alone, and the active node says that it is gone.
func TestPassiveNodeDropsOrphansFromMemoryOnly(t *testing.T) {
	for name, state := range passiveStates {
		for _, gone := range []string{"config/weather", "role/weather/reader"} {
			t.Run(gone+" on a "+name, func(t *testing.T) {
				as := newAuthServer(t)
				synctest.Test(t, func(t *testing.T) {
					m := newNode(t, replicated(t, as), state)
					m.token("weather/reader")
					if err := m.storage.InmemStorage.Delete(t.Context(), gone); err != nil {
						t.Fatal(err)
					}
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

// Vault tells of every key that changed, whosever it is.
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
				for name, want := range map[string]string{"weather": "t0ken-stored", "weather/reader": "t0ken-of-the-role"} {
					m.holds(name, want)
				}
				m.storage.unchanged(t, was)
			})
			as.asked(t, 0, "after all")
		})
	}
}

// What the active node obtained is what a standby then serves.
func TestStandbyServesWhatTheActiveNodeObtained(t *testing.T) {
	as := newAuthServer(t)
	storage := replicated(t, as)
	active, standby := newNode(t, storage, 0), newNode(t, storage, consts.ReplicationPerformanceStandby)
	standby.readOnly(logical.ReadOperation, "token/maps", nil)
	rejected := standby.read("token/weather")["token_id"]

	got := active.refresh("weather", fields{"token_id": rejected}) // as Vault forwards it
	standby.b.InvalidateKey(t.Context(), "token/weather")
	if held := standby.read("token/weather")["token_id"]; held != got["token_id"] || held == rejected {
		t.Errorf("the standby serves %v; want the new token, %v", held, got["token_id"])
	}
	active.token("maps")
	standby.b.InvalidateKey(t.Context(), "token/maps")
	if got, want := standby.token("maps"), active.token("maps"); got != want {
		t.Errorf("the standby serves %q; want %q", got, want)
	}
	as.asked(t, 2, "after all")
}
