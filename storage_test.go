package mcpoauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// damage overwrites an entry.
func damage(t *testing.T, m *mount, key, value string) {
	t.Helper()
	if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func keysOf(t *testing.T, m *mount) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(m.storage.entries(t)))
}

// inUse mounts with a config, a role and a token of each.
func inUse(t *testing.T) (*authServer, *mount) {
	t.Helper()
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	m.write("role/weather/reader", fields{"scopes": "read"})
	return as, m
}

func TestStorageHoldsWhatItSays(t *testing.T) {
	_, m := inUse(t)
	equal(t, "the keys", keysOf(t, m), []string{"config/weather", "role/weather/reader", "token/weather", "token/weather/reader"})
	for key, entry := range m.storage.entries(t) {
		var e struct{ Schema int }
		if err := json.Unmarshal([]byte(entry), &e); err != nil || e.Schema != schema {
			t.Errorf("%s has the schema %d, %v; want %d", key, e.Schema, err, schema)
		}
		isToken, isConfig := strings.HasPrefix(key, "token/"), strings.HasPrefix(key, "config/")
		if got := strings.Contains(entry, tokenMark); got != isToken {
			t.Errorf("%s holds a token: %t", key, got)
		}
		if got := strings.Contains(entry, secretMark); got != isConfig {
			t.Errorf("%s holds a secret: %t", key, got)
		}
	}
}

// What is secret is seal wrapped; tokens and proofs belong to a cluster.
func TestSpecialPaths(t *testing.T) {
	special := newMount(t).b.SpecialPaths()
	equal(t, "the seal wrapped prefixes", special.SealWrapStorage, []string{"config/", "token/"})
	equal(t, "the local prefixes", special.LocalStorage, []string{"token/", "proved/"})
	equal(t, "the unauthenticated paths", special.Unauthenticated, []string{"jwks/*", "issuer/*", "client/*"})
	equal(t, "the root paths", special.Root, nil)
}

func TestDeletingAConfigDeletesAllOfIt(t *testing.T) {
	as, m := inUse(t)
	m.write("config/weather-2", with(as.client(), fields{"verify": false}))
	m.delete("config/weather")
	equal(t, "the keys after the delete", keysOf(t, m), []string{"config/weather-2"})
}

// everyPath asks every path that needs the stored entries of weather and its role.
func everyPath(as *authServer, ask func(op logical.Operation, path string, data fields)) {
	for _, path := range []string{"token/weather", "token/weather/reader", "status/weather", "status/weather/reader", "config/weather", "role/weather/reader", "keys/weather"} {
		ask(logical.ReadOperation, path, nil)
	}
	ask(logical.UpdateOperation, "config/weather", as.client())
	ask(logical.UpdateOperation, "role/weather/reader", fields{"scopes": "write"})
	ask(logical.UpdateOperation, "refresh/weather", nil)
	ask(logical.UpdateOperation, "refresh/weather/reader", nil)
	ask(logical.UpdateOperation, "keys/weather/rotate", nil)
}

// inTheFuture is an entry as a newer version might store it.
func inTheFuture(entry string) string {
	return strings.Replace(entry, fmt.Sprintf(`"schema":%d`, schema), fmt.Sprintf(`"schema":%d`, schema+1), 1)
}

// fromTheFuture makes the entries whose keys start so those of a newer version.
func (m *mount) fromTheFuture(keys ...string) {
	m.t.Helper()
	m.stop()
	for key, entry := range m.storage.entries(m.t) {
		if slices.ContainsFunc(keys, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			damage(m.t, m, key, inTheFuture(entry))
		}
	}
	m.start()
}

// A version that reads a newer form than it knows would lose what it does not know at
// the next write.
func TestEntriesOfANewerSchemaAreRefusedEverywhere(t *testing.T) {
	as, m := inUse(t)
	m.fromTheFuture("config/", "role/", "token/")
	was := m.storage.entries(t)
	ask := func(op logical.Operation, path string, data fields) {
		t.Helper()
		m.refused(http.StatusInternalServerError, op, path, data, "config/weather", "newer version of this plugin", fmt.Sprintf("schema %d", schema+1), "upgrade the plugin")
	}
	everyPath(as, ask)
	ask(logical.ListOperation, "role/weather/", nil)
	ask(logical.UpdateOperation, "role/weather/new", fields{"scopes": "write"})
	m.unpublished("weather")
	m.storage.unchanged(t, was)
	as.asked(t, 2, "after all of them")

	// What there is can still be told, and which of it is not readable.
	equal(t, "the configs", m.list("config/"), []string{"weather"})
	list := m.data(logical.ListOperation, "status/", nil)
	equal(t, "the names", list["keys"].([]string), []string{"weather", "weather/"})
	for _, name := range list["keys"].([]string) {
		info := list["key_info"].(map[string]any)[name].(map[string]any)
		if told, _ := info["error"].(string); info["state"] != "down" || !strings.Contains(told, "upgrade the plugin") {
			t.Errorf("the status of %s is %v", name, info)
		}
	}
}

