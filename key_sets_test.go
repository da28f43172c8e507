package mcpoauth

import (
	"crypto/elliptic"
	"encoding/json"
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

// jwks asks for the key set as an authorization server does, and gives its keys.
func (m *mount) jwks(server string) []any {
	m.t.Helper()
	data := m.data(logical.ReadOperation, m.publishedAt(server), nil)
	body, _ := data[logical.HTTPRawBody].([]byte)
	cache := data[logical.HTTPCacheControlHeader]
	if cache != "private, max-age=300" && cache != "private, max-age=10" {
		m.t.Errorf("the set may be kept: %v", cache)
	}
	want := fields{
		logical.HTTPContentType:        "application/json",
		logical.HTTPStatusCode:         http.StatusOK,
		logical.HTTPCacheControlHeader: cache,
		logical.HTTPRawBody:            body,
	}
	sameFields(m.t, data, want)
	var set map[string][]any
	if err := json.Unmarshal(body, &set); err != nil || len(set) != 1 {
		m.t.Fatalf("%s: %v; want a JWK Set", body, err)
	}
	checkSecretFree(m.t, "a key set", string(body))
	return set["keys"]
}

// publishedAt is the path of a server's key set, by what is stored. It is no storage call of the mount's.
func (m *mount) publishedAt(server string) string {
	m.t.Helper()
	c, err := store{storage: &m.storage.InmemStorage}.config(m.t.Context(), server)
	if err != nil {
		m.t.Fatal(err)
	}
	return jwksPrefix + c.publicID(server)
}

// unpublished checks that there is no key set, in the words that all who ask for what
// is not theirs get.
func (m *mount) unpublished(names ...string) {
	m.t.Helper()
	for _, name := range names {
		if got := m.refused(http.StatusNotFound, logical.ReadOperation, "jwks/"+name, nil); got != "nothing is published here" {
			m.t.Errorf("jwks/%s answers %q, which tells it from others", name, got)
		}
	}
}

// made is the config of a client whose key the plugin makes and publishes.
func made(more fields) fields {
	return with(fields{
		"token_url": "https://as.example.com/token", "client_id": "vault", "key_type": "ec-p256", "publish_jwks": true,
	}, more)
}

func TestKeySetIsWhatKeysReads(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", made(nil))
	m.write("config/maps", with(made(fields{"key_type": "", "key_id": "named", "verify": false}), fields{"private_key": pemOf(t, edKey(t))}))
	for _, server := range []string{"weather", "maps"} {
		want, _ := m.keys(server)
		equal(t, "the key set", keyIDs(t, m.jwks(server)), want)
	}
}

// Who asks without a login learns nothing of what is configured.
func TestKeySetsThatAreNotPublishedAreAllTheSame(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.write("config/maps", made(fields{"publish_jwks": false}))
	names := []string{"absent", "weather", "maps", "a..b", "maps..", "..", long(257)}
	m.unpublished(slices.DeleteFunc(names, func(name string) bool { return m.b.(*backend).Route("jwks/"+name) == nil })...)
	m.stop()
	damage(t, m, "config/maps", "{")
	m.start()
	m.unpublished("maps", "absent")
	m.storage.fail("get", "list")
	m.stop()
	m.start()
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
		t.Errorf("after a rotation the key set is %q; want a key beside %q", got, first)
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

// Who is not logged in must not be able to make Vault work.
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
		entry, err := storage.Get(t.Context(), "config/damaged-key")
		if err != nil {
			t.Fatal(err)
		}
		broken := strings.ReplaceAll(string(entry.Value), "BEGIN PRIVATE KEY", "BEGIN NO KEY")
		if broken == string(entry.Value) {
			t.Fatal("there is no key to damage")
		}
		damage(t, m, "config/damaged-key", broken)
		m = newNode(t, storage, 0)
		synctest.Wait() // until all is loaded
		before := storage.calls.Load()
		for range 100 {
			m.jwks("weather")
			m.unpublished("maps", "damaged", "damaged-key", "absent")
		}
		if n := storage.calls.Load() - before; n != 0 {
			t.Errorf("500 requests made %d storage calls; want none", n)
		}
	})
}

