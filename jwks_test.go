package mcpoauth

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// jwks asks for the key set as an authorization server does, and gives its keys.
func (m *mount) jwks(server string) []any {
	m.t.Helper()
	data := m.data(logical.ReadOperation, "jwks/"+server, nil)
	body, _ := data[logical.HTTPRawBody].([]byte)
	want := fields{
		logical.HTTPContentType:        "application/json",
		logical.HTTPStatusCode:         http.StatusOK,
		logical.HTTPCacheControlHeader: "private, max-age=300",
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

// unpublished checks that there is no key set, in the words that all who ask for what
// is not theirs get.
func (m *mount) unpublished(names ...string) {
	m.t.Helper()
	for _, name := range names {
		if got := m.refused(http.StatusNotFound, logical.ReadOperation, "jwks/"+name, nil); got != "no key set here" {
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

// A mount that has only just started looks once itself.
func TestKeySetBeforeAllAreLoaded(t *testing.T) {
	var looks atomic.Int64 // beside those that load, which fail at their first call
	m := newNode(t, &testStorage{before: func(call string) {
		if call == "get config/weather" {
			looks.Add(1)
		}
	}}, 0)
	m.write("config/weather", made(nil))
	want := keyIDs(t, m.jwks("weather"))
	m.stop()
	m.storage.fail("list") // loading never gets anywhere
	m.start()
	before := looks.Load()
	for range 100 {
		equal(t, "the key set", keyIDs(t, m.jwks("weather")), want)
	}
	if n := looks.Load() - before; n != 1 {
		t.Errorf("100 requests looked %d times into storage; want 1", n)
	}
	m.unpublished("absent")
}

func TestKeySetSurvivesARestart(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", made(nil))
	m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
	want := keyIDs(t, m.jwks("weather"))
	for range 3 {
		m.stop()
		m.start()
		equal(t, "the key set", keyIDs(t, m.jwks("weather")), want)
	}
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
		standby.unpublished("weather")
		active.write("config/weather", made(nil))
		told()
		equal(t, "the key set", keyIDs(t, standby.jwks("weather")), keyIDs(t, active.jwks("weather")))
		active.data(logical.UpdateOperation, "keys/weather/rotate", nil)
		told()
		equal(t, "the key set after a rotation", keyIDs(t, standby.jwks("weather")), keyIDs(t, active.jwks("weather")))
		active.write("config/weather", fields{"publish_jwks": false, "verify": false})
		told()
		standby.unpublished("weather")
		active.write("config/weather", fields{"publish_jwks": true, "verify": false})
		told()
		standby.jwks("weather")
		active.delete("config/weather")
		told()
		standby.unpublished("weather")
	})
}

// A load that is overtaken by a write must not bring the old keys back.
func TestKeySetThatChangesWhileItIsLoaded(t *testing.T) {
	for name, change := range map[string]struct {
		write func(m *mount)
		keys  int // 0: none is published
	}{
		"rotated":     {func(m *mount) { m.data(logical.UpdateOperation, "keys/weather/rotate", nil) }, 2},
		"unpublished": {func(m *mount) { m.write("config/weather", fields{"publish_jwks": false, "verify": false}) }, 0},
		"deleted":     {func(m *mount) { m.delete("config/weather") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMount(t)
				m.write("config/weather", made(nil))
				synctest.Wait() // until all is loaded
				m.storage.meanwhile(func() { change.write(m) })
				if err := m.b.(*backend).loadKeySet(t.Context(), "weather"); err != nil {
					t.Error(err)
				}
				if change.keys == 0 {
					m.unpublished("weather")
				} else if got := len(m.jwks("weather")); got != change.keys {
					t.Errorf("%d keys are published; want %d", got, change.keys)
				}
			})
		})
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

// However many writes fail, and whatever storage does then: one retry looks into what they
// left, and no write waits for it.
func TestFailedWritesShareOneReloadOfTheKeySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		m.jwks("weather")
		synctest.Wait() // until all is loaded
		// The fourth call is the put: the existence check, the write and, under the lock, the
		// write again read the config before.
		const put = 4
		unpublish := func(trouble *trouble, status int) {
			t.Helper()
			m.storage.trouble.Store(trouble)
			began := time.Now()
			m.refused(status, logical.UpdateOperation, "config/weather", fields{"publish_jwks": false, "verify": false}, errStorage.Error())
			if took := time.Since(began); took > storageTimeout {
				t.Errorf("the answer took %s, which is more than one call", took)
			}
			synctest.Wait()
		}
		for range 200 {
			unpublish(&trouble{at: put, lasting: true}, http.StatusInternalServerError)
		}
		unpublish(&trouble{at: put, lasting: true, hanging: true}, http.StatusGatewayTimeout)
		unpublish(&trouble{at: put, lasting: true, done: true}, http.StatusInternalServerError)
		away := &trouble{at: 1, lasting: true}
		m.storage.trouble.Store(away)
		time.Sleep(10 * time.Minute)
		if n := away.struck.Load(); n < 5 || n > 20 {
			t.Errorf("%d storage calls in ten minutes; want those of one that tries every minute in the end", n)
		}
		m.jwks("weather")
		m.storage.trouble.Store(nil)
		time.Sleep(time.Minute)
		m.unpublished("weather")
		before := m.storage.calls.Load()
		time.Sleep(time.Hour)
		if n := m.storage.calls.Load() - before; n != 0 {
			t.Errorf("%d storage calls in the hour after; want none", n)
		}
	})
}
