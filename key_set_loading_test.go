package mcpoauth

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Until all configs are loaded, requests wait and never read storage themselves. Each config is read once, however
// many names are requested.
func TestKeySetBeforeAllAreLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		m.write("config/broken", made(nil))
		want := keyIDs(t, m.jwks("weather"))
		m.stop()
		m.storage.fail("list")
		m.start()
		synctest.Wait()
		before := m.storage.calls.Load()
		time.Sleep(keySetWait)
		retries := m.storage.calls.Load() - before
		before = m.storage.calls.Load()
		m.unpublished("weather")
		if n := m.storage.calls.Load() - before; n > retries {
			t.Errorf("%d storage calls during a request, %d without one", n, retries)
		}
		m.storage.fail("get config/broken")
		time.Sleep(time.Minute)
		equal(t, "the key set", keyIDs(t, m.jwks("weather")), want)
		before = m.storage.calls.Load()
		began := time.Now()
		for i := range 2000 {
			m.unpublished(fmt.Sprint("absent-", i))
			m.unpublished("broken")
		}
		if n := m.storage.calls.Load() - before; n != 0 || time.Since(began) != 0 {
			t.Errorf("2000 requests for absent key sets cost %d storage calls and %s", n, time.Since(began))
		}
		m.storage.fail()
		time.Sleep(time.Minute)
		equal(t, "keys of a config that can be read again", len(keyIDs(t, m.jwks("broken"))), 1)
	})
}

// A write waits while the keys are loaded. Otherwise the old keys could overwrite the new ones.
func TestKeySetThatChangesWhileItIsLoaded(t *testing.T) {
	for name, change := range map[string]struct {
		op   logical.Operation
		path string
		data fields
		keys int // 0: unpublished
	}{
		"rotated":     {logical.UpdateOperation, "keys/weather/rotate", nil, 2},
		"unpublished": {logical.UpdateOperation, "config/weather", fields{"publish_jwks": false, "verify": false}, 0},
		"deleted":     {logical.DeleteOperation, "config/weather", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMount(t)
				m.write("config/weather", made(nil))
				synctest.Wait() // the loading ends
				var wait func()
				m.storage.meanwhile(func() {
					wait = inBackground(func() {
						if _, err := m.do(change.op, change.path, change.data); err != nil {
							t.Error(err)
						}
					})
					time.Sleep(time.Second)
				})
				noError(t, m.b.(*backend).loadKeySet(t.Context(), "weather"))
				wait()
				if change.keys == 0 {
					m.unpublished("weather")
				} else {
					equal(t, "published keys", len(m.jwks("weather")), change.keys)
				}
			})
		})
	}
}

// After many failed writes, a single retry loads the key set, and writes do not wait for it.
func TestFailedWritesShareOneReloadOfTheKeySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		at := m.publishedAt("weather")
		m.jwks("weather")
		synctest.Wait() // the loading ends
		// The put is the fourth call: the existence check, the write, and the check under the lock read the config
		// first.
		const put = 4
		unpublish := func(trouble *trouble, status int) {
			t.Helper()
			m.storage.trouble.Store(trouble)
			began := time.Now()
			m.refused(status, logical.UpdateOperation, "config/weather", fields{"publish_jwks": false, "verify": false}, errStorage.Error())
			if took := time.Since(began); took > storageTimeout {
				t.Errorf("the answer took %s, longer than one call", took)
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
			t.Errorf("%d storage calls in ten minutes; want the calls of one retry, at last every minute", n)
		}
		m.data(logical.ReadOperation, at, nil)
		m.storage.trouble.Store(nil)
		time.Sleep(time.Minute)
		m.missing(at, "nothing is published here")
		before := m.storage.calls.Load()
		time.Sleep(time.Hour)
		equal(t, "storage calls in the hour after", m.storage.calls.Load()-before, int64(0))
	})
}
