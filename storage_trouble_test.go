package mcpoauth

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// deed is a request, or another use of storage, while storage fails.
type deed struct {
	name   string
	keyed  bool                 // for a client with a plugin-made key
	before func(m *mount)       // prepares the mount; may be nil
	do     func(m *mount) error // returns the request's error
	lasts  time.Duration        // duration of its background work
	status int                  // of its errors; 0: 500
	memory bool                 // makes no storage call
}

func ask(op logical.Operation, path string, data fields) func(*mount) error {
	return func(m *mount) error {
		_, err := m.do(op, path, data)
		return err
	}
}

func nothing(*mount) error { return nil }

// restartAnd restarts, and makes a request before the loading ends.
func restartAnd(then func(*mount) error) func(*mount) error {
	return func(m *mount) error {
		m.restart()
		return then(m)
	}
}

// deeds returns every use of storage. config/weather has scope a, its role reader scope b, its role heir audience x.
// Each has a token.
func deeds(as *authServer) []deed {
	const create, update = logical.UpdateOperation, logical.UpdateOperation // mount.do chooses by the existence check
	const get, list, remove = logical.ReadOperation, logical.ListOperation, logical.DeleteOperation
	config := with(as.client(), fields{"scopes": "a"})
	keyed := with(as.endpoint(), fields{"scopes": "a", "key_type": "ec-p256", "publish_jwks": true})
	absent := func(m *mount) { m.delete("config/weather") }
	// The entries after an interrupted delete.
	remains := func(m *mount) {
		was := m.storage.entries(m.t)
		m.delete("config/weather")
		delete(was, "config/weather")
		for key, entry := range was {
			damage(m.t, m, key, entry)
		}
	}
	cold := func(m *mount) { m.write("config/weather", fields{"scopes": "cold", "verify": false}) }
	getKeySet := func(m *mount) error { return ask(get, m.publishedAt("weather"), nil)(m) }
	return []deed{
		{name: "config create", before: absent, do: ask(create, "config/weather", config)},
		{name: "config create unverified", before: absent, do: ask(create, "config/weather", with(config, fields{"verify": false}))},
		{name: "config create over remains", before: remains, do: ask(create, "config/weather", config)},
		{name: "config create with a key", before: absent, do: ask(create, "config/weather", keyed)},
		{name: "config update of no shape", do: ask(update, "config/weather", fields{"idle_timeout": "1h"})},
		{name: "config update of the shape", do: ask(update, "config/weather", fields{"scopes": "c"})},
		{name: "config update of the shape unverified", do: ask(update, "config/weather", fields{"scopes": "c", "verify": false})},
		{name: "config update of nothing", do: ask(update, "config/weather", config)},
		{name: "config update of the secret", do: ask(update, "config/weather", fields{"client_secret": "new-" + secret})},
		{name: "config update of the key", keyed: true, do: ask(update, "config/weather", fields{"key_type": "ed25519"})},
		{name: "config update of the publication", keyed: true, do: ask(update, "config/weather", fields{"publish_jwks": false})},
		{name: "config update of the credentials' kind", keyed: true, do: ask(update, "config/weather", fields{"client_secret": secret, "key_type": "", "publish_jwks": false})},
		{name: "config read", do: ask(get, "config/weather", nil)},
		{name: "config list", do: ask(list, "config/", nil)},
		{name: "config delete", do: ask(remove, "config/weather", nil)},
		{name: "config delete with a key", keyed: true, do: ask(remove, "config/weather", nil)},
		{name: "role create", do: ask(create, "role/weather/writer", fields{"scopes": "w"})},
		{name: "role update", do: ask(update, "role/weather/reader", fields{"scopes": "c"})},
		{name: "role update unverified", do: ask(update, "role/weather/reader", fields{"scopes": "c", "verify": false})},
		{name: "role read", do: ask(get, "role/weather/reader", nil)},
		{name: "role list", do: ask(list, "role/weather/", nil)},
		{name: "role delete", do: ask(remove, "role/weather/reader", nil)},
		{name: "token read", do: ask(get, "token/weather", nil), memory: true},
		{name: "token read cold", before: cold, do: ask(get, "token/weather", nil)},
		{name: "token read after a restart", do: restartAnd(ask(get, "token/weather/reader", nil))},
		{name: "refresh", before: func(*mount) { time.Sleep(time.Minute) }, do: ask(update, "refresh/weather", nil)},
		{name: "refresh cold", before: cold, do: ask(update, "refresh/weather/heir", nil)},
		{name: "refresh by the timer", do: nothing, lasts: 50 * time.Minute},
		{name: "status read", do: ask(get, "status/weather", nil)},
		{name: "status read after a restart", do: restartAnd(ask(get, "status/weather/reader", nil))},
		{name: "status list", do: ask(list, "status/", nil)},
		{name: "keys read", keyed: true, do: ask(get, "keys/weather", nil)},
		{name: "keys rotate", keyed: true, do: ask(update, "keys/weather/rotate", nil)},
		{name: "jwks read", keyed: true, do: getKeySet, memory: true},
		{name: "jwks read after a restart", keyed: true, do: restartAnd(getKeySet), status: http.StatusNotFound},
		{name: "settings read", do: ask(get, "settings", nil)},
		{name: "settings update", do: ask(update, "settings", fields{"public_url": "https://vault.example.com/v1/mcp-oauth"})},
		{name: "start", keyed: true, do: restartAnd(nothing)},
		{name: "start over remains", before: remains, do: restartAnd(nothing)},
		{name: "invalidate a config", before: func(m *mount) { m.elsewhere("config/weather", fields{"scopes": "c"}) }, do: told("config/weather")},
		{name: "invalidate a role", before: func(m *mount) { m.elsewhere("role/weather/reader", fields{"scopes": "c"}) }, do: told("role/weather/reader")},
		{name: "invalidate a key", keyed: true, before: func(m *mount) { m.elsewhere("config/weather", fields{"key_type": "ed25519"}) }, do: told("config/weather")},
		{name: "invalidate a token", do: told("token/weather")},
	}
}

