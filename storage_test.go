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

// damage replaces the value of an entry.
func damage(t *testing.T, m *mount, key, value string) {
	t.Helper()
	noError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}))
}

// restartOn restarts the mount with one entry changed.
func (m *mount) restartOn(key, value string) {
	m.t.Helper()
	m.stop()
	damage(m.t, m, key, value)
	m.start()
}

func keysOf(t *testing.T, m *mount) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(m.storage.entries(t)))
}

// inUse mounts with a config, a role and a token for each.
func inUse(t *testing.T) (*authServer, *mount) {
	t.Helper()
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	m.write("role/weather/reader", fields{"scopes": "read"})
	return as, m
}

func TestStoredSecretsAndTokensHaveTheirPaths(t *testing.T) {
	_, m := inUse(t)
	equal(t, "the keys", keysOf(t, m), []string{"config/weather", "role/weather/reader", "token/weather", "token/weather/reader"})
	for key, entry := range m.storage.entries(t) {
		var e struct{ Schema int }
		if err := json.Unmarshal([]byte(entry), &e); err != nil || e.Schema != schema {
			t.Errorf("%s has the schema %d, %v; want %d", key, e.Schema, err, schema)
		}
		equal(t, key+" holds a token", strings.Contains(entry, tokenMark), strings.HasPrefix(key, "token/"))
		equal(t, key+" holds a secret", strings.Contains(entry, secretMark), strings.HasPrefix(key, "config/"))
	}
}

// Configs and tokens are seal wrapped. Tokens and proofs are local to a cluster.
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

// everyPath makes a request at every path that reads the entries of weather and its role.
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

// inTheFuture returns an entry as a newer version might store it.
func inTheFuture(entry string) string {
	return strings.Replace(entry, fmt.Sprintf(`"schema":%d`, schema), fmt.Sprintf(`"schema":%d`, schema+1), 1)
}

// fromTheFuture turns the entries with these prefixes into entries of a newer version.
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

// A version that read a newer form would drop the unknown fields at its next write.
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

	// Lists still show the names, and mark unreadable entries.
	equal(t, "the configs", m.list("config/"), []string{"weather"})
	equal(t, "the names", m.list("status/"), []string{"weather", "weather/"})
	for name, info := range m.statuses("status/") {
		equal(t, "the state of "+name, info.(fields)["state"], "down")
		contains(t, "the error of "+name, info.(fields)["error"].(string), "upgrade the plugin")
	}
}

// An unreadable role blocks neither the config's token nor its updates.
func TestRoleOfANewerSchema(t *testing.T) {
	as, m := inUse(t)
	m.fromTheFuture("role/")
	role := m.storage.entries(t)["role/weather/reader"]
	for path, op := range map[string]logical.Operation{
		"token/weather/reader": logical.ReadOperation, "status/weather/reader": logical.ReadOperation,
		"refresh/weather/reader": logical.UpdateOperation, "role/weather/reader": logical.ReadOperation,
	} {
		m.refused(http.StatusInternalServerError, op, path, nil, "role/weather/reader", "upgrade the plugin")
	}
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "role/weather/reader", fields{"scopes": "b"}, "upgrade the plugin")
	m.holds("weather", "t0ken-1")
	equal(t, "the roles", m.list("role/weather/"), []string{"reader"})
	m.write("config/weather", fields{"scopes": "b"})
	m.holds("weather", "t0ken-3")
	m.refused(http.StatusInternalServerError, logical.ReadOperation, "token/weather/reader", nil, "upgrade the plugin")
	equal(t, "the role", m.storage.entries(t)["role/weather/reader"], role)
	m.delete("role/weather/reader")
	m.write("role/weather/reader", fields{"scopes": "c"})
	m.holds("weather/reader", "t0ken-4")
	as.asked(t, 4, "after all")
}

// A token stored by a newer version is fetched again.
func TestTokenOfANewerSchemaIsFetchedAgain(t *testing.T) {
	as, m := inUse(t)
	m.fromTheFuture("token/")
	equal(t, "the state", m.read("status/weather")["state"], "empty")
	m.holds("weather", "t0ken-3")
	m.holds("weather/reader", "t0ken-4")
	for key, entry := range m.storage.entries(t) {
		if !strings.HasPrefix(entry, fmt.Sprintf(`{"schema":%d,`, schema)) {
			t.Errorf("%s is %s; want it of this version's schema", key, entry)
		}
	}
	as.asked(t, 4, "after both were read")
}

// If the newer version cannot be restored, an operator can delete its entries.
func TestEntriesOfANewerSchemaCanBeDeleted(t *testing.T) {
	as, m := inUse(t)
	m.fromTheFuture("config/", "role/", "token/")
	m.delete("role/weather/reader")
	equal(t, "the keys after the role's delete", keysOf(t, m), []string{"config/weather", "token/weather"})
	m.delete("config/weather")
	equal(t, "the keys after the config's delete", keysOf(t, m), nil)
	m.missing("token/weather")
	m.write("config/weather", as.client())
	m.holds("weather", "t0ken-3")
}

func TestDamagedEntriesAreReportedWithoutTheirContent(t *testing.T) {
	for _, value := range []string{
		"", "null", "{", `"` + secret + `"`, `{"schema":1}`, `{"schema":1,"data":null}`, `{"schema":1,"data":"` + secret + `"}`,
		`{"schema":1,"data":{"default_ttl":"` + secret + `"}}`, `{"schema":0,"data":{}}`, secret,
	} {
		t.Run(value, func(t *testing.T) {
			as, m := inUse(t)
			m.restartOn("config/weather", value)
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

// A damaged stored token is fetched again.
func TestDamagedTokenIsReplaced(t *testing.T) {
	as, m := inUse(t)
	m.restartOn("token/weather", "{")
	m.holds("weather", "t0ken-3")
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
	m.holds("weather", "t0ken-1")
	m.holds("weather/reader", "t0ken-2")
}

func TestExpiredStoredTokenIsNotServed(t *testing.T) {
	_, m := newConfigured(t)
	m.stash(weather, "t0ken-expired", 2*time.Hour, time.Hour)
	m.holds("weather", "t0ken-1")
}

// A crash or a backup may leave a token of a deleted config. The next config with that name does not use it, even if
// its fields are the same.
func TestTokenOfAnEarlierIncarnationIsNotUsed(t *testing.T) {
	as, m := inUse(t)
	was := m.storage.entries(t)
	m.delete("config/weather")
	m.configure(as, nil)
	m.restartOn("token/weather", was["token/weather"])
	m.holds("weather", "t0ken-3")
}

// overTheBoundary is storage whose calls end with their context and return gRPC's error text only, as through the
// SDK.
type overTheBoundary struct{ logical.Storage }

func (overTheBoundary) Get(ctx context.Context, _ string) (*logical.StorageEntry, error) {
	<-ctx.Done()
	return nil, errors.New("rpc error: code = DeadlineExceeded desc = context deadline exceeded")
}

func TestStorageThatTakesTooLongIsATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := store{storage: overTheBoundary{}, proofs: &proofs{}}.config(t.Context(), "weather")
		equal(t, fmt.Sprint("the status of ", err), statusOf(err), http.StatusGatewayTimeout)
	})
}
