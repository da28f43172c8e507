package mcpoauth

import (
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// jwks reads the key set as an authorization server does, and returns its keys.
func (m *mount) jwks(server string) []any {
	m.t.Helper()
	body, cache := m.raw(m.publishedAt(server), "application/json")
	if cache != "private, max-age=300" && cache != "private, max-age=10" {
		m.t.Errorf("Cache-Control of the set is %v", cache)
	}
	var set map[string][]any
	if err := json.Unmarshal(body, &set); err != nil || len(set) != 1 {
		m.t.Fatalf("%s: %v; want a JWK Set", body, err)
	}
	return set["keys"]
}

// publishedAt returns the path of a server's key set. It reads the stored config without counting the call.
func (m *mount) publishedAt(server string) string {
	m.t.Helper()
	return jwksPrefix + must(store{storage: &m.storage.InmemStorage}.config(m.t.Context(), server))(m.t).publicID(server)
}

// unpublished checks that all names without a key set get the same answer.
func (m *mount) unpublished(names ...string) {
	m.t.Helper()
	for _, name := range names {
		equal(m.t, "jwks/"+name, m.missing("jwks/"+name), "nothing is published here")
	}
}

// made is the config of a client whose published key the plugin makes.
func made(more fields) fields {
	return with(fields{
		"token_url": "https://as.example.com/token", "client_id": "vault", "key_type": "ec-p256", "publish_jwks": true,
	}, more)
}

func TestKeySetHoldsTheKeysOfKeys(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", made(nil))
	m.write("config/maps", with(made(fields{"key_type": "", "key_id": "named", "verify": false}), fields{"private_key": pemOf(t, edKey(t))}))
	for _, server := range []string{"weather", "maps"} {
		want, _ := m.keys(server)
		equal(t, "the key set", keyIDs(t, m.jwks(server)), want)
	}
}

// A caller without a Vault token learns nothing about the configs.
func TestKeySetsThatAreNotPublishedAreAllTheSame(t *testing.T) {
	_, m := newConfigured(t)
	m.write("config/maps", made(fields{"publish_jwks": false}))
	names := []string{"absent", "weather", "maps", "a..b", "maps..", "..", long(257)}
	m.unpublished(slices.DeleteFunc(names, func(name string) bool { return m.b.(*backend).Route("jwks/"+name) == nil })...)
	m.stop()
	damage(t, m, "config/maps", "{")
	m.start()
	m.unpublished("maps", "absent")
	m.storage.fail("get", "list")
	m.restart()
	m.unpublished("maps", "weather", "absent")
}

func TestKeySetFollowsTheConfig(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", made(fields{"publish_jwks": false}))
	m.unpublished("weather")
	m.write("config/weather", fields{"publish_jwks": true, "verify": false})
	first := keyIDs(t, m.jwks("weather"))
	m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
	if got := keyIDs(t, m.jwks("weather")); len(got) != 2 || got[0] != first[0] {
		t.Errorf("after a rotation, the key set is %q; want another key and %q", got, first)
	}
	m.write("config/weather", fields{"key_type": "ed25519"})
	if got := keyIDs(t, m.jwks("weather")); len(got) != 1 || got[0] == first[0] {
		t.Errorf("after a change of key the key set is %q", got)
	}
	m.storage.fail("put config/")
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "config/weather", fields{"publish_jwks": false, "verify": false}, errStorage.Error())
	m.storage.fail()
	m.jwks("weather")
	m.write("config/weather", fields{"publish_jwks": false, "verify": false})
	m.unpublished("weather")
	m.write("config/weather", fields{"publish_jwks": true, "verify": false})
	m.delete("config/weather")
	m.unpublished("weather")
}

// Callers without a Vault token must not be able to load Vault.
func TestKeySetsAreAnsweredFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &testStorage{}
		m := newNode(t, storage, 0)
		m.write("config/weather", made(nil))
		m.write("config/maps", made(fields{"publish_jwks": false}))
		m.write("config/damaged", made(nil))
		m.write("config/damaged-key", made(nil))
		m.stop()
		damage(t, m, "config/damaged", "{")
		entry := storage.entries(t)["config/damaged-key"]
		contains(t, "the stored entry", entry, "BEGIN PRIVATE KEY")
		damage(t, m, "config/damaged-key", strings.ReplaceAll(entry, "BEGIN PRIVATE KEY", "BEGIN NO KEY"))
		m = newNode(t, storage, 0)
		synctest.Wait() // the loading ends
		before := storage.calls.Load()
		for range 100 {
			m.jwks("weather")
			m.unpublished("maps", "damaged", "damaged-key", "absent")
		}
		equal(t, "storage calls by 500 requests", storage.calls.Load()-before, int64(0))
	})
}