// elsewhere writes through another node.
func (m *mount) elsewhere(path string, data fields) {
	m.t.Helper()
	other := newNode(m.t, m.storage, 0)
	other.write(path, with(data, fields{"verify": false}))
	other.stop()
}

// told invalidates a key after a write through another node.
func told(key string) func(*mount) error {
	return func(m *mount) error {
		m.b.InvalidateKey(m.t.Context(), key)
		return nil
	}
}

// echoing grants tokens that contain their scope and audience, as [scope|audience].
func echoing(r tokenRequest) (int, fields) {
	token := fmt.Sprintf("%s-%d-[%s|%s]", tokenMark, r.n, r.form.Get("scope"), r.form.Get("audience"))
	return granting(fields{"access_token": token})(r)
}

// state is the stored configs and roles, and the tokens they ask for.
type state struct {
	settings map[string]string      // the stored configs and roles, without random values
	grants   map[tokens.Name]string // the [scope|audience] of each name
}

// everyone is all names in the deeds.
var everyone = []tokens.Name{weather, reader, tokensOf("weather", "heir"), tokensOf("weather", "writer")}

func (m *mount) state() state {
	m.t.Helper()
	s := state{settings: map[string]string{}, grants: map[tokens.Name]string{}}
	for key, entry := range m.storage.entries(m.t) {
		if !strings.HasPrefix(key, tokenPrefix) && !strings.HasPrefix(key, provedPrefix) {
			s.settings[key] = settled(m.t, entry)
		}
	}
	for _, name := range everyone {
		c, r, err := m.store().effective(m.t.Context(), name)
		if errors.Is(err, tokens.ErrNotConfigured) {
			continue
		}
		noError(m.t, err)
		scopes, audience := c.Scopes, c.Audience
		if r != nil && len(r.Scopes) > 0 {
			scopes = r.Scopes
		}
		if r != nil && r.Audience != "" {
			audience = r.Audience
		}
		s.grants[name] = fmt.Sprintf("[%s|%s]", strings.Join(scopes, " "), audience)
	}
	return s
}

// settled returns a stored config or role without its random values.
func settled(t *testing.T, entry string) string {
	t.Helper()
	var stored struct {
		Schema int    `json:"schema"`
		Data   fields `json:"data"`
	}
	noError(t, json.Unmarshal([]byte(entry), &stored))
	for _, field := range []string{"revision", "incarnation", "credentials_id", "credentials_written_at", "credentials_proof"} {
		delete(stored.Data, field)
	}
	if stored.Data["public_id"] != nil {
		stored.Data["public_id"] = "a public id"
	}
	keys, _ := stored.Data["keys"].([]any)
	for i := range keys {
		keys[i] = "a key"
	}
	return string(must(json.Marshal(stored))(t))
}

