package mcpoauth

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// lifetimes are token lifetimes. A reader in Kubernetes must never hold a token for longer.
var lifetimes = []time.Duration{
	15 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute,
	5 * time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour,
}

// operator is the Vault Secrets Operator with a VaultDynamicSecret with allowStaticCreds.
type operator struct {
	held     time.Time // the expiry of the token in the Kubernetes Secret
	rotation time.Time // last_vault_rotation of the last accepted answer
	ttl      int64     // its ttl in seconds
	pause    func() time.Duration
}

// pauses are the operator's waits after it reads an unchanged token: 0.5 s to 2 s.
var pauses = map[string]func() time.Duration{
	"longest": func() time.Duration { return 2 * time.Second },
	"drawn":   func() time.Duration { return 500*time.Millisecond + rand.N(1500*time.Millisecond) },
}

// read takes an answer as the operator does, and returns the wait until its next read.
func (o *operator) read(t *testing.T, answer fields) time.Duration {
	t.Helper()
	// The operator accepts these fields only as RFC 3339 text and as whole numbers.
	arrived := overHTTP(t, answer)
	rotation := instant(t, arrived, "last_vault_rotation")
	if period := whole(t, arrived, "rotation_period"); period < 1 {
		t.Fatalf("rotation_period is %d; the operator never reads such a secret again", period)
	}
	ttl := whole(t, arrived, "ttl")
	if rotation.Equal(o.rotation) && (ttl <= 2 || ttl >= o.ttl) {
		return o.pause()
	}
	o.held, o.rotation, o.ttl = instant(t, arrived, "expires_at"), rotation, ttl
	// Its jitter is at most 5 % of 3 s.
	return time.Duration(ttl)*time.Second + 500*time.Millisecond + 150*time.Millisecond
}

// whole returns the value of a field, which must be a whole number.
func whole(t *testing.T, data fields, field string) int64 {
	t.Helper()
	number, _ := data[field].(json.Number)
	n, err := number.Int64()
	if err != nil {
		t.Fatalf("%s is %#v; want a whole number", field, data[field])
	}
	return n
}

// The Vault Secrets Operator never keeps an expired token in its Secret, even if it reads early because its own login
// was renewed.
func TestOperatorNeverHoldsExpiredToken(t *testing.T) {
	for _, lifetime := range lifetimes {
		for name, pause := range pauses {
			t.Run(lifetime.String()+" "+name, func(t *testing.T) {
				timelapse(t, lifetime, func(t *testing.T, m *mount) {
					o := operator{pause: pause}
					start, reads := time.Now(), 0
					for time.Since(start) < 20*lifetime {
						wait := o.read(t, m.read("token/weather"))
						reads++
						if reads%4 == 0 {
							wait /= 2 // the operator's login was renewed
						}
						time.Sleep(wait)
						if !time.Now().Before(o.held) {
							t.Fatalf("after %s the Secret holds a token that has expired", time.Since(start))
						}
					}
					// One read per refresh, which comes after half of a short lifetime, plus one per login.
					if reads > 60 {
						t.Errorf("%d reads in 20 lifetimes", reads)
					}
				})
			})
		}
	}
}

// A reader with a fixed interval, such as the External Secrets Operator, never holds an expired token if the interval
// is a quarter of the token's lifetime less a second, because expires_at is in whole seconds.
func TestPollerNeverHoldsExpiredToken(t *testing.T) {
	for _, lifetime := range lifetimes {
		t.Run(lifetime.String(), func(t *testing.T) {
			timelapse(t, lifetime, func(t *testing.T, m *mount) {
				start := time.Now()
				for time.Since(start) < 20*lifetime {
					held := instant(t, m.read("token/weather"), "expires_at")
					time.Sleep(lifetime/4 - time.Second)
					if !time.Now().Before(held) {
						t.Fatalf("after %s the poller holds a token that has expired", time.Since(start))
					}
				}
			})
		})
	}
}

// timelapse runs a story in a bubble, on a mount whose tokens have this lifetime.
func timelapse(t *testing.T, lifetime time.Duration, story func(*testing.T, *mount)) {
	t.Helper()
	as, storage := newAuthServer(t), &testStorage{}
	as.answers(granting(fields{"expires_in": int64(lifetime / time.Second)}))
	m := newNode(t, storage, 0)
	m.configure(as, nil)
	m.stop()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(700 * time.Millisecond) // a bubble begins at a whole second, which would hide errors of rounding
		story(t, newNode(t, storage, 0))
	})
	if n := as.count(); n < 20 {
		t.Errorf("%d token requests in 20 lifetimes", n)
	}
}
