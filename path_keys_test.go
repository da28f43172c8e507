package mcpoauth

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// keyIDs are the kids of a JWK Set in an answer, each of a public key alone.
func keyIDs(t *testing.T, keys []any) []string {
	t.Helper()
	var all []string
	for _, key := range keys {
		data, err := json.Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		id, _ := key.(map[string]any)["kid"].(string)
		checkPublic(t, data, id)
		all = append(all, id)
	}
	return all
}

// keys reads keys/<server>.
func (m *mount) keys(server string) (published []string, data fields) {
	m.t.Helper()
	data = m.read("keys/" + server)
	return keyIDs(m.t, data["keys"].([]any)), data
}

// signsWith is the kid of the assertions of a server.
func (m *mount) signsWith(server string) string {
	m.t.Helper()
	c, err := m.store().config(m.t.Context(), server)
	if err != nil {
		m.t.Fatal(err)
	}
	a, err := c.assertion(time.Now())
	if err != nil {
		m.t.Fatal(err)
	}
	return a.Key.ID
}

// The authorization server cannot know a key that was made a moment ago.
func TestPluginMadeKeyAsksForNoToken(t *testing.T) {
	as := newAuthServer(t)
	for _, give := range []fields{
		{"key_type": "rsa-2048"},
		{"key_type": "ec-p256"},
		{"key_type": "ed25519", "token_endpoint_auth_method": "private_key_jwt"},
		{"token_endpoint_auth_method": "private_key_jwt"}, // rsa-2048 is the default
	} {
		m := newMount(t)
		warnings := m.write("config/weather", with(as.endpoint(), give))
		if len(warnings) != 1 || !strings.Contains(warnings[0], "register the public key from keys/weather") ||
			!strings.Contains(warnings[0], "then write refresh/weather") {
			t.Errorf("%v: the warnings are %q", give, warnings)
		}
		published, data := m.keys("weather")
		equal(t, "the fields", slices.Sorted(maps.Keys(data)), []string{"active_key_id", "keys"})
		equal(t, "the keys", published, []string{data["active_key_id"].(string)})
		want := give["key_type"]
		if want == nil {
			want = "rsa-2048"
		}
		if got := m.read("config/weather")["key_type"]; got != want {
			t.Errorf("key_type reads %v; want %v", got, want)
		}
		was := m.storage.entries(t)
		if warnings := m.write("config/weather", with(with(as.endpoint(), give), fields{"verify": false})); warnings != nil {
			t.Errorf("the same again warns of %q", warnings)
		}
		m.storage.unchanged(t, was)
	}
	as.asked(t, 0, "after writes that make keys")
}

// The key is registered, and from then on all is as with any credentials.
func TestPluginMadeKeyInUse(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	m.holds("weather", "t0ken-1")
	_, data := m.keys("weather")
	if got := m.asserted(as.await(1)).header.KeyID; got != data["active_key_id"] {
		t.Errorf("the assertion names the key %q; want %q", got, data["active_key_id"])
	}
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

func TestKeysOfWhatHasNone(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	for _, op := range []struct {
		op   logical.Operation
		path string
	}{{logical.ReadOperation, ""}, {logical.UpdateOperation, "/rotate"}} {
		m.refused(http.StatusNotFound, op.op, "keys/weather"+op.path, nil, "has no signing key", "key_type or private_key")
		m.refused(http.StatusNotFound, op.op, "keys/absent"+op.path, nil, "write config/absent")
	}
}

// A whole rotation by the clock: the new key is published at once, used from its time
// on, and the old one stays for a day after.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", fields{
			"token_url": "https://as.example.com/token", "client_id": "vault", "key_type": "ec-p256", "publish_jwks": true,
		})
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
			if data["active_key_id"] != signs || m.signsWith("weather") != signs {
				t.Errorf("%s %v is active, and %q signs; want %q", when, data["active_key_id"], m.signsWith("weather"), signs)
			}
			pending := signs == first && len(published) == 2
			if (data["next_key_id"] == second) != pending || (data["next_key_active_at"] == answer["active_at"]) != pending {
				t.Errorf("%s the next key is %v at %v", when, data["next_key_id"], data["next_key_active_at"])
			}
		}
		expect("at once", first, first, second)
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "keys/weather/rotate", nil, "is under way", answer["active_at"].(string))
		time.Sleep(10*time.Minute - time.Second)
		expect("just before", first, first, second)
		time.Sleep(time.Second)
		expect("at its time", second, first, second)
		m.stop()
		m.start()
		expect("after a restart", second, first, second)
		time.Sleep(24 * time.Hour)
		expect("a day after", second, second)

		third := m.data(logical.UpdateOperation, "keys/weather/rotate", fields{"activate_after": "5m"})["key_id"].(string)
		c := m.config("weather")
		equal(t, "the stored keys", ids(c.Keys), []string{second, third})
	})
}

