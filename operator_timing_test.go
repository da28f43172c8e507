package mcpoauth

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// lifetimes are those of tokens that readers in Kubernetes are promised never to hold expired.
var lifetimes = []time.Duration{
	15 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute,
	5 * time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour,
}

// An operator is the Vault Secrets Operator with a VaultDynamicSecret that has allowStaticCreds: what
// it makes of an answer, and when it reads again.
type operator struct {
	held     time.Time // the end of the token in the Kubernetes Secret
	rotation time.Time // last_vault_rotation of the answer that it goes by
	ttl      int64     // of that answer, in seconds
	pause    func() time.Duration
}

// pauses are how long the operator may wait if it finds the same token again: 0.5 s to 2 s.
var pauses = map[string]func() time.Duration{
	"longest": func() time.Duration { return 2 * time.Second },
	"drawn":   func() time.Duration { return 500*time.Millisecond + rand.N(1500*time.Millisecond) },
}

// read does what the operator does with an answer, and tells how long it waits then.
func (o *operator) read(t *testing.T, answer fields) time.Duration {
	t.Helper()
	// It takes these for a rotated credential's only in these types: a text in RFC 3339, whole numbers.
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

// whole is a field that must be a whole number.
func whole(t *testing.T, data fields, field string) int64 {
	t.Helper()
	number, _ := data[field].(json.Number)
	n, err := number.Int64()
	if err != nil {
		t.Fatalf("%s is %#v; want a whole number", field, data[field])
	}
	return n
}

// The Vault Secrets Operator, going by what the token path tells it, never leaves an expired token in
// its Secret, also if it reads early because its own login was renewed.
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
							wait /= 2 // its login was renewed
						}
						time.Sleep(wait)
						if !time.Now().Before(o.held) {
							t.Fatalf("after %s the Secret holds a token that has expired", time.Since(start))
						}
					}
					// About one for each refresh and one for each renewed login. A refresh comes after half
					// of a short lifetime.
					if reads > 60 {
						t.Errorf("%d reads in 20 lifetimes", reads)
					}
				})
			})
		}
	}
}

// A reader that polls, as the External Secrets Operator does, never holds an expired token if it
// polls a second more often than every quarter of the token's lifetime: expires_at is in whole seconds.
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

// timelapse runs a story on a mount whose authorization server grants tokens of a lifetime, in a
// bubble in which days take no time.
func timelapse(t *testing.T, lifetime time.Duration, story func(*testing.T, *mount)) {
	t.Helper()
	as, storage := newAuthServer(t), &testStorage{}
	as.answers(granting(fields{"expires_in": int64(lifetime / time.Second)}))
	m := newNode(t, storage, 0)
	m.configure(as, nil)
	m.stop()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(700 * time.Millisecond) // a bubble begins at a whole second, and times are rounded to those
		story(t, newNode(t, storage, 0))
	})
	if n := as.count(); n < 20 {
		t.Errorf("%d token requests in 20 lifetimes", n)
	}
}
