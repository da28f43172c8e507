package mcpoauth

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// cooldown is the minimum age of a token before refresh/ replaces it.
const cooldown = 10 * time.Second

// counting is a mount that records its calls to Vault for storage and the system view. Each call is a round trip.
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

// taken returns the calls since its previous call.
func (c *counting) taken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.made = nil }()
	return c.made
}

// later lets time pass, and makes a request that reads the replication state.
func (c *counting) later(pass time.Duration) {
	c.t.Helper()
	time.Sleep(pass)
	c.list("config/")
}

// costs returns do's storage calls by kind and its token requests. calls are all calls to Vault, including the
// framework's own.
func (c *counting) costs(do func(*counting)) (costs string, calls []string) {
	c.t.Helper()
	synctest.Wait()
	asked := c.as.count()
	c.taken()
	do(c)
	synctest.Wait()
	calls = c.taken()
	kinds := map[string]int{"request": c.as.count() - asked}
	for _, call := range calls {
		if kind, _, isStorage := strings.Cut(call, " "); isStorage {
			kinds[kind]++
		}
	}
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if n := kinds[kind]; n > 0 {
			all = append(all, fmt.Sprint(n, " ", kind))
		}
	}
	return strings.Join(all, ", "), calls
}

// The following functions are steps: some prepare a mount, others are counted.
func unconfigured(*counting) {}
func configured(c *counting) { c.configure(c.as, nil) }
func withToken(c *counting)  { configured(c); c.token("weather") }
func withRole(c *counting) {
	configured(c)
	c.write("role/weather/reader", fields{"scopes": "reader", "verify": false})
}
func withRoleToken(c *counting) { withRole(c); c.token("weather/reader") }
func withRoles(c *counting) {
	configured(c)
	for _, role := range []string{"reader", "writer"} {
		c.write("role/weather/"+role, fields{"scopes": role, "verify": false})
		c.token("weather/" + role)
	}
	c.token("weather")
}

func withKeys(c *counting) {
	c.write("config/weather", with(c.as.endpoint(), fields{"key_type": "ed25519", "publish_jwks": true}))
}
func down(c *counting) { configured(c); c.as.answers(refusing(503, "x")) }
func unavailable(c *counting) {
	c.refused(http.StatusBadGateway, logical.ReadOperation, "token/weather", nil)
}

func reading(path string) func(*counting) { return func(c *counting) { c.read(path) } }
func listing(path string) func(*counting) { return func(c *counting) { c.list(path) } }
func token(name string) func(*counting) {
	return func(c *counting) { c.succeeds(logical.ReadOperation, "token/"+name, nil) }
}

func writing(path string, data fields) func(*counting) {
	return func(c *counting) { c.write(path, data) }
}

// often calls do a thousand times concurrently.
func often(do func(*counting)) func(*counting) {
	return func(c *counting) {
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { do(c) })
		}
		all.Wait()
	}
}

func after(prepare func(*counting), pass time.Duration) func(*counting) {
	return func(c *counting) { prepare(c); c.later(pass) }
}

func TestWarmReadsMakeNoCalls(t *testing.T) {
	for name, row := range map[string]struct {
		prepare, do func(*counting)
		calls       int // to Vault, for all reads together
	}{
		"of a token":               {withToken, often(token("weather")), 0},
		"of a role's":              {withRoleToken, often(token("weather/reader")), 0},
		"after a pause":            {func(c *counting) { withToken(c); time.Sleep(replicationStateLife) }, token("weather"), 1},
		"within a backoff window":  {func(c *counting) { down(c); unavailable(c) }, often(unavailable), 0},
		"again":                    {func(c *counting) { withToken(c); time.Sleep(replicationStateLife); c.token("weather") }, often(token("weather")), 0},
		"of published keys":        {withKeys, func(c *counting) { c.read(c.publishedAt("weather")) }, 0},
		"refresh/ within cooldown": {withToken, func(c *counting) { c.refresh("weather", nil) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			as := newAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				c := newCounting(t, as)
				row.prepare(c)
				if costs, calls := c.costs(row.do); costs != "" || len(calls) > row.calls {
					t.Errorf("%s; %d calls to Vault, want at most %d: %q", costs, len(calls), row.calls, calls)
				}
			})
		})
	}
}