// Rotations that follow each other soon keep every key published for its time.
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
		if got := m.signsWith("weather"); got != want[3] {
			t.Errorf("%q signs; want the last, %q", got, want[3])
		}
		time.Sleep(22 * time.Hour)
		published, _ = m.keys("weather")
		equal(t, "the keys a day after the first", published, want[1:])
	})
}

// Each key is published for a day after its use, and is part of the config's entry and of the key set.
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
		if len(published) != 8 {
			t.Fatalf("%d keys are published; want 8", len(published))
		}
		was, until := m.storage.entries(t), second.Add(24*time.Hour)
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "keys/weather/rotate", nil, "8 keys", rfc3339(until))
		time.Sleep(time.Until(until) - time.Second)
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "keys/weather/rotate", nil, "8 keys", rfc3339(until))
		m.storage.unchanged(t, was)
		time.Sleep(time.Second)
		rotate()
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "keys/weather/rotate", nil, "is under way")
	})
}

// A clock that was wrong when a key was rotated, and is set right, must not leave the client without one.
func TestClockSetBackBeforeTheRing(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256", "publish_jwks": true}))
	m.stop()
	c := m.config("weather")
	c.Keys[0].ActiveFrom = time.Now().Add(48 * time.Hour)
	if err := m.store().putConfig(t.Context(), "weather", c); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.token("weather")
	if got := m.asserted(as.await(1)).header.KeyID; got != c.Keys[0].ID {
		t.Errorf("%q signs; want the only key, %q", got, c.Keys[0].ID)
	}
	published, data := m.keys("weather")
	equal(t, "the keys", published, []string{c.Keys[0].ID})
	if data["active_key_id"] != c.Keys[0].ID || data["next_key_id"] != nil {
		t.Errorf("the active key is %v, the next %v; want %q and none", data["active_key_id"], data["next_key_id"], c.Keys[0].ID)
	}
	m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
	if published, data = m.keys("weather"); len(published) != 2 || data["active_key_id"] != c.Keys[0].ID {
		t.Errorf("after a rotation the keys are %q, and %v is active", published, data["active_key_id"])
	}
}

func TestRotationKeepsTokensInService(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	m.write("role/weather/reader", fields{"scopes": "read"})
	token := m.token("weather")
	m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
	m.holds("weather", token)
	if got := m.token("weather/reader"); got != "t0ken-1" {
		t.Errorf("the role's token is %q", got)
	}
	as.asked(t, 2, "after a rotation")
	if got := m.read("config/weather")["key_type"]; got != "ec-p256" {
		t.Errorf("key_type is %v", got)
	}
}

func TestRotationThatIsRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	m.write("config/maps", with(as.endpoint(), fields{"private_key": pemOf(t, edKey(t)), "verify": false}))
	was := m.storage.entries(t)
	for _, after := range []any{0, "1s", "4m59s", "721h", "soon", -1} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "keys/weather/rotate", fields{"activate_after": after}, "activate_after")
	}
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "keys/maps/rotate", nil, "is the operator's", "write a new private_key")
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

// After its time the new key signs what arrives at the authorization server.
func TestNewKeySignsFromItsTimeOn(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	first := m.signsWith("weather")
	second := m.data(logical.UpdateOperation, "keys/weather/rotate", nil)["key_id"].(string)
	m.token("weather")
	if got := m.asserted(as.await(1)).header.KeyID; got != first {
		t.Errorf("before its time %q signs; want %q", got, first)
	}
	m.stop()
	c := m.config("weather")
	c.Keys[1].ActiveFrom = time.Now().Add(-time.Second) // as if it were later
	if err := m.store().putConfig(t.Context(), "weather", c); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.write("config/weather", fields{"scopes": "a"})
	if got := m.asserted(as.await(2)).header.KeyID; got != second {
		t.Errorf("after its time %q signs; want %q", got, second)
	}
}

// A rotation that is overtaken by a write is a conflict, as any write is.
func TestRotationThatIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		synctest.Wait() // until all is loaded
		m.storage.meanwhile(func() { m.write("config/weather", fields{"max_ttl": "1h", "verify": false}) })
		m.refused(http.StatusConflict, logical.UpdateOperation, "keys/weather/rotate", nil, "changed")
		if published, _ := m.keys("weather"); len(published) != 1 || len(m.jwks("weather")) != 1 {
			t.Errorf("the keys are %q", published)
		}
	})
}