// TestStorageTroubleAtEveryStep makes the first storage call of each deed fail, then in another run the second, until
// a run makes too few calls. Whichever call fails, and even if it takes effect at once or later:
//
//   - the answer is a clear error, or the same as without trouble;
//   - each stored entry is as before the deed or as after it;
//   - each served token fits the stored configs and roles;
//   - the deed succeeds when repeated.
func TestStorageTroubleAtEveryStep(t *testing.T) {
	as := newAuthServer(t)
	as.answers(echoing)
	for _, d := range deeds(as) {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			var want outcome
			synctest.Test(t, func(t *testing.T) {
				r := d.prepare(t, as)
				noError(t, d.do(r.mount))
				time.Sleep(d.lasts)
				synctest.Wait()
				want.state = r.state()
				r.tokensAre(want.state)
				synctest.Wait()
				want.keys = keysOf(t, r.mount)
			})
			for _, kind := range []struct {
				name  string
				begin func(at int64) *trouble
			}{
				{"one fails", func(at int64) *trouble { return &trouble{at: at} }},
				{"one fails, done", func(at int64) *trouble { return &trouble{at: at, done: true} }},
				{"all fail", func(at int64) *trouble { return &trouble{at: at, lasting: true} }},
				{"all fail, done", func(at int64) *trouble { return &trouble{at: at, lasting: true, done: true} }},
				{"all hang", func(at int64) *trouble { return &trouble{at: at, lasting: true, hanging: true} }},
				{"one hangs, done later", func(at int64) *trouble { return &trouble{at: at, hanging: true, done: true} }},
				{"all hang, done later", func(at int64) *trouble { return &trouble{at: at, lasting: true, hanging: true, done: true} }},
			} {
				steps := int64(0)
				for struck := true; struck; {
					struck = false
					t.Run(fmt.Sprintf("%s from call %d", kind.name, steps+1), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							struck = d.prepare(t, as).goesThrough(d, kind.begin(steps+1), want)
						})
					})
					if struck {
						steps++
					}
				}
				if (steps == 0) != d.memory {
					t.Errorf("%s: %d calls could fail", kind.name, steps)
				}
			}
		})
	}
}

// run is one run of a deed.
type run struct {
	*mount
	as      *authServer
	was     state             // before the deed
	entries map[string]string // in storage before the deed
	tokens  int               // granted before the deed
	trouble *trouble          // now; nil: none
}

// outcome is the state after a successful deed and a read of every token.
type outcome struct {
	state
	keys []string // in storage
}

// prepare mounts with the entries for the deed.
func (d deed) prepare(t *testing.T, as *authServer) *run {
	t.Helper()
	m := newMount(t)
	if d.keyed {
		m.write("config/weather", with(as.endpoint(), fields{"scopes": "a", "key_type": "ec-p256", "publish_jwks": true}))
	} else {
		m.write("config/weather", with(as.client(), fields{"scopes": "a"}))
	}
	m.write("role/weather/reader", fields{"scopes": "b"})
	m.write("role/weather/heir", fields{"audience": "x"})
	m.token("weather")
	if d.before != nil {
		d.before(m)
	}
	synctest.Wait()
	return &run{mount: m, as: as, was: m.state(), entries: m.storage.entries(t), tokens: as.count()}
}

// goesThrough does the deed in trouble, and again without trouble. It reports whether a call failed.
func (r *run) goesThrough(d deed, trouble *trouble, want outcome) (struck bool) {
	r.t.Helper()
	r.storage.trouble.Store(trouble)
	r.trouble = trouble
	began := time.Now()
	err := d.do(r.mount)
	if took := time.Since(began); took > time.Minute {
		r.t.Errorf("the answer took %s", took)
	}
	possible := []state{want.state}
	if err != nil {
		r.clear(err, cmp.Or(d.status, http.StatusInternalServerError))
		possible = append(possible, r.was)
	}
	time.Sleep(d.lasts)
	synctest.Wait()
	struck = trouble.struck.Load() > 0
	r.tokensAre(possible...)
	time.Sleep(5 * time.Second)
	r.tokensAre(possible...)
	r.storage.trouble.Store(nil)
	if trouble.hanging {
		time.Sleep(storageTimeout) // the calls under way end
	}
	r.trouble = nil
	r.tokensAre(possible...)

	time.Sleep(2 * time.Minute) // longer than any retry in the background
	done := r.isStored(want, r.entries)
	r.fits()
	synctest.Wait()
	if err == nil {
		if !done {
			r.t.Error("the deed succeeded, and is not stored")
		}
		equal(r.t, "the keys", keysOf(r.t, r.mount), want.keys)
	}
	if err := d.do(r.mount); err != nil && !(done && codeOf(err) == http.StatusBadRequest) {
		r.t.Errorf("repeated without trouble: %v", err)
	}
	synctest.Wait()
	r.isStored(want, nil)
	r.fits()
	synctest.Wait()
	equal(r.t, "the keys at the end", keysOf(r.t, r.mount), want.keys)
	if d.lasts > 0 {
		for _, name := range everyone {
			if _, there := want.grants[name]; there && grantOf(r.token(name.String())) <= r.tokens {
				r.t.Errorf("the token of %s was not refreshed", name)
			}
		}
	}
	return struck
}

