package mcpoauth

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"
)

// ringOf returns a ring of keys a, b, c, ... The first is active from the beginning, the others from noon and an
// offset.
func ringOf(offsets ...time.Duration) keyRing {
	ring := keyRing{{ID: "a"}}
	for i, offset := range offsets {
		ring = append(ring, signingKey{ID: string(rune('b' + i)), ActiveFrom: noon.Add(offset)})
	}
	return ring
}

var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func ids(ring keyRing) []string {
	var all []string
	for _, key := range ring {
		all = append(all, key.ID)
	}
	return all
}

func TestKeyRingThroughARotation(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		name      string
		ring      keyRing
		at        time.Duration // from noon
		active    string        // empty: none is active
		published []string
		pending   string // empty: none is pending
	}{
		{"no key", nil, 0, "", nil, ""},
		{"one key", ringOf(), 0, "a", []string{"a"}, ""},
		{"one key, years on", ringOf(), 9999 * day, "a", []string{"a"}, ""},
		{"a key to come", ringOf(10 * time.Minute), 0, "a", []string{"a", "b"}, "b"},
		{"just before", ringOf(10 * time.Minute), 10*time.Minute - 1, "a", []string{"a", "b"}, "b"},
		{"at that time", ringOf(10 * time.Minute), 10 * time.Minute, "b", []string{"a", "b"}, ""},
		{"a day after but for a moment", ringOf(10 * time.Minute), day + 10*time.Minute - 1, "b", []string{"a", "b"}, ""},
		{"a day after", ringOf(10 * time.Minute), day + 10*time.Minute, "b", []string{"b"}, ""},
		{"two rotations, before", ringOf(0, time.Hour), -time.Second, "a", []string{"a", "b", "c"}, "c"},
		{"two rotations, between", ringOf(0, time.Hour), time.Minute, "b", []string{"a", "b", "c"}, "c"},
		{"two rotations, after", ringOf(0, time.Hour), 2 * time.Hour, "c", []string{"a", "b", "c"}, ""},
		{"two rotations, a day after the first", ringOf(0, time.Hour), day, "c", []string{"b", "c"}, ""},
		{"two rotations, a day after both", ringOf(0, time.Hour), 2 * day, "c", []string{"c"}, ""},
		// A rotation dropped the first key before the clock was set back.
		{"before all", ringOf(0, time.Hour)[1:], -day, "b", []string{"b", "c"}, "c"},
		{"before the only one", ringOf(0)[1:], -day, "b", []string{"b"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := noon.Add(test.at)
			active, pending := "", ""
			if i := test.ring.activeAt(now); i >= 0 {
				active = test.ring[i].ID
			}
			if key := test.ring.pendingAt(now); key != nil {
				pending = key.ID
			}
			equal(t, "the active and pending key", []string{active, pending}, []string{test.active, test.pending})
			equal(t, "the published keys", ids(test.ring.publishedAt(now)), test.published)
		})
	}
}

// A rotation drops keys whose time of publication has ended. The old ring is not changed.
func TestRotatedKeyRing(t *testing.T) {
	ring := ringOf(0)
	for _, test := range []struct {
		at   time.Duration
		want []string
	}{
		{time.Hour, []string{"a", "b", "new"}},
		{24 * time.Hour, []string{"b", "new"}},
	} {
		now := noon.Add(test.at)
		next := ring.rotated(signingKey{ID: "new", ActiveFrom: now.Add(time.Hour)}, now)
		equal(t, "the ring", ids(next), test.want)
		if i := next.activeAt(now); i < 0 || next[i].ID != "b" {
			t.Errorf("after a rotation the key at %d of %q is active; want b", i, ids(next))
		}
		next[0].ID = "x"
		equal(t, "the old ring", ids(ring), []string{"a", "b"})
	}
}

func TestStoredKeysAreThoseThatWereMade(t *testing.T) {
	for _, kind := range keyTypes {
		stored := must(newSigningKey(kind, noon))(t)
		c := &config{Keys: keyRing{stored}}
		equal(t, "the id", must(c.key(stored))(t).ID, stored.ID)
		public := must(c.publicKeys(noon))(t)
		equal(t, "public keys", len(public), 1)
		checkPublic(t, public[0].jwk, stored.ID)
	}
	if _, err := newSigningKey("dsa", noon); err == nil {
		t.Error("a key of an unknown type was made")
	}
}

// checkPublic checks that a JWK has no members except those of a public key.
func checkPublic(t *testing.T, jwk []byte, id string) {
	t.Helper()
	var members map[string]any
	noError(t, json.Unmarshal(jwk, &members))
	want := map[any][]string{
		"RSA": {"alg", "e", "kid", "kty", "n", "use"},
		"EC":  {"alg", "crv", "kid", "kty", "use", "x", "y"},
		"OKP": {"alg", "crv", "kid", "kty", "use", "x"},
	}[members["kty"]]
	equal(t, "the members of a public key", slices.Sorted(maps.Keys(members)), want)
	shows(t, members, fields{"kid": id, "use": "sig"})
}