// After an invalidation, another node serves the new key set.
func TestKeySetOnAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &testStorage{}
		active, standby := newNode(t, storage, 0), newNode(t, storage, consts.ReplicationPerformanceStandby)
		synctest.Wait()
		told := func() {
			standby.b.InvalidateKey(t.Context(), "config/weather")
			synctest.Wait()
		}
		forwarded := func() { // the active node answers with the 404
			standby.readOnly(logical.ReadOperation, "jwks/weather", nil)
			active.unpublished("weather")
		}
		forwarded()
		active.write("config/weather", made(nil))
		told()
		equal(t, "the key set", keyIDs(t, standby.jwks("weather")), keyIDs(t, active.jwks("weather")))
		active.data(logical.UpdateOperation, "keys/weather/rotate", nil)
		told()
		equal(t, "the key set after a rotation", keyIDs(t, standby.jwks("weather")), keyIDs(t, active.jwks("weather")))
		active.write("config/weather", fields{"publish_jwks": false, "verify": false})
		told()
		forwarded()
		active.write("config/weather", fields{"publish_jwks": true, "verify": false})
		told()
		standby.jwks("weather")
		active.delete("config/weather")
		told()
		forwarded()
	})
}

func TestHalfADeletePublishesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		m.storage.fail("delete token/")
		m.delete("config/weather")
		m.storage.fail()
		m.missing("config/weather")
		synctest.Wait() // the set loads in the background
		m.unpublished("weather")
	})
}

// The published set drops a key at its time, without a write.
func TestPublishedKeySetsEndByThemselves(t *testing.T) {
	c := &config{PublishJWKS: true}
	for _, from := range []time.Time{{}, time.Now().Add(time.Hour)} {
		c.Keys = append(c.Keys, must(newSigningKey(grant.ECP256, from))(t))
	}
	sets := newKeySets()
	noError(t, sets.update("weather", c))
	for after, want := range map[time.Duration]int{0: 2, 25 * time.Hour: 1, 9999 * time.Hour: 1} {
		set, ok := sets.of("weather", []identity{identityStatic})
		if keys := set.at(time.Now().Add(after)); !ok || len(keys) != want {
			t.Errorf("after %s %d keys are published, %t; want %d", after, len(keys), ok, want)
		}
	}
	for _, gone := range []*config{{Keys: c.Keys}, nil} {
		noError(t, sets.update("weather", gone))
		if _, ok := sets.of("weather", []identity{identityStatic}); ok {
			t.Error("a key set is published for a config that does not publish one")
		}
		noError(t, sets.update("weather", c))
	}
}

// After a key was replaced, authorization servers must not cache the set for long, as the operator may replace the
// new key too.
func TestKeySetIsKeptForLessTimeAfterAKeyWasReplaced(t *testing.T) {
	key, other := pemOf(t, ecKey(t, elliptic.P256())), pemOf(t, edKey(t))
	for _, test := range []struct {
		name          string
		first, second fields
		replaces      bool
	}{
		{"made by the plugin, another type", fields{"key_type": "ec-p256"}, fields{"key_type": "ed25519"}, true},
		{"made by the plugin, for another endpoint", fields{"key_type": "ec-p256"}, fields{"key_type": "ec-p256", "token_url": "https://as.example.com/other"}, true},
		{"made by the plugin, for the operator's", fields{"private_key": key}, fields{"private_key": "", "key_type": "ed25519"}, true},
		{"the operator's", fields{"private_key": key}, fields{"private_key": other}, true},
		{"the operator's under another name", fields{"private_key": key}, fields{"key_id": "named"}, true},
		{"the same type", fields{"key_type": "ec-p256"}, fields{"key_type": "ec-p256"}, false},
		{"the operator's again", fields{"private_key": key}, fields{"private_key": key}, false},
		{"something else", fields{"private_key": key}, fields{"max_ttl": "1h"}, false},
		{"a secret", fields{"client_secret": secret, "publish_jwks": false}, fields{"client_secret": "", "key_type": "ec-p256", "publish_jwks": true}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMount(t)
				keptFor := func(want, when string) {
					t.Helper()
					_, cache := m.raw(m.publishedAt("weather"), "application/json")
					equal(t, "Cache-Control "+when, cache, "private, max-age="+want)
				}
				unverified := fields{"verify": false}
				m.write("config/weather", with(with(made(fields{"key_type": ""}), unverified), test.first))
				if test.first["publish_jwks"] == nil {
					keptFor("300", "at first")
				}
				time.Sleep(time.Hour)
				m.write("config/weather", with(unverified, test.second))
				after := "300"
				if test.replaces {
					after = "10"
				}
				keptFor(after, "after the write")
				m.restart()
				synctest.Wait()
				keptFor(after, "after a restart")
				m.write("config/weather", with(unverified, fields{"scopes": "a"}))
				time.Sleep(jwksMaxAge - time.Second)
				keptFor(after, "a second before caches of the old set end")
				time.Sleep(time.Second)
				keptFor("300", "when they end")
			})
		})
	}
}

// A rotated key is published before its use, so the usual cache time is safe.
func TestKeySetIsKeptForItsTimeThroughARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
		for n := range 52 {
			_, cache := m.raw(m.publishedAt("weather"), "application/json")
			equal(t, fmt.Sprint("Cache-Control at ", time.Now()), cache, "private, max-age=300")
			time.Sleep([]time.Duration{10 * time.Minute, 50 * time.Minute}[n%2])
		}
	})
}

// A stored config without keys, which this version never writes, has an empty set.
func TestKeySetWithoutKeysIsEmpty(t *testing.T) {
	m := newMount(t)
	noError(t, m.store().putConfig(t.Context(), "weather", &config{ClientID: "vault", PublishJWKS: true}))
	m.restart()
	equal(t, "the set", m.jwks("weather"), nil)
}