// clear checks that an error is about storage, or that the caller's wait ended first.
func (r *run) clear(err error, status int) {
	r.t.Helper()
	if r.trouble.hanging && codeOf(err) == http.StatusGatewayTimeout {
		return
	}
	if codeOf(err) != status || status != http.StatusNotFound && !strings.Contains(err.Error(), errStorage.Error()) {
		r.t.Errorf("the error has the status %d: %v; want %d, and the storage's error", codeOf(err), err, status)
	}
}

// codeOf returns the HTTP status of an error. The error must be unwrapped.
func codeOf(err error) int {
	if coded, ok := err.(logical.HTTPCodedError); ok {
		return coded.Code()
	}
	return 0
}

// tokensAre reads every token, and checks that it fits one of the states. In trouble, a clear error is accepted too.
func (r *run) tokensAre(possible ...state) {
	r.t.Helper()
	for _, name := range everyone {
		var grants []string
		absent := false
		for _, s := range possible {
			text, there := s.grants[name]
			grants = append(grants, text)
			absent = absent || !there
		}
		resp, err := r.do(logical.ReadOperation, "token/"+name.String(), nil)
		switch {
		case err == nil:
		case absent && codeOf(err) == http.StatusNotFound:
			continue
		case r.trouble != nil:
			r.clear(err, http.StatusInternalServerError)
			continue
		default:
			r.t.Errorf("the token of %s: %v", name, err)
			continue
		}
		token := resp.Data["access_token"].(string)
		if _, grant, _ := strings.Cut(token, "["); !slices.Contains(grants, "["+grant) {
			r.t.Errorf("the token of %s is %q; want one for %q", name, token, grants)
		}
		// A token granted before its config was created belongs to an earlier config.
		if _, there := r.was.grants[name]; !there && grantOf(token) <= r.tokens {
			r.t.Errorf("the token of %s is %q, which is older than its config", name, token)
		}
	}
}

// grantOf returns the number of the token request that got a token.
func grantOf(token string) int {
	n, _ := strconv.Atoi(strings.Split(token, "-")[1])
	return n
}

// isStored checks that each config and role is stored as in want or, if was is given, as in was. It reports whether
// all are stored as in want.
func (r *run) isStored(want outcome, was map[string]string) (done bool) {
	r.t.Helper()
	is, settings := r.storage.entries(r.t), r.state().settings
	for _, key := range slices.Concat(slices.Collect(maps.Keys(settings)), slices.Collect(maps.Keys(want.settings))) {
		isNew := settings[key] == want.settings[key]
		isOld := was != nil && is[key] == was[key]
		if !isNew && !isOld {
			r.t.Errorf("%s is\n%s; want the new\n%s or the old\n%s", key, is[key], want.settings[key], was[key])
		}
	}
	return maps.Equal(settings, want.settings)
}

// fits checks that the mount serves the stored configs and roles.
func (r *run) fits() {
	r.t.Helper()
	r.tokensAre(r.state())
	c, err := r.store().config(r.t.Context(), "weather")
	switch {
	case err != nil:
		r.t.Error(err)
	case c == nil:
		r.missing("config/weather")
		r.missing("status/weather")
		r.unpublished("weather")
	case c.PublishJWKS:
		published, _ := r.keys("weather")
		equal(r.t, "the key set", keyIDs(r.t, r.jwks("weather")), published)
	default:
		r.read("config/weather")
		r.unpublished("weather")
	}
}

func TestTokenThatCannotBeStoredIsServedAndStoredLater(t *testing.T) {
	as := newAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.storage.fail("put token/")
		m.write("config/weather", as.client())
		m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
		served := map[string]string{"weather": "t0ken-1", "weather/reader": "t0ken-2"}
		expect := func(when string, unsaved bool, stored ...string) {
			t.Helper()
			for _, name := range slices.Sorted(maps.Keys(served)) {
				m.holds(name, served[name])
				shows(t, m.read("status/"+name), fields{"unsaved": unsaved, "state": "ok"})
			}
			equal(t, "the keys "+when, keysOf(t, m), append([]string{"config/weather", "role/weather/reader"}, stored...))
		}
		expect("at first", true)
		time.Sleep(10 * time.Minute)
		expect("after ten minutes", true)
		m.storage.fail()
		time.Sleep(time.Minute)
		expect("with storage back", false, "token/weather", "token/weather/reader")
		m.restart()
		expect("after a restart", false, "token/weather", "token/weather/reader")
	})
	as.asked(t, 2, "after all")
}
