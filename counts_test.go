package mcpoauth

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// cooldown is the age below which refresh/ does not replace a token.
const cooldown = 10 * time.Second

// call is a call from the plugin to Vault, to its storage or its system view, and what it
// is for. Each is a round trip.
type call struct{ made, why string }

// The reasons of calls that are made in several operations.
const (
	existence  = "the existence check, which makes the write a create or an update: a request of its own"
	forward    = "LocalMount: the framework asks before a write that a performance secondary forwards"
	built      = "what the write changes, with its revision"
	underLock  = "whether the revision is still that one, under the write lock"
	beforeAS   = "comes before every call to an authorization server: is Vault there, what is the request, what is the revision"
	roleToo    = "the role belongs to the request, and the config's incarnation to the role"
	fromBefore = "a token that was obtained before a restart, which need not be obtained again"
	saved      = "a restart or a failover must not cost a token"
	written    = "what the write is for"
	otherShape = "the stored token is of another shape: it is one no more"
	changed    = "the role's terms follow from the config's: is its token still of their shape?"
	leftOver   = "what a delete that was cut short left of an earlier config of this name"
	ofDeleted  = "a config is deleted with its roles and tokens"
	answered   = "what is asked for"
	unproved   = "the credentials were stored unverified: did a token request succeed with them before a restart?"
	proved     = "they are verified now, which status/ shows, on other nodes and after a restart too"
)

// counted is one operation on a mount, and the calls that it makes to Vault.
type counted struct {
	name    string
	prepare func(*counting)
	do      func(*counting)
	calls   []call
	atOnce  bool // the calls are made at once, in no order
	asked   int  // requests to the authorization server
}

// counting is a mount whose calls are recorded.
type counting struct {
	*mount
	as *authServer

	mu   sync.Mutex // guards made
	made []string
}

func newCounting(t *testing.T, as *authServer) *counting {
	t.Helper()
	c := &counting{as: as}
	c.mount = newMountOn(t, &testStorage{before: c.record}, &testSystem{before: c.record})
	return c
}

func (c *counting) record(call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, call)
}

// taken gives the calls that were made since it was last asked.
func (c *counting) taken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	made := c.made
	c.made = nil
	return made
}

// later lets time pass, and makes the replication state known anew.
func (c *counting) later(pass time.Duration) {
	c.t.Helper()
	time.Sleep(pass)
	c.list("config/")
}

// restart is a restart of Vault: what is stored is loaded.
func (c *counting) restart() {
	c.t.Helper()
	c.stop()
	c.start()
}

// atOnce does f many times at once.
func (c *counting) atOnce(times int, f func()) {
	var all sync.WaitGroup
	for range times {
		all.Go(f)
	}
	all.Wait()
}

// roles writes two roles, and reads their tokens and the config's.
func (c *counting) roles() {
	c.t.Helper()
	for _, role := range []string{"reader", "writer"} {
		c.write("role/weather/"+role, fields{"scopes": role, "verify": false})
		c.token("weather/" + role)
	}
	c.token("weather")
}

// manyReads reads a token many times.
func manyReads(name string) func(*counting) {
	return func(c *counting) {
		for range 1000 {
			c.token(name)
		}
	}
}

