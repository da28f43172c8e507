package mcpoauth

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// isVerified checks what status/ says of the credentials, for the config and each of its roles.
func (m *mount) isVerified(want bool, when string, names ...string) {
	m.t.Helper()
	for _, name := range append([]string{"weather"}, names...) {
		if got := m.read("status/" + name)["credentials_verified"]; got != want {
			m.t.Errorf("%s: credentials_verified of %s is %v; want %t", when, name, got, want)
		}
	}
}

// A secret or key that no request has been made with must not look healthy.
func TestCredentialsAreVerifiedByTheFirstTokenRequestThatSucceeds(t *testing.T) {
	for _, kind := range credentialKinds(t) {
		if kind.name == "client certificate" {
			continue // needs TLS: see TestClientCertificateIsVerified
		}
		for _, test := range []struct {
			name    string
			request func(*mount)
			on      string
		}{
			{"a read", func(m *mount) { m.token("weather") }, "weather"},
			{"a read of a role", func(m *mount) { m.token("weather/reader") }, "weather/reader"},
			{"a refresh", func(m *mount) { m.refresh("weather", nil) }, "weather"},
			{"a verified write", func(m *mount) { m.write("config/weather", fields{"client_id": "vault"}) }, "weather"},
			{"a verified write of a role", func(m *mount) { m.write("role/weather/reader", fields{"audience": "a"}) }, "weather/reader"},
			{"a verified write of a role that changes nothing", func(m *mount) { m.write("role/weather/reader", nil) }, "weather/reader"},
		} {
			t.Run(kind.name+", "+test.name, func(t *testing.T) {
				as, m := newAuthServer(t), newMount(t)
				m.write("config/weather", with(with(as.endpoint(), kind.give), fields{"verify": false}))
				m.write("role/weather/reader", fields{"scopes": "a", "verify": false})
				m.isVerified(false, "at first", "weather/reader")
				as.answers(refusing(400, "invalid_scope"))
				_, _ = m.do(logical.ReadOperation, "token/weather/reader", nil)
				m.isVerified(false, "after a refusal", "weather/reader")
				as.answers(granting(nil))
				m.write("role/weather/reader", fields{"scopes": "b", "verify": false}) // forgets the refusal
				asked := as.count()
				test.request(m)
				as.asked(t, asked+1, "after "+test.name)
				m.isVerified(true, "after "+test.name, "weather/reader")
				m.stop()
				m.start()
				m.isVerified(true, "after a restart", "weather/reader")
				m.write("config/weather", fields{"scopes": "c", "verify": false})
				m.isVerified(true, "after another change", "weather/reader")
			})
		}
	}
}

// The old token is valid, so status/ says ok: what was just written has not been tried.
func TestCredentialsThatAreReplacedAreToBeVerifiedAgain(t *testing.T) {
	for name, change := range map[string]func(*authServer) fields{
		"secret": func(*authServer) fields {
			return fields{"client_secret": "new-" + secretMark, "verify": false}
		},
		"client_id": func(*authServer) fields { return fields{"client_id": "another", "verify": false} },
		"made key":  func(*authServer) fields { return fields{"client_secret": "", "key_type": "ec-p256"} },
		"operator's key": func(*authServer) fields {
			return fields{"client_secret": "", "private_key": pemOf(t, edKey(t)), "verify": false}
		},
		"secret brought for another endpoint": func(as *authServer) fields {
			return fields{"token_url": as.URL + "/other", "client_secret": secret, "verify": false}
		},
	} {
		t.Run(name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.write("config/weather", as.client())
			m.isVerified(true, "after a verified write")
			m.write("config/weather", change(as))
			m.isVerified(false, "after the change")
			m.stop()
			m.start()
			m.isVerified(false, "after a restart")
			as.answers(refusing(401, "invalid_client"))
			m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"client_id": m.read("config/weather")["client_id"]}, "invalid_client")
			m.isVerified(false, "after a write that was refused")
			as.answers(granting(nil))
			m.write("config/weather", fields{"client_id": m.read("config/weather")["client_id"]})
			m.isVerified(true, "after a verified write that changes nothing")
			asked := as.count()
			m.write("config/weather", fields{"client_id": m.read("config/weather")["client_id"]})
			as.asked(t, asked, "after the same write of what is verified")
		})
	}
}

