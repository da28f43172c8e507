package mcpoauth

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// keyIDs returns the kids of a JWK Set, and checks that its keys are public.
func keyIDs(t *testing.T, keys []any) []string {
	t.Helper()
	var all []string
	for _, key := range keys {
		id, _ := key.(map[string]any)["kid"].(string)
		checkPublic(t, must(json.Marshal(key))(t), id)
		all = append(all, id)
	}
	return all
}

func (m *mount) keys(server string) (published []string, data fields) {
	m.t.Helper()
	data = m.read("keys/" + server)
	return keyIDs(m.t, data["keys"].([]any)), data
}

// signsWith returns the kid of a server's assertions.
func (m *mount) signsWith(server string) string {
	m.t.Helper()
	return must(m.config(server).assertion(time.Now()))(m.t).Key.ID
}

// The authorization server cannot know the new key yet.
func TestPluginMadeKeyAsksForNoToken(t *testing.T) {
	as := newAuthServer(t)
	for _, give := range []fields{
		{"key_type": "rsa-2048"},
		{"key_type": "ec-p256"},
		{"key_type": "ed25519", "token_endpoint_auth_method": "private_key_jwt"},
		{"token_endpoint_auth_method": "private_key_jwt"}, // uses the default, rsa-2048
	} {
		m := newMount(t)
		warnings := m.write("config/weather", with(as.endpoint(), give))
		warns(t, fmt.Sprint(give), warnings, "register the public key from keys/weather", "then write refresh/weather")
		published, data := m.keys("weather")
		equal(t, "the fields", slices.Sorted(maps.Keys(data)), []string{"active_key_id", "keys"})
		equal(t, "the keys", published, []string{data["active_key_id"].(string)})
		equal(t, "key_type", m.read("config/weather")["key_type"], cmp.Or(give["key_type"], "rsa-2048"))
		was := m.storage.entries(t)
		again := with(with(as.endpoint(), give), fields{"verify": false})
		equal(t, "the warnings of the same write", m.write("config/weather", again), nil)
		m.storage.unchanged(t, was)
	}
	as.asked(t, 0, "after writes that make keys")
}

// Once registered, the key works like any other credentials.
func TestPluginMadeKeyInUse(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	m.holds("weather", "t0ken-1")
	_, data := m.keys("weather")
	equal(t, "the key of the assertion", m.asserted(as.await(1)).header.KeyID, data["active_key_id"])
	m.write("config/weather", fields{"scopes": "a"})
	as.asked(t, 2, "after a write with something to verify")
	m.write("config/weather", fields{"key_type": "ed25519"})
	as.asked(t, 2, "after a write that makes another key")
	m.holds("weather", "t0ken-2")
	after, _ := m.keys("weather")
	if len(after) != 1 || after[0] == data["active_key_id"] {
		t.Errorf("the keys are %q; want another one", after)
	}
}

func TestKeysOfAClientWithoutKeys(t *testing.T) {
	_, m := newConfigured(t)
	for path, op := range map[string]logical.Operation{"": logical.ReadOperation, "/rotate": logical.UpdateOperation} {
		m.refused(http.StatusNotFound, op, "keys/weather"+path, nil, "has no signing key", "key_type or private_key")
		m.refused(http.StatusNotFound, op, "keys/absent"+path, nil, "write config/absent")
	}
}

// The new key is published at once and signs later, from its time on. The old key stays published for a day after
// that.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		first := m.signsWith("weather")
		answer := m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
		second := answer["key_id"].(string)
		if at := instant(t, answer, "active_at"); time.Until(at).Round(time.Second) != 10*time.Minute || second == first {
			t.Errorf("the answer is %v; want another key than %q, in ten minutes", answer, first)
		}
		expect := func(when, signs string, published ...string) {
			t.Helper()
			got, data := m.keys("weather")
			equal(t, "the keys "+when, got, published)
			equal(t, "the key set "+when, keyIDs(t, m.jwks("weather")), published)
			equal(t, "the keys that are active and sign "+when, []any{data["active_key_id"], m.signsWith("weather")}, []any{signs, signs})
			pending := signs == first && len(published) == 2
			equal(t, "a next key and its time "+when, []bool{data["next_key_id"] == second, data["next_key_active_at"] == answer["active_at"]},
				[]bool{pending, pending})
		}
		expect("at once", first, first, second)
		m.rejects("keys/weather/rotate", nil, "is under way", answer["active_at"].(string))
		time.Sleep(10*time.Minute - time.Second)
		expect("just before", first, first, second)
		time.Sleep(time.Second)
		expect("at its time", second, first, second)
		m.restart()
		expect("after a restart", second, first, second)
		time.Sleep(24 * time.Hour)
		expect("a day after", second, second)

		third := m.data(logical.UpdateOperation, "keys/weather/rotate", fields{"activate_after": "5m"})["key_id"].(string)
		equal(t, "the stored keys", ids(m.config("weather").Keys), []string{second, third})
	})
}

