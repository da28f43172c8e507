package mcpoauth

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// isVerified checks credentials_verified in the status of the config and of the names.
func (m *mount) isVerified(want bool, when string, names ...string) {
	m.t.Helper()
	for _, name := range append([]string{"weather"}, names...) {
		equal(m.t, when+": credentials_verified of "+name, m.read("status/" + name)["credentials_verified"], want)
	}
}

// Credentials are not verified before a token request succeeds with them.
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
				m.write("role/weather/reader", fields{"scopes": "b", "verify": false}) // clears the failure
				asked := as.count()
				test.request(m)
				as.asked(t, asked+1, "after "+test.name)
				m.isVerified(true, "after "+test.name, "weather/reader")
				m.restart()
				m.isVerified(true, "after a restart", "weather/reader")
				m.write("config/weather", fields{"scopes": "c", "verify": false})
				m.isVerified(true, "after another change", "weather/reader")
			})
		}
	}
}

// The state is ok while the old token is valid, although the new credentials are untested.
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
			m.restart()
			m.isVerified(false, "after a restart")
			as.answers(refusing(401, "invalid_client"))
			m.rejects("config/weather", fields{"client_id": m.read("config/weather")["client_id"]}, "invalid_client")
			m.isVerified(false, "after a write that was refused")
			as.answers(granting(nil))
			m.write("config/weather", fields{"client_id": m.read("config/weather")["client_id"]})
			m.isVerified(true, "after a verified write that changes nothing")
			asked := as.count()
			m.write("config/weather", fields{"client_id": m.read("config/weather")["client_id"]})
			as.asked(t, asked, "after the same write of a verified config")
		})
	}
}

func TestCredentialsOfADeletedConfigProveNothing(t *testing.T) {
	as, m := newConfigured(t)
	m.token("weather")
	m.isVerified(true, "after a read")
	m.delete("config/weather")
	equal(t, "the stored keys after the delete", keysOf(t, m), nil)
	m.configure(as, nil)
	m.isVerified(false, "after the config was created again")
}

// A write of other fields does not change the time at which the credentials were written.
func TestStatusSaysWhenCredentialsWereWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		written := func(want time.Time, when string) {
			t.Helper()
			equal(t, when+": credentials_written_at", m.read("status/weather")["credentials_written_at"], rfc3339(want))
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
	})
}

// A token request with the old key does not verify the new key. Both keys sign assertions in their time.
func TestRotatedKeyIsToBeVerified(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	first := m.signsWith("weather")
	second := m.data(logical.UpdateOperation, "keys/weather/rotate", nil)["key_id"].(string)
	m.token("weather")
	m.isVerified(true, "while the old key signs")
	equal(t, "the key before its successor's time", m.asserted(as.await(1)).header.KeyID, first)
	m.edit("weather", func(c *config) { c.Keys[1].ActiveFrom = time.Now().Add(-time.Second) }) // as if its time had come
	m.isVerified(false, "when the new key signs")
	m.write("config/weather", nil)
	m.isVerified(true, "after a verified write")
	equal(t, "the key after its time", m.asserted(as.await(2)).header.KeyID, second)
}

// A request that began with the old secret does not verify the new secret.
func TestRequestThatIsOvertakenByNewCredentialsVerifiesNothing(t *testing.T) {
	as, m := newConfigured(t)
	as.hold()
	wait := inBackground(func() {
		_, _ = m.do(logical.ReadOperation, "token/weather", nil)
	})
	as.await(1)
	m.configure(as, fields{"client_secret": "new-" + secretMark})
	m.isVerified(false, "while the old request is under way")
	as.answers(refusing(401, "invalid_client"))
	as.release()
	wait()
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

// A proof is stored once. A passive node forwards requests for the status, and a token is served even if storing its
// proof fails.
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
	contains(t, "the stored proof", stored, "{")
	storage.fail("put proved/", "get proved/")
	m.write("config/weather", fields{"scopes": "b", "verify": false})
	m.token("weather")
	m.isVerified(true, "from memory")
	storage.fail()
	standby := newNode(t, storage, passiveStates["performance standby"])
	standby.readOnly(logical.ReadOperation, "status/weather", nil)
	equal(t, "the stored proof", storage.entries(t)["proved/weather"], stored)
}