func TestCredentialsOfADeletedConfigProveNothing(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.token("weather")
	m.isVerified(true, "after a read")
	m.delete("config/weather")
	equal(t, "what is stored after the delete", keysOf(t, m), nil)
	m.configure(as, nil)
	m.isVerified(false, "after the config was created again")
}

// When the credentials were written is not when the config was.
func TestStatusSaysWhenCredentialsWereWritten(t *testing.T) {
	story := func(t *testing.T) {
		m := newMount(t)
		written := func(want time.Time, when string) {
			t.Helper()
			if got := m.read("status/weather")["credentials_written_at"]; got != rfc3339(want) {
				t.Errorf("%s: credentials_written_at is %v; want %s", when, got, rfc3339(want))
			}
		}
		first := time.Now()
		client := fields{"token_url": "https://as.example.com/token", "client_id": "vault", "client_secret": secret, "verify": false}
		m.write("config/weather", client)
		written(first, "at first")
		time.Sleep(time.Hour)
		m.write("config/weather", fields{"scopes": "a", "verify": false})
		m.write("config/weather", client)
		written(first, "after writes of the same credentials")
		second := time.Now()
		m.write("config/weather", fields{"client_secret": "", "key_type": "ec-p256"})
		written(second, "after another kind of credentials")
		m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
		time.Sleep(10*time.Minute - time.Second)
		written(second, "while the old key signs")
		time.Sleep(time.Second)
		written(second.Add(10*time.Minute), "when the rotated key signs")
	}
	synctest.Test(t, story)
}

// A rotated key is another proof: that of the old one says nothing of it.
func TestRotatedKeyIsToBeVerified(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	m.token("weather")
	m.isVerified(true, "after a read")
	m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
	m.isVerified(true, "while the old key signs")
	m.stop()
	c := m.config("weather")
	c.Keys[1].ActiveFrom = time.Now().Add(-time.Second) // as if it were later
	if err := m.store().putConfig(t.Context(), "weather", c); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.isVerified(false, "when the new key signs")
	m.write("config/weather", nil)
	m.isVerified(true, "after a verified write")
}

// A request that began with the old secret proves nothing of the new one.
func TestRequestThatIsOvertakenByNewCredentialsVerifiesNothing(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	as.hold()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = m.do(logical.ReadOperation, "token/weather", nil)
	}()
	as.await(1)
	m.configure(as, fields{"client_secret": "new-" + secretMark})
	m.isVerified(false, "while the old request is under way")
	as.answers(refusing(401, "invalid_client"))
	as.release()
	<-done
	m.isVerified(false, "after it")
}

func TestClientCertificateIsVerified(t *testing.T) {
	ca, m := newAuthority(t), newMount(t)
	as := ca.newServer(t, true)
	m.write("config/weather", with(ca.client(t, longLife), with(as.endpoint(), fields{"verify": false})))
	m.isVerified(false, "at first")
	m.token("weather")
	m.isVerified(true, "after a read")
	renewed := ca.client(t, longLife)
	m.write("config/weather", fields{"client_certificate": renewed["client_certificate"], "client_certificate_key": renewed["client_certificate_key"], "verify": false})
	m.isVerified(false, "after its renewal")
}

// What a request has proved is stored once. A node that may not write forwards who asks, and storage that fails
// keeps no token from its reader.
func TestProofIsStoredOnce(t *testing.T) {
	storage := &testStorage{}
	as, m := newAuthServer(t), newNode(t, storage, 0)
	m.configure(as, nil)
	storage.fail("put proved/")
	m.token("weather")
	m.isVerified(true, "while it cannot be stored")
	storage.fail()
	m.write("config/weather", fields{"scopes": "a", "verify": false})
	m.token("weather")
	stored := storage.entries(t)["proved/weather"]
	if stored == "" {
		t.Fatal("the proof is not stored")
	}
	storage.fail("put proved/", "get proved/")
	m.write("config/weather", fields{"scopes": "b", "verify": false})
	m.token("weather")
	m.isVerified(true, "from memory")
	storage.fail()
	standby := newNode(t, storage, passiveStates["performance standby"])
	standby.readOnly(logical.ReadOperation, "status/weather", nil)
	if got := storage.entries(t)["proved/weather"]; got != stored {
		t.Errorf("the stored proof was %s and is %s", stored, got)
	}
}