// A node that did not do a write itself is told of it, and serves what it says.
func TestKeySetOnAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &testStorage{}
		active, standby := newNode(t, storage, 0), newNode(t, storage, consts.ReplicationPerformanceStandby)
		synctest.Wait()
		told := func() {
			standby.b.InvalidateKey(t.Context(), "config/weather")
			synctest.Wait()
		}
		forwarded := func() { // the active node says that there is none
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
		m.refused(http.StatusNotFound, logical.ReadOperation, "config/weather", nil)
		synctest.Wait() // the set is looked at in the background
		m.unpublished("weather")
	})
}

func TestKeySetIsTheSame404WhateverIsSent(t *testing.T) {
	m := newMount(t)
	_, err := m.b.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.ReadOperation, Path: "jwks/absent", Storage: m.storage,
		Data: fields{"client_secret": []string{"a", "b"}},
	})
	if coded, ok := err.(logical.HTTPCodedError); !ok || coded.Code() != http.StatusNotFound {
		t.Errorf("got %v, want the 404", err)
	}
}

// A key leaves the published set at its time, without anybody writing.
func TestPublishedKeySetsEndByThemselves(t *testing.T) {
	c := &config{PublishJWKS: true}
	for _, from := range []time.Time{{}, time.Now().Add(time.Hour)} {
		key, err := newSigningKey(grant.ECP256, from)
		if err != nil {
			t.Fatal(err)
		}
		c.Keys = append(c.Keys, key)
	}
	sets := newKeySets()
	if err := sets.update("weather", c); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]int{0: 2, 25 * time.Hour: 1, 9999 * time.Hour: 1} {
		set, ok := sets.of("weather", []identity{identityStatic})
		if keys := set.at(time.Now().Add(after)); !ok || len(keys) != want {
			t.Errorf("after %s %d keys are published, %t; want %d", after, len(keys), ok, want)
		}
	}
	for _, gone := range []*config{{Keys: c.Keys}, nil} {
		if err := sets.update("weather", gone); err != nil {
			t.Fatal(err)
		}
		if _, ok := sets.of("weather", []identity{identityStatic}); ok {
			t.Error("a set is published of a config that publishes none")
		}
		if err := sets.update("weather", c); err != nil {
			t.Fatal(err)
		}
	}
}

// An authorization server that fetches the set of a key that was just replaced must not keep it for long:
// the operator may replace that key too.
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
					got := m.data(logical.ReadOperation, m.publishedAt("weather"), nil)[logical.HTTPCacheControlHeader]
					if got != "private, max-age="+want {
						t.Errorf("%s: %v; want max-age=%s", when, got, want)
					}
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
				m.stop()
				m.start()
				synctest.Wait()
				keptFor(after, "after a restart")
				m.write("config/weather", with(unverified, fields{"scopes": "a"}))
				time.Sleep(jwksMaxAge - time.Second)
				keptFor(after, "just before caches of the old set have ended")
				time.Sleep(time.Second)
				keptFor("300", "when they have")
			})
		})
	}
}

// A rotation is published ahead of its use, so nothing has to be fetched in a hurry.
func TestKeySetIsKeptForItsTimeThroughARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
		for range 26 {
			data := m.data(logical.ReadOperation, m.publishedAt("weather"), nil)
			if got := data[logical.HTTPCacheControlHeader]; got != "private, max-age=300" {
				t.Fatalf("at %s the set may be kept: %v", time.Now(), got)
			}
			time.Sleep(10 * time.Minute)
			if data = m.data(logical.ReadOperation, m.publishedAt("weather"), nil); data[logical.HTTPCacheControlHeader] != "private, max-age=300" {
				t.Fatalf("at %s the set may be kept: %v", time.Now(), data[logical.HTTPCacheControlHeader])
			}
			time.Sleep(50 * time.Minute)
		}
	})
}

// A config that is stored without keys, as no write of this version leaves it, has an empty set.
func TestKeySetWithoutKeysIsEmpty(t *testing.T) {
	m := newMount(t)
	if err := m.store().putConfig(t.Context(), "weather", &config{ClientID: "vault", PublishJWKS: true}); err != nil {
		t.Fatal(err)
	}
	m.stop()
	m.start()
	if got := m.jwks("weather"); len(got) != 0 {
		t.Errorf("the set is %v", got)
	}
}