// A write reads the config three times: for Vault's existence check, for the update, and under the lock, to notice a
// concurrent write.
func TestStorageCalls(t *testing.T) {
	const rejected = firstToken
	secret2 := fields{"client_secret": secret + "2"}
	for name, row := range map[string]struct {
		prepare, do func(*counting)
		costs       string
	}{
		"first read":                {configured, token("weather"), "3 get, 2 put, 1 request"},
		"first read of a role":      {withRole, token("weather/reader"), "4 get, 2 put, 1 request"},
		"first read that fails":     {down, unavailable, "2 get, 1 request"},
		"first reads by a thousand": {configured, often(token("weather")), "3 get, 2 put, 1 request"},
		"read of an absent config":  {configured, func(c *counting) { c.missing("token/absent") }, "1 get"},
		"read after an outage": {func(c *counting) {
			after(func(c *counting) { withToken(c); c.as.answers(refusing(503, "x")) }, 62*time.Minute)(c)
			c.as.answers(granting(nil))
		}, token("weather"), "1 get, 1 put, 1 request"},
		"refresh/": {after(withToken, cooldown), func(c *counting) { c.refresh("weather", nil) }, "1 get, 1 put, 1 request"},
		"refresh/ by a thousand": {after(withToken, cooldown), often(func(c *counting) {
			c.succeeds(logical.UpdateOperation, "refresh/weather", fields{"token_id": rejected})
		}), "1 get, 1 put, 1 request"},
		"refresh/ of a role":           {after(withRoleToken, cooldown), func(c *counting) { c.refresh("weather/reader", nil) }, "2 get, 1 put, 1 request"},
		"refresh ahead":                {withToken, func(*counting) { time.Sleep(46 * time.Minute) }, "1 get, 1 put, 1 request"},
		"refresh ahead of a role's":    {withRoleToken, func(*counting) { time.Sleep(46 * time.Minute) }, "2 get, 1 put, 1 request"},
		"new config":                   {unconfigured, func(c *counting) { c.write("config/weather", c.as.client()) }, "3 get, 2 list, 2 put, 1 request"},
		"new config, verify=false":     {unconfigured, configured, "3 get, 2 list, 1 put"},
		"config, the same again":       {withToken, func(c *counting) { c.write("config/weather", c.as.client()) }, "2 get"},
		"new secret":                   {withToken, writing("config/weather", secret2), "3 get, 2 put, 1 request"},
		"new secret beside two roles":  {withRoles, writing("config/weather", secret2), "9 get, 4 put, 3 request"},
		"other audience, verify=false": {withToken, writing("config/weather", fields{"audience": "b", "verify": false}), "1 delete, 3 get, 1 put"},
		"config that is refused": {withToken, func(c *counting) {
			c.as.answers(refusing(401, "invalid_client"))
			c.rejects("config/weather", secret2)
		}, "2 get, 1 request"},
		"delete of a config, two roles": {withRoles, func(c *counting) { c.delete("config/weather") }, "7 delete, 1 get, 2 list"},
		"rotation of the signing key":   {withKeys, writing("keys/weather/rotate", nil), "2 get, 1 put"},
		"new role":                      {configured, writing("role/weather/reader", fields{"scopes": "reader"}), "7 get, 3 put, 1 request"},
		"role, the same again":          {withRoleToken, writing("role/weather/reader", fields{"scopes": "reader"}), "4 get"},
		"delete of a role":              {withRoleToken, func(c *counting) { c.delete("role/weather/reader") }, "2 delete"},
		"config":                        {configured, reading("config/weather"), "1 get"},
		"list of configs":               {configured, listing("config/"), "1 list"},
		"role":                          {withRole, reading("role/weather/reader"), "2 get"},
		"list of roles":                 {withRole, listing("role/weather/"), "2 get, 1 list"},
		"status":                        {withToken, reading("status/weather"), "1 get"},
		"status of a role":              {withRoles, reading("status/weather/reader"), "2 get"},
		"status of an unread name":      {configured, reading("status/weather"), "4 get"},
		"list of states": {func(c *counting) {
			withRoles(c)
			c.write("config/maps", c.as.client())
			c.write("config/news", c.as.client())
		}, listing("status/"), "3 list"},
		"list of servers with roles": {withRoles, listing("role/"), "2 list"},
		"public keys":                {withKeys, reading("keys/weather"), "2 get"},
		"start with two roles":       {withRoles, func(c *counting) { c.stop(); c.start() }, "9 get, 5 list"},
		"another node's write":       {withToken, func(c *counting) { c.b.InvalidateKey(c.t.Context(), "config/weather") }, "3 get"},
	} {
		t.Run(name, func(t *testing.T) {
			as := newAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				c := newCounting(t, as)
				row.prepare(c)
				if costs, calls := c.costs(row.do); costs != row.costs {
					t.Errorf("the costs are %s; want %s: %q", costs, row.costs, calls)
				}
			})
		})
	}
}

// warmRead is a broker's read of a token, as it arrives over the plugin boundary.
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

// warm returns a backend that holds a token as long as a JWT.
func warm(t testing.TB) (logical.Backend, *testStorage) {
	t.Helper()
	storage := &testStorage{}
	b := must(Factory(t.Context(), &logical.BackendConfig{StorageView: storage, System: &testSystem{}, BackendUUID: "mount"}))(t)
	t.Cleanup(func() { b.Cleanup(t.Context()) })
	s := store{storage: storage, proofs: &proofs{}}
	c := newConfig()
	c.ClientID, c.TokenURL = "vault", "https://as.example.com/token"
	noError(t, s.putConfig(t.Context(), "weather", c))
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

// mostAllocations leaves a third above the measured 13 allocations of a warm read: Go and the framework change, and
// the race detector adds a few.
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
		t.Errorf("a warm read makes %g allocations; want at most %d", made, mostAllocations)
	}
}

// mostBytesPerName limits the bytes that a list of status/ allocates for each name. 362 were measured.
const mostBytesPerName = 500

// An operator may have thousands of names, and several callers may list them at once.
func TestListedStatusAllocatesLittle(t *testing.T) {
	const names = 500
	as, m := newAuthServer(t), newMount(t)
	for i := range names {
		server := fmt.Sprint("weather-", i)
		m.write("config/"+server, with(as.client(), fields{"verify": false}))
		m.token(server)
	}
	req := &logical.Request{Operation: logical.ListOperation, Path: "status/", Storage: m.storage}
	list := func() {
		resp, err := m.b.HandleRequest(t.Context(), req)
		if err != nil || len(resp.Data["keys"].([]string)) != names {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	least := uint64(math.MaxUint64) // the least of several lists: goroutines of earlier tests may allocate too
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		list()
		runtime.ReadMemStats(&after)
		least = min(least, (after.TotalAlloc-before.TotalAlloc)/names)
	}
	if least > mostBytesPerName {
		t.Errorf("a listed name takes %d bytes; want at most %d", least, mostBytesPerName)
	}
	t.Logf("%d bytes for each name", least)
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