// After several rotations, each key is published for its full time.
func TestRotationsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", fields{"token_url": "https://as.example.com/token", "client_id": "vault", "key_type": "ed25519"})
		want := []string{m.signsWith("weather")}
		for range 3 {
			want = append(want, m.data(logical.UpdateOperation, "keys/weather/rotate", nil)["key_id"].(string))
			time.Sleep(time.Hour)
		}
		published, _ := m.keys("weather")
		equal(t, "the keys", published, want)
		equal(t, "the key that signs", m.signsWith("weather"), want[3])
		time.Sleep(22 * time.Hour)
		published, _ = m.keys("weather")
		equal(t, "the keys a day after the first", published, want[1:])
	})
}

// Every published key takes space in the config and in the key set.
func TestRotationIsRefusedWhileEightKeysArePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		rotate := func() time.Time {
			t.Helper()
			return instant(t, m.data(logical.UpdateOperation, "keys/weather/rotate", nil), "active_at")
		}
		second := rotate()
		time.Sleep(time.Hour)
		for range 6 {
			rotate()
			time.Sleep(time.Hour)
		}
		published, _ := m.keys("weather")
		equal(t, "published keys", len(published), 8)
		was, until := m.storage.entries(t), second.Add(24*time.Hour)
		m.rejects("keys/weather/rotate", nil, "8 keys", rfc3339(until))
		time.Sleep(time.Until(until) - time.Second)
		m.rejects("keys/weather/rotate", nil, "8 keys", rfc3339(until))
		m.storage.unchanged(t, was)
		time.Sleep(time.Second)
		rotate()
		m.rejects("keys/weather/rotate", nil, "is under way")
	})
}

// If the clock was ahead during a rotation and is then set back, the client must still have a key.
func TestClockSetBackBeforeTheRing(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256", "publish_jwks": true}))
	m.edit("weather", func(c *config) { c.Keys[0].ActiveFrom = time.Now().Add(48 * time.Hour) })
	only := m.config("weather").Keys[0].ID
	m.token("weather")
	equal(t, "the key that signs", m.asserted(as.await(1)).header.KeyID, only)
	published, data := m.keys("weather")
	equal(t, "the keys", published, []string{only})
	shows(t, data, fields{"active_key_id": only, "next_key_id": nil})
	m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
	published, data = m.keys("weather")
	equal(t, "the number of keys after a rotation", len(published), 2)
	equal(t, "the active key after a rotation", data["active_key_id"], only)
}

func TestRotationKeepsTokensInService(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	m.write("role/weather/reader", fields{"scopes": "read"})
	token := m.token("weather")
	m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
	m.holds("weather", token)
	m.holds("weather/reader", "t0ken-1")
	as.asked(t, 2, "after a rotation")
	equal(t, "key_type", m.read("config/weather")["key_type"], "ec-p256")
}

func TestRotationThatIsRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	m.write("config/maps", with(as.endpoint(), fields{"private_key": pemOf(t, edKey(t)), "verify": false}))
	was := m.storage.entries(t)
	for _, after := range []any{0, "1s", "4m59s", "721h", "soon", -1} {
		m.rejects("keys/weather/rotate", fields{"activate_after": after}, "activate_after")
	}
	m.rejects("keys/maps/rotate", nil, "did not make", "write another private_key")
	m.storage.fail("put config/")
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "keys/weather/rotate", nil, errStorage.Error())
	m.storage.fail()
	m.storage.unchanged(t, was)
	for _, after := range []any{"5m", "720h"} {
		m.data(logical.UpdateOperation, "keys/weather/rotate", fields{"activate_after": after})
		m.write("config/weather", fields{"key_type": "ed25519"}) // ends the rotation
		m.write("config/weather", fields{"key_type": "ec-p256"})
	}
}

// A rotation that overlaps with another write ends with 409.
func TestRotationThatIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		synctest.Wait() // the loading ends
		m.storage.meanwhile(func() { m.write("config/weather", fields{"max_ttl": "1h", "verify": false}) })
		m.refused(http.StatusConflict, logical.UpdateOperation, "keys/weather/rotate", nil, "changed")
		published, _ := m.keys("weather")
		equal(t, "keys and published keys", []int{len(published), len(m.jwks("weather"))}, []int{1, 1})
	})
}
