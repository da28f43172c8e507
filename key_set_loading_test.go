package mcpoauth

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Until all configs have been looked at, a request waits for that, and never looks itself: whatever names
// are asked for, storage is asked for each config once.
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
			t.Errorf("2000 requests for what is not there cost %d storage calls and %s", n, time.Since(began))
		}
		m.storage.fail()
		time.Sleep(time.Minute)
		if len(keyIDs(t, m.jwks("broken"))) != 1 {
			t.Error("a config that could be read again publishes no key")
		}
	})
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

// A write that comes while the keys are being loaded waits, so that the old ones do not come back.
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
				done := make(chan struct{})
				m.storage.meanwhile(func() {
					go func() {
						defer close(done)
						change.write(m)
					}()
					time.Sleep(time.Second)
				})
				if err := m.b.(*backend).loadKeySet(t.Context(), "weather"); err != nil {
					t.Error(err)
				}
				<-done
				if change.keys == 0 {
					m.unpublished("weather")
				} else if got := len(m.jwks("weather")); got != change.keys {
					t.Errorf("%d keys are published; want %d", got, change.keys)
				}
			})
		})
	}
}

// However many writes fail, and whatever storage does then: one retry looks into what they
// left, and no write waits for it.
func TestFailedWritesShareOneReloadOfTheKeySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", made(nil))
		at := m.publishedAt("weather")
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
		m.data(logical.ReadOperation, at, nil)
		m.storage.trouble.Store(nil)
		time.Sleep(time.Minute)
		m.refused(http.StatusNotFound, logical.ReadOperation, at, nil, "nothing is published here")
		before := m.storage.calls.Load()
		time.Sleep(time.Hour)
		if n := m.storage.calls.Load() - before; n != 0 {
			t.Errorf("%d storage calls in the hour after; want none", n)
		}
	})
}