// A role that cannot be read is no reason to refuse its config's token and updates.
func TestRoleOfANewerSchema(t *testing.T) {
	as, m := inUse(t)
	m.fromTheFuture("role/")
	role := m.storage.entries(t)["role/weather/reader"]
	for path, op := range map[string]logical.Operation{
		"token/weather/reader": logical.ReadOperation, "status/weather/reader": logical.ReadOperation, "refresh/weather/reader": logical.UpdateOperation,
	} {
		m.refused(http.StatusInternalServerError, op, path, nil, "role/weather/reader", "upgrade the plugin")
	}
	m.refused(http.StatusInternalServerError, logical.ReadOperation, "role/weather/reader", nil, "upgrade the plugin")
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "role/weather/reader", fields{"scopes": "b"}, "upgrade the plugin")
	m.holds("weather", "t0ken-1")
	equal(t, "the roles", m.list("role/weather/"), []string{"reader"})
	m.write("config/weather", fields{"scopes": "b"})
	m.holds("weather", "t0ken-3")
	m.refused(http.StatusInternalServerError, logical.ReadOperation, "token/weather/reader", nil, "upgrade the plugin")
	if got := m.storage.entries(t)["role/weather/reader"]; got != role {
		t.Errorf("the role is %s; want it untouched", got)
	}
	m.delete("role/weather/reader")
	m.write("role/weather/reader", fields{"scopes": "c"})
	m.holds("weather/reader", "t0ken-4")
	as.asked(t, 4, "after all")
}

// After the plugin was set back to this version it fetches what it cannot read.
func TestTokenOfANewerSchemaIsFetchedAnew(t *testing.T) {
	as, m := inUse(t)
	m.fromTheFuture("token/")
	if got := m.read("status/weather")["state"]; got != "empty" {
		t.Errorf("the state is %q", got)
	}
	for i, name := range []string{"weather", "weather/reader"} {
		if got, want := m.token(name), fmt.Sprintf("t0ken-%d", i+3); got != want {
			t.Errorf("the token of %s is %q; want %q", name, got, want)
		}
	}
	for key, entry := range m.storage.entries(t) {
		if !strings.HasPrefix(entry, fmt.Sprintf(`{"schema":%d,`, schema)) {
			t.Errorf("%s is %s; want it of this version's schema", key, entry)
		}
	}
	as.asked(t, 4, "after both were read")
}

// Whoever cannot go back to the newer version can begin anew.
func TestEntriesOfANewerSchemaCanBeDeleted(t *testing.T) {
	as, m := inUse(t)
	m.fromTheFuture("config/", "role/", "token/")
	m.delete("role/weather/reader")
	equal(t, "the keys after the role's delete", keysOf(t, m), []string{"config/weather", "token/weather"})
	m.delete("config/weather")
	equal(t, "the keys after the config's delete", keysOf(t, m), nil)
	m.refused(http.StatusNotFound, logical.ReadOperation, "token/weather", nil)
	m.write("config/weather", as.client())
	m.holds("weather", "t0ken-3")
}

func TestDamagedEntriesAreToldWithoutTheirContent(t *testing.T) {
	for _, value := range []string{
		"", "null", "{", `"` + secret + `"`, `{"schema":1}`, `{"schema":1,"data":null}`, `{"schema":1,"data":"` + secret + `"}`,
		`{"schema":1,"data":{"default_ttl":"` + secret + `"}}`, `{"schema":0,"data":{}}`, secret,
	} {
		t.Run(value, func(t *testing.T) {
			as, m := inUse(t)
			m.stop()
			damage(t, m, "config/weather", value)
			m.start()
			everyPath(as, func(op logical.Operation, path string, data fields) {
				m.refused(http.StatusInternalServerError, op, path, data, "config/weather is damaged", "delete it and write it again")
			})
			as.asked(t, 2, "after all of them")

			m.delete("config/weather")
			m.write("config/weather", as.client())
			m.holds("weather", "t0ken-3")
		})
	}
}