// Every call from the plugin to Vault is a round trip, so each has a reason.
func TestEveryCallToVaultIsNeeded(t *testing.T) {
	nothing := func(*counting) {}
	configured := func(c *counting) { c.configure(c.as, nil) }
	held := func(c *counting) { configured(c); c.token("weather") }
	withRole := func(c *counting) {
		configured(c)
		c.write("role/weather/reader", fields{"scopes": "reader", "verify": false})
	}
	withRoles := func(c *counting) { configured(c); c.roles() }
	withKeys := func(c *counting) {
		c.write("config/weather", with(c.as.endpoint(), fields{"key_type": "ed25519", "publish_jwks": true}))
	}
	down := func(c *counting) { configured(c); c.as.answers(refusing(503, "x")) }
	unavailable := func(c *counting) {
		c.refused(http.StatusBadGateway, logical.ReadOperation, "token/weather", nil)
	}

	for _, test := range []counted{
		// Warm reads.
		{name: "warm reads", prepare: held, do: manyReads("weather")},
		{
			name:    "warm reads of a role",
			prepare: func(c *counting) { withRole(c); c.token("weather/reader") },
			do:      manyReads("weather/reader"),
		},
		{
			name:    "warm reads after a pause",
			prepare: func(c *counting) { held(c); time.Sleep(replicationStateLife) },
			do:      manyReads("weather"),
			calls:   []call{{"ReplicationState", "the framework wants it for each request; it is remembered for some seconds"}},
		},
		{
			name:    "reads within a backoff window",
			prepare: func(c *counting) { down(c); unavailable(c) },
			do: func(c *counting) {
				for range 100 {
					unavailable(c)
				}
			},
		},

		// Cold reads.
		{
			name: "a first read", prepare: configured, asked: 1,
			do: func(c *counting) { c.token("weather") },
			calls: []call{
				{"get config/weather", beforeAS},
				{"get token/weather", fromBefore},
				{"put token/weather", saved},
				{"get proved/weather", unproved},
				{"put proved/weather", proved},
			},
		},
		{
			name: "a first read of a role", prepare: withRole, asked: 1,
			do: func(c *counting) { c.token("weather/reader") },
			calls: []call{
				{"get config/weather", beforeAS},
				{"get role/weather/reader", roleToo},
				{"get token/weather/reader", fromBefore},
				{"put token/weather/reader", saved},
				{"get proved/weather", unproved},
				{"put proved/weather", proved},
			},
		},
		{
			name: "a first read that fails", prepare: down, asked: 1,
			do: unavailable,
			calls: []call{
				{"get config/weather", beforeAS},
				{"get token/weather", fromBefore},
			},
		},
		{
			name: "a read after the token expired in an outage", asked: 1,
			prepare: func(c *counting) {
				held(c)
				c.as.answers(refusing(503, "x"))
				c.later(time.Hour + 2*time.Minute)
				c.as.answers(granting(nil))
			},
			do: func(c *counting) { c.token("weather") },
			calls: []call{
				{"get config/weather", beforeAS},
				{"put token/weather", saved},
			},
		},
		{
			name: "a read of what is not configured", prepare: configured,
			do: func(c *counting) {
				c.refused(http.StatusNotFound, logical.ReadOperation, "token/absent", nil)
			},
			calls: []call{{"get config/absent", "whether it was written by now"}},
		},
		{
			name: "a thousand first readers", prepare: configured, asked: 1,
			do: func(c *counting) { c.atOnce(1000, func() { c.token("weather") }) },
			calls: []call{
				{"get config/weather", beforeAS},
				{"get token/weather", fromBefore},
				{"put token/weather", saved},
				{"get proved/weather", unproved},
				{"put proved/weather", proved},
			},
		},

		// Refreshes.
		{
			name: "refresh/", asked: 1,
			prepare: func(c *counting) { held(c); c.later(cooldown) },
			do:      func(c *counting) { c.refresh("weather", nil) },
			calls: []call{
				{"get config/weather", beforeAS},
				{"put token/weather", saved},
			},
		},
		{
			name: "refresh/ by a thousand brokers", asked: 1,
			prepare: func(c *counting) { held(c); c.later(cooldown) },
			do: func(c *counting) {
				c.atOnce(1000, func() { c.refresh("weather", fields{"token_id": firstToken}) })
			},
			calls: []call{
				{"get config/weather", beforeAS},
				{"put token/weather", saved},
			},
		},
		{
			name: "refresh/ of a role", asked: 1,
			prepare: func(c *counting) { withRole(c); c.token("weather/reader"); c.later(cooldown) },
			do:      func(c *counting) { c.refresh("weather/reader", nil) },
			calls: []call{
				{"get config/weather", beforeAS},
				{"get role/weather/reader", roleToo},
				{"put token/weather/reader", saved},
			},
		},
		{
			name: "refresh/ within the cooldown", prepare: held,
			do: func(c *counting) { c.refresh("weather", nil) },
		},
		{
			name: "a background refresh", prepare: held, asked: 1,
			do: func(*counting) { time.Sleep(46 * time.Minute) },
			calls: []call{
				{"get config/weather", beforeAS},
				{"put token/weather", saved},
			},
		},
		{
			name: "a background refresh of a role", asked: 1,
			prepare: func(c *counting) { withRole(c); c.token("weather/reader") },
			do:      func(*counting) { time.Sleep(46 * time.Minute) },
			calls: []call{
				{"get config/weather", beforeAS},
				{"get role/weather/reader", roleToo},
				{"put token/weather/reader", saved},
			},
		},

		// Writes of a config.
		{
			name: "a new config, verify=false", prepare: nothing,
			do: func(c *counting) { c.configure(c.as, nil) },
			calls: []call{
				{"get config/weather", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
				{"get config/weather", underLock},
				{"put config/weather", written},
				{"list role/weather/", leftOver},
				{"list token/weather/", leftOver},
			},
		},
		{
			name: "a new config", prepare: nothing, asked: 1,
			do: func(c *counting) { c.write("config/weather", c.as.client()) },
			calls: []call{
				{"get config/weather", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
				{"get config/weather", underLock},
				{"put config/weather", written},
				{"put token/weather", saved},
				{"list role/weather/", leftOver},
				{"list token/weather/", leftOver},
			},
		},
		{
			name: "a rewrite of a config that changes nothing", prepare: held,
			do: func(c *counting) { c.write("config/weather", c.as.client()) },
			calls: []call{
				{"get config/weather", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
			},
		},
		{
			name: "a new secret", prepare: held, asked: 1,
			do: func(c *counting) { c.write("config/weather", fields{"client_secret": secret + "2"}) },
			calls: []call{
				{"get config/weather", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
				{"get config/weather", underLock},
				{"put config/weather", written},
				{"put token/weather", saved},
			},
		},
		{
			name: "a new secret of a config with two roles", prepare: withRoles, asked: 3, atOnce: true,
			do: func(c *counting) { c.write("config/weather", fields{"client_secret": secret + "2"}) },
			calls: []call{
				{"get config/weather", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
				{"get config/weather", underLock},
				{"put config/weather", written},
				{"put token/weather", saved},
				{"get role/weather/reader", changed},
				{"get role/weather/writer", changed},
				// The tokens of the roles are refreshed in the background.
				{"get config/weather", beforeAS},
				{"get role/weather/reader", roleToo},
				{"put token/weather/reader", saved},
				{"get config/weather", beforeAS},
				{"get role/weather/writer", roleToo},
				{"put token/weather/writer", saved},
			},
		},
		{
			name: "another audience, verify=false", prepare: held,
			do: func(c *counting) {
				c.write("config/weather", fields{"audience": "https://weather.example.com", "verify": false})
			},
			calls: []call{
				{"get config/weather", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
				{"get config/weather", underLock},
				{"put config/weather", written},
				{"delete token/weather", otherShape},
			},
		},
		{
			name: "a config write that the authorization server refuses", prepare: held, asked: 1,
			do: func(c *counting) {
				c.as.answers(refusing(401, "invalid_client"))
				c.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"client_secret": secret + "2"})
			},
			calls: []call{
				{"get config/weather", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
			},
		},
		{
			name: "a delete of a config with two roles", prepare: withRoles,
			do: func(c *counting) { c.delete("config/weather") },
			calls: []call{
				{"LocalMount", forward},
				{"delete config/weather", "the config with its keys goes first"},
				{"list role/weather/", ofDeleted},
				{"list token/weather/", ofDeleted},
				{"get config/weather", "whether the name is configured again: then what belongs to that stays"},
				{"delete token/weather", ofDeleted},
				{"delete proved/weather", ofDeleted},
				{"delete role/weather/reader", ofDeleted},
				{"delete token/weather/reader", ofDeleted},
				{"delete role/weather/writer", ofDeleted},
				{"delete token/weather/writer", ofDeleted},
			},
		},
		{
			name: "a rotation of the signing key", prepare: withKeys,
			do: func(c *counting) { c.write("keys/weather/rotate", nil) },
			calls: []call{
				{"LocalMount", forward},
				{"get config/weather", built},
				{"get config/weather", underLock},
				{"put config/weather", written},
			},
		},

		// Writes of a role.
		{
			name: "a new role", prepare: configured, asked: 1,
			do: func(c *counting) { c.write("role/weather/reader", fields{"scopes": "reader"}) },
			calls: []call{
				{"get config/weather", existence + ": a role of an earlier config is none"},
				{"get role/weather/reader", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
				{"get role/weather/reader", built},
				{"get config/weather", underLock},
				{"get role/weather/reader", underLock},
				{"put role/weather/reader", written},
				{"put token/weather/reader", saved},
				{"get proved/weather", unproved},
				{"put proved/weather", proved},
			},
		},
		{
			name:    "a rewrite of a role that changes nothing",
			prepare: func(c *counting) { withRole(c); c.token("weather/reader") },
			do:      func(c *counting) { c.write("role/weather/reader", fields{"scopes": "reader"}) },
			calls: []call{
				{"get config/weather", existence + ": a role of an earlier config is none"},
				{"get role/weather/reader", existence},
				{"LocalMount", forward},
				{"get config/weather", built},
				{"get role/weather/reader", built},
			},
		},
		{
			name:    "a delete of a role",
			prepare: func(c *counting) { withRole(c); c.token("weather/reader") },
			do:      func(c *counting) { c.delete("role/weather/reader") },
			calls: []call{
				{"LocalMount", forward},
				{"delete role/weather/reader", "the role goes first"},
				{"delete token/weather/reader", "and its token with it"},
			},
		},

		// What operators and authorization servers look at.
		{
			name: "a read of a config", prepare: configured,
			do:    func(c *counting) { c.read("config/weather") },
			calls: []call{{"get config/weather", answered}},
		},
		{
			name: "a list of configs", prepare: configured,
			do:    func(c *counting) { c.list("config/") },
			calls: []call{{"list config/", answered}},
		},
		{
			name: "a read of a role", prepare: withRole,
			do: func(c *counting) { c.read("role/weather/reader") },
			calls: []call{
				{"get config/weather", "a role of an earlier config is none"},
				{"get role/weather/reader", answered},
			},
		},
		{
			name: "a list of roles", prepare: withRole,
			do: func(c *counting) { c.list("role/weather/") },
			calls: []call{
				{"get config/weather", "what a deleted config may have left is not listed"},
				{"list role/weather/", answered},
				{"get role/weather/reader", "is it a role of this config, or one that a deleted config of this name left?"},
			},
		},
		{
			name: "a status", prepare: held,
			do:    func(c *counting) { c.read("status/weather") },
			calls: []call{{"get config/weather", "the certificate and what was asked for; how the token is, is in memory"}},
		},
		{
			name: "a status of a role", prepare: withRoles,
			do: func(c *counting) { c.read("status/weather/reader") },
			calls: []call{
				{"get config/weather", "the certificate and what was asked for; how the token is, is in memory"},
				{"get role/weather/reader", roleToo},
			},
		},
		{
			name: "a status of a name that was never read", prepare: configured,
			do: func(c *counting) { c.read("status/weather") },
			calls: []call{
				{"get config/weather", "the certificate and what was asked for"},
				{"get config/weather", "the engine's own look: it does without the handler's"},
				{"get token/weather", fromBefore},
				{"get proved/weather", unproved},
			},
		},
		{
			name: "a list of the states of configs with and without roles",
			prepare: func(c *counting) {
				withRoles(c)
				for _, server := range []string{"maps", "news"} {
					c.write("config/"+server, c.as.client())
				}
			},
			do: func(c *counting) { c.list("status/") },
			calls: []call{
				{"list config/", answered},
				{"list role/", "which configs have roles"},
				{"list role/weather/", answered},
			},
		},
		{
			name: "public keys", prepare: withKeys,
			do:    func(c *counting) { c.read("keys/weather") },
			calls: []call{{"get config/weather", answered}},
		},
		{
			name: "published keys, unauthenticated", prepare: withKeys,
			do: func(c *counting) { c.read("jwks/weather") },
		},

		// The life of the mount.
		{
			name: "a start with tokens of a config and of its two roles", prepare: withRoles, atOnce: true,
			do: (*counting).restart,
			calls: []call{
				{"ReplicationState", "may this node write?"},
				{"GetConsumptionBillingManager", "the framework's set-up"},
				{"list token/", "which tokens there are"},
				{"list token/weather/", "which tokens of roles there are"},
				{"get config/weather", "is the token of the config's shape?"},
				{"get token/weather", fromBefore},
				{"get config/weather", "is the token of the config's shape?"},
				{"get role/weather/reader", roleToo},
				{"get token/weather/reader", fromBefore},
				{"get config/weather", "is the token of the config's shape?"},
				{"get role/weather/writer", roleToo},
				{"get token/weather/writer", fromBefore},
				{"list role/", "did a delete that was cut short leave roles without a config?"},
				{"list config/", "did a delete that was cut short leave roles without a config?"},
				{"list config/", "whose keys may be published"},
				{"get config/weather", "are its keys published? Memory must know, for whoever asks is not authenticated"},
			},
		},
		{
			name: "another node's write of a config", prepare: held, atOnce: true,
			do: func(c *counting) { c.b.InvalidateKey(c.t.Context(), "config/weather") },
			calls: []call{
				{"get config/weather", "is the token still of the config's shape?"},
				{"get token/weather", "that node may have obtained another"},
				{"get config/weather", "are its keys published?"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			as := newAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				c := newCounting(t, as)
				synctest.Wait()
				test.prepare(c)
				synctest.Wait()
				asked := as.count()
				c.taken()
				test.do(c)
				synctest.Wait()
				made := c.taken()
				var want, why []string
				for _, call := range test.calls {
					want = append(want, call.made)
					why = append(why, call.made+": "+call.why)
				}
				if test.atOnce {
					slices.Sort(made)
					slices.Sort(want)
				}
				if !slices.Equal(made, want) {
					t.Errorf("the calls to Vault are\n\t%s\nwant\n\t%s", strings.Join(made, "\n\t"), strings.Join(why, "\n\t"))
				}
				if n := as.count() - asked; n != test.asked {
					t.Errorf("%d requests to the authorization server; want %d", n, test.asked)
				}
			})
		})
	}
}

// warmRead is a broker's read of a held token, as it arrives over the plugin boundary.
func warmRead(storage logical.Storage) *logical.Request {
	return &logical.Request{
		ID:          "3bd1b0f5-30a1-8a3c-6f4e-b5f1f1a3c1de",
		Operation:   logical.ReadOperation,
		Path:        "token/weather",
		Data:        fields{},
		Storage:     storage,
		MountPoint:  "mcp-oauth/",
		MountType:   "vault-plugin-mcp-oauth",
		EntityID:    "e1f5c3a2-7f5e-2a4b-9d50-1f2e3d4c5b6a",
		DisplayName: "approle",
		Headers:     map[string][]string{},
		Connection:  &logical.Connection{RemoteAddr: "127.0.0.1", RemotePort: 40000},
	}
}

// warm is a backend that holds a token of the size of a JWT.
func warm(t testing.TB) (logical.Backend, *testStorage) {
	t.Helper()
	storage := &testStorage{}
	b, err := Factory(t.Context(), &logical.BackendConfig{StorageView: storage, System: &testSystem{}, BackendUUID: "mount"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Cleanup(t.Context()) })
	s := store{storage: storage, proofs: &proofs{}}
	c := newConfig()
	c.ClientID, c.TokenURL = "vault", "https://as.example.com/token"
	if err := s.putConfig(t.Context(), "weather", c); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := s.Save(t.Context(), weather, &tokens.Token{
		AccessToken: strings.Repeat("t0ken-", 150), Scope: "forecast:read forecast:write", Shape: c.terms(nil).Shape,
		Issued: now, Expires: now.Add(time.Hour), RefreshAt: now.Add(45 * time.Minute),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.HandleRequest(t.Context(), warmRead(storage)); err != nil {
		t.Fatal(err)
	}
	return b, storage
}

// mostAllocations is what a warm read through the backend may allocate: a third more than the
// 13 that it does, because Go and the framework change, and the race detector adds a few.
const mostAllocations = 17

func TestWarmReadAllocatesLittle(t *testing.T) {
	b, storage := warm(t)
	req := warmRead(storage)
	made := testing.AllocsPerRun(1000, func() {
		if _, err := b.HandleRequest(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%g allocations", made)
	if made > mostAllocations {
		t.Errorf("a warm read makes %g allocations; want %d at most", made, mostAllocations)
	}
}

func BenchmarkWarmRead(b *testing.B) {
	backend, storage := warm(b)
	b.ReportAllocs()
	req := warmRead(storage)
	for b.Loop() {
		if _, err := backend.HandleRequest(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWarmReadParallel(b *testing.B) {
	backend, storage := warm(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		req := warmRead(storage)
		for pb.Next() {
			if _, err := backend.HandleRequest(b.Context(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