// A stored token is only a copy of what the authorization server would give again.
func TestDamagedTokenIsReplaced(t *testing.T) {
	as, m := inUse(t)
	m.stop()
	damage(t, m, "token/weather", "{")
	m.start()
	resp, err := m.do(logical.ReadOperation, "token/weather", nil)
	if err != nil || resp.Data["access_token"] != "t0ken-3" {
		t.Errorf("the read gives %v, %v; want a new token", resp, err)
	}
	as.asked(t, 3, "after the read")
}

func TestFailingReadsLoseNothing(t *testing.T) {
	as, m := inUse(t)
	m.stop()
	was := m.storage.entries(t)
	m.storage.fail("get")
	m.start()
	everyPath(as, func(op logical.Operation, path string, data fields) {
		m.refused(http.StatusInternalServerError, op, path, data, errStorage.Error())
	})
	m.storage.unchanged(t, was)
	as.asked(t, 2, "while storage fails")

	m.storage.fail()
	m.holds("weather", "t0ken-1")
}

func TestFailingWritesKeepTheOldConfigAndToken(t *testing.T) {
	_, m := inUse(t)
	was, config := m.storage.entries(t), m.read("config/weather")
	m.storage.fail("put", "delete")
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "config/weather", fields{"scopes": "a"}, errStorage.Error())
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "role/weather/reader", fields{"scopes": "a"}, errStorage.Error())
	m.refused(http.StatusInternalServerError, logical.DeleteOperation, "config/weather", nil, errStorage.Error())
	m.refused(http.StatusInternalServerError, logical.DeleteOperation, "role/weather/reader", nil, errStorage.Error())
	m.storage.unchanged(t, was)
	sameFields(t, m.read("config/weather"), config)
	for name, want := range map[string]string{"weather": "t0ken-1", "weather/reader": "t0ken-2"} {
		m.holds(name, want)
	}
}

// The config is what matters; its token can be had again.
func TestConfigIsStoredEvenIfItsTokenCannotBe(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.storage.fail("put token/")
	m.write("config/weather", as.client())
	m.holds("weather", "t0ken-1")
	equal(t, "the keys", keysOf(t, m), []string{"config/weather"})
}

func TestExpiredStoredTokenIsNotServed(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.stash(weather, "t0ken-expired", 2*time.Hour, time.Hour)
	m.holds("weather", "t0ken-1")
}

// A token of a deleted config, which a crash or a backup brought back, is worth
// nothing to the next config of its name, even if the two are otherwise the same.
func TestTokenOfAnEarlierIncarnationIsNotUsed(t *testing.T) {
	as, m := inUse(t)
	was := m.storage.entries(t)
	m.delete("config/weather")
	m.configure(as, nil)
	m.stop()
	damage(t, m, "token/weather", was["token/weather"])
	m.start()
	m.holds("weather", "t0ken-3")
}

// After the plugin was set back to an older version, a token of the newer one must not
// take its name out of service: nobody but the engine can write another.
func TestTokenOfANewerSchemaIsReplaced(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	first := m.token("weather")
	m.stop()
	damage(t, m, "token/weather", inTheFuture(m.storage.entries(t)["token/weather"]))
	m.start()
	if got := m.token("weather"); got == first || got == "" {
		t.Errorf("got %q, want a new token", got)
	}
}

// overTheBoundary is storage whose calls end with their context, and tell so in gRPC's words only, as the SDK's do
// inside a plugin.
type overTheBoundary struct{ logical.Storage }

func (overTheBoundary) Get(ctx context.Context, _ string) (*logical.StorageEntry, error) {
	<-ctx.Done()
	return nil, errors.New("rpc error: code = DeadlineExceeded desc = context deadline exceeded")
}

// TestStorageThatTakesTooLongIsATimeout: the end of a wait is no fault of the plugin's.
func TestStorageThatTakesTooLongIsATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := store{storage: overTheBoundary{}, proofs: &proofs{}}.config(t.Context(), "weather")
		if got := statusOf(err); got != http.StatusGatewayTimeout {
			t.Errorf("status %d for %v, want %d", got, err, http.StatusGatewayTimeout)
		}
	})
}
