package mcpoauth

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// race is a mount that many clients use at once, and the histories of their requests.
//
// The authorization server writes the parameters of each request into the token. A register is a config's or role's
// value as one path shows it: the scopes at config/weather are one register, the scopes of the tokens at
// token/weather another. The same writes set both, and one may change before the other while a write is under way.
type race struct {
	*mount
	as   *authServer
	seed uint64
	book chronicle

	ids        sync.Map     // token_id -> the token's stamp
	background atomic.Int64 // token requests for names unknown to the clients

	mu       sync.Mutex // guards the fields below
	versions int
	outcomes map[string]int // of requests, by operation and status
}

// stamp is the parameters of a token request.
type stamp struct{ scope, audience, resource, extra string }

// newRace mounts. The tokens get the lifetimes, in seconds, in turn.
func newRace(t *testing.T, seed uint64, as *authServer, storage *testStorage, lifetimes ...int) *race {
	t.Helper()
	r := &race{as: as, seed: seed, outcomes: map[string]int{}}
	as.answers(func(q tokenRequest) (int, fields) {
		s := stamp{q.form.Get("scope"), q.form.Get("audience"), q.form.Get("resource"), q.form.Get("extra")}
		token := fmt.Sprintf("%s-%d|%s|%s|%s|%s", tokenMark, q.n, s.scope, s.audience, s.resource, s.extra)
		if s.scope == "quiet" {
			r.background.Add(1)
		}
		sum := sha256.Sum256([]byte(token))
		r.ids.Store(hex.EncodeToString(sum[:8]), s)
		return http.StatusOK, fields{"access_token": token, "token_type": "Bearer", "expires_in": lifetimes[q.n%len(lifetimes)]}
	})
	r.mount = newNode(t, storage, 0)
	return r
}

// version returns a different value at each call.
func (r *race) version() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.versions++
	return "v" + strconv.Itoa(r.versions)
}

// ask makes a request, which may fail only with one of the statuses. It returns the status; every success is 200.
func (r *race) ask(op logical.Operation, path string, data fields, statuses ...int) (fields, int) {
	status := http.StatusOK
	resp, err := r.do(op, path, data)
	if err != nil {
		coded, ok := err.(logical.HTTPCodedError)
		if !ok || !slices.Contains(statuses, coded.Code()) {
			r.t.Errorf("seed %d: %s %s: %v", r.seed, op, path, err)
			return nil, http.StatusInternalServerError
		}
		status = coded.Code()
	}
	r.mu.Lock()
	what, _, _ := strings.Cut(path, "/")
	if strings.HasSuffix(path, "/rotate") {
		what = "rotate"
	}
	r.outcomes[fmt.Sprintf("%s %s: %d", op, what, status)]++
	r.mu.Unlock()
	if resp == nil {
		return fields{}, status
	}
	return resp.Data, status
}

// set writes to a path, and records the new values of registers.
func (r *race) set(path string, data fields, sets map[string]string, statuses ...int) (done bool) {
	return r.change(logical.UpdateOperation, path, data, sets, statuses...)
}

// remove deletes a path, and records the delete in the registers.
func (r *race) remove(path string, registers ...string) {
	sets := map[string]string{}
	for _, register := range registers {
		sets[register] = ""
	}
	r.change(logical.DeleteOperation, path, nil, sets)
}

func (r *race) change(op logical.Operation, path string, data fields, sets map[string]string, statuses ...int) (done bool) {
	began := r.book.tick()
	_, status := r.ask(op, path, data, statuses...)
	ended := r.book.tick()
	if status != http.StatusOK {
		return false // not written, so no read may see the value
	}
	for register, value := range sets {
		r.book.note(register, event{began, ended, true, value})
	}
	return true
}

// get reads or refreshes, and records the values it sees. A 404 is recorded in the register missing; if missing is
// empty, a 404 is an error.
func (r *race) get(op logical.Operation, path, missing string, sees func(fields) map[string]string) {
	var statuses []int
	if missing != "" {
		statuses = []int{http.StatusNotFound}
	}
	at, began := time.Now(), r.book.tick()
	data, status := r.ask(op, path, nil, statuses...)
	ended := r.book.tick()
	switch status {
	case http.StatusOK:
		for register, value := range sees(data) {
			r.book.note(register, event{began, ended, false, value})
		}
		// A token may expire between the request and this check on a slow machine. expires_at is rounded down to a
		// second.
		if data["token_id"] != nil && !instant(r.t, data, "expires_at").Add(time.Second).After(at) {
			r.t.Errorf("seed %d: %s %s gives at %s a token of %s", r.seed, op, path, at, data["expires_at"])
		}
	case http.StatusNotFound:
		r.book.note(missing, event{began, ended, false, ""})
	}
}

// stamped returns the stamp of the token that an answer names, and false if the answer names no token, as a status
// may.
func (r *race) stamped(data fields) (stamp, bool) {
	id, ok := data["token_id"].(string)
	if !ok {
		return stamp{}, false
	}
	s, ok := r.ids.Load(id)
	if !ok {
		r.t.Errorf("seed %d: the token %s was never granted", r.seed, id)
		return stamp{}, false
	}
	return s.(stamp), true
}

// run lets many clients act at once for the given time, and at least a thousand times. They wait between acts.
func (r *race) run(clients int, lasting time.Duration, wait, act func(*rand.Rand)) {
	stop := time.Now().Add(lasting)
	var acts atomic.Int64
	var all sync.WaitGroup
	for i := range clients {
		random := rand.New(rand.NewPCG(r.seed, uint64(i)))
		all.Go(func() {
			for acts.Add(1) < 1000 || time.Now().Before(stop) {
				act(random)
				wait(random)
			}
		})
	}
	all.Wait()
}

// happened checks that each outcome occurred.
func (r *race) happened(outcomes ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, outcome := range outcomes {
		if r.outcomes[outcome] == 0 {
			r.t.Errorf("seed %d: no %s; the outcomes are %v", r.seed, outcome, r.outcomes)
		}
	}
	r.t.Logf("seed %d: %d requests to the authorization server; outcomes %v", r.seed, r.as.count(), r.outcomes)
}

// real is a race in real time. Clients never wait, and tokens live too briefly to be refreshed ahead.
func (r *race) real(act func(*rand.Rand)) {
	r.run(8, 2*time.Second, func(*rand.Rand) {}, act)
}

// fake is a race of minutes in a bubble. Clients wait for multiples of 100 ms, so many act at the same instant.
func (r *race) fake(act func(*rand.Rand)) {
	r.run(10, 5*time.Minute, func(random *rand.Rand) {
		time.Sleep(time.Duration(random.IntN(40)) * 100 * time.Millisecond)
	}, act)
}

// races runs a test in real time, and in a bubble for minutes with slow storage. Some tokens in the bubble outlive
// the cooldown of refresh/.
func races(t *testing.T, test func(r *race, run func(act func(*rand.Rand)))) {
	t.Helper()
	for _, seed := range []uint64{1, rand.Uint64()} {
		t.Run(fmt.Sprintf("real time, seed %d", seed), func(t *testing.T) {
			r := newRace(t, seed, newAuthServer(t), &testStorage{}, 3)
			test(r, r.real)
			r.book.check(t, seed)
			r.stop()
			nothingRuns(t)
		})
		t.Run(fmt.Sprintf("fake time, seed %d", seed), func(t *testing.T) {
			as := newAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(seed, 0))
				storage := &testStorage{before: func(string) {
					mu.Lock()
					pause := random.IntN(30)
					mu.Unlock()
					time.Sleep(time.Duration(pause) * time.Millisecond)
				}}
				r := newRace(t, seed, as, storage, 12, 20, 60)
				r.write("config/quiet", with(as.client(), fields{"scopes": "quiet"}))
				test(r, r.fake)
				r.book.check(t, seed)
				if n := r.background.Load(); n < 3 {
					t.Errorf("seed %d: %d background refreshes of a token without readers; want several", seed, n)
				}
			})
		})
	}
}

// readAll returns every way to see a server's config and role. A config's scopes and audience are written together,
// so readers must see them together.
func (r *race) readAll(server string) []func() {
	role := server + "/reader"
	ofToken := func(data fields) map[string]string {
		if s, ok := r.stamped(data); ok {
			return map[string]string{"token/" + server: r.together(s.scope, s.audience)}
		}
		return nil
	}
	ofRole := func(data fields) map[string]string {
		if s, ok := r.stamped(data); ok {
			return map[string]string{"token/" + role: s.scope, "token/" + role + ", its config": s.audience}
		}
		return nil
	}
	read := func(op logical.Operation, path, missing string, sees func(fields) map[string]string) func() {
		return func() { r.get(op, path, missing, sees) }
	}
	return []func(){
		read(logical.ReadOperation, "token/"+server, "token/"+server, ofToken),
		read(logical.ReadOperation, "token/"+role, "token/"+role, ofRole),
		read(logical.UpdateOperation, "refresh/"+server, "token/"+server, ofToken),
		read(logical.UpdateOperation, "refresh/"+role, "token/"+role, ofRole),
		// status/ takes the token from memory, and configs and roles from storage.
		read(logical.ReadOperation, "status/"+server, "config/"+server, ofToken),
		read(logical.ReadOperation, "status/"+role, "role/"+role, ofRole),
		read(logical.ReadOperation, "config/"+server, "config/"+server, func(data fields) map[string]string {
			return map[string]string{"config/" + server: r.together(first(data["scopes"]), data["audience"].(string))}
		}),
		read(logical.ReadOperation, "role/"+role, "role/"+role, func(data fields) map[string]string {
			return map[string]string{"role/" + role: first(data["scopes"])}
		}),
	}
}

// together returns the value of two fields, which every write sets to the same value.
func (r *race) together(a, b string) string {
	if a != b {
		r.t.Errorf("seed %d: %s and %s were read together, and were never written together", r.seed, a, b)
	}
	return a
}

// first returns the only element of an answer's list.
func first(list any) string {
	if all, _ := list.([]string); len(all) == 1 {
		return all[0]
	}
	return fmt.Sprint(list)
}

// Clients write and delete configs and roles, rotate, refresh and read a few names concurrently, while short-lived
// tokens are refreshed in the background.
func TestReadersSeeConcurrentWritesInOrder(t *testing.T) {
	races(t, func(r *race, run func(func(*rand.Rand))) {
		servers := []string{"weather", "maps", "news"}
		var reads [][]func()
		for _, server := range servers {
			reads = append(reads, r.readAll(server))
		}
		credentials := []fields{{"client_secret": secret}, {"key_type": "ed25519"}, {"key_type": "ec-p256"}}
		run(func(random *rand.Rand) {
			i := random.IntN(len(servers))
			server, role := servers[i], servers[i]+"/reader"
			verify := random.IntN(2) == 0
			switch random.IntN(32) {
			case 0, 1, 2, 3:
				v, given := r.version(), credentials[i]
				if i == 0 && random.IntN(2) == 0 {
					given = fields{"client_secret": secret + v} // makes roles refresh their tokens
				}
				r.set("config/"+server, with(with(r.as.endpoint(), given), fields{"scopes": v, "audience": v, "verify": verify}),
					map[string]string{"config/" + server: v, "token/" + server: v, "token/" + role + ", its config": v},
					http.StatusConflict)
			case 4, 5, 6:
				v := r.version()
				r.set("role/"+role, fields{"scopes": v, "verify": verify},
					map[string]string{"role/" + role: v, "token/" + role: v}, http.StatusConflict, http.StatusNotFound)
			case 7:
				r.remove("config/"+server, "config/"+server, "token/"+server, "role/"+role, "token/"+role, "token/"+role+", its config")
			case 8:
				r.remove("role/"+role, "role/"+role, "token/"+role)
			case 9:
				// A rotation fails if the config has no keys or a rotation is under way.
				r.ask(logical.UpdateOperation, "keys/"+server+"/rotate", nil,
					http.StatusConflict, http.StatusNotFound, http.StatusBadRequest)
			case 10:
				r.ask(logical.ListOperation, "status/", nil)
			case 11:
				for _, key := range []string{"config/" + server, "role/" + role, "token/" + server} {
					r.b.InvalidateKey(r.t.Context(), key)
				}
			default:
				reads[i][random.IntN(len(reads[i]))]()
			}
		})
		for _, all := range reads {
			for _, read := range all {
				read()
			}
		}
		r.checkStored(false)
		r.happened("read token: 200", "read token: 404", "update refresh: 200", "update config: 200", "delete config: 200",
			"update role: 200", "update role: 404", "delete role: 200", "update rotate: 200", "list status: 200")
	})
}

// checkStored checks that every stored token has its config and role, because a fetch that ends after a delete might
// store a token without them. If shapes is set, the token must also have their shape; after an invalidation it may not.
func (r *race) checkStored(shapes bool) {
	r.t.Helper()
	for _, name := range must(r.store().Names(r.t.Context()))(r.t) {
		terms, err := r.store().Terms(r.t.Context(), name)
		if err != nil {
			r.t.Errorf("seed %d: a token of %s is stored: %v", r.seed, name, err)
			continue
		}
		token := must(r.store().Load(r.t.Context(), name))(r.t)
		if shapes && token != nil && token.Shape != terms.Shape {
			r.t.Errorf("seed %d: a token of another shape is stored for %s", r.seed, name)
		}
	}
}

// owned is a field of a config or a role with one writer at a time.
type owned struct {
	path, field string
	value       func(version string) any // returns the version in the field's form
	shown       func(stamp) string       // returns the version in a token; nil if tokens do not show the field

	mu   sync.Mutex // held by the writer
	last string     // the last version written
}

// registers returns the registers that show the field.
func (o *owned) registers() []string {
	at := []string{o.path + " " + o.field}
	if o.shown != nil {
		at = append(at, o.tokenPath()+" "+o.field)
	}
	return at
}

func (o *owned) tokenPath() string {
	_, name, _ := strings.Cut(o.path, "/")
	return "token/" + name
}

var versionPattern = regexp.MustCompile(`v\d+`)

// sees returns the version from a read of the field.
func (o *owned) sees(data fields) string {
	if n, err := strconv.Atoi(fmt.Sprint(data[o.field])); err == nil {
		return "v" + strconv.Itoa(n-aMillion)
	}
	return versionPattern.FindString(fmt.Sprint(data[o.field]))
}

// aMillion seconds exceed the lifetime of any token in the tests.
const aMillion = 1_000_000

// Each writer changes a different field of one config and one role. Of two concurrent writes, one gets 409 or both
// values are kept. At the end, every field has its last version.
func TestNoUpdateIsLost(t *testing.T) {
	const config, role = "config/weather", "role/weather/reader"
	duration := func(v string) any { n, _ := strconv.Atoi(v[1:]); return aMillion + n }
	races(t, func(r *race, run func(func(*rand.Rand))) {
		all := []*owned{
			{path: config, field: "max_ttl", value: duration},
			{path: config, field: "idle_timeout", value: duration},
		}
		for _, path := range []string{config, role} {
			all = append(
				all,
				&owned{path: path, field: "scopes", value: func(v string) any { return v }, shown: func(s stamp) string { return s.scope }},
				&owned{path: path, field: "audience", value: func(v string) any { return v }, shown: func(s stamp) string { return s.audience }},
				&owned{path: path, field: "resource", value: func(v string) any { return "https://" + v }, shown: func(s stamp) string { return s.resource[8:] }},
				&owned{path: path, field: "extra_params", value: func(v string) any { return fields{"extra": v} }, shown: func(s stamp) string { return s.extra }},
			)
		}
		// A write changes one field.
		write := func(o *owned, more fields) {
			v := r.version()
			sets := map[string]string{}
			for _, register := range o.registers() {
				sets[register] = v
			}
			if r.set(o.path, with(more, fields{o.field: o.value(v)}), sets, http.StatusConflict) {
				o.last = v
			}
		}
		read := func(path string) {
			r.get(logical.ReadOperation, path, "", func(data fields) map[string]string {
				seen := map[string]string{}
				for _, o := range all {
					if o.path == path {
						seen[o.registers()[0]] = o.sees(data)
					}
				}
				return seen
			})
		}
		readToken := func(op logical.Operation, prefix, path string) {
			r.get(op, strings.Replace(path, "token/", prefix, 1), "", func(data fields) map[string]string {
				s, ok := r.stamped(data)
				seen := map[string]string{}
				for _, o := range all {
					if ok && o.shown != nil && o.tokenPath() == path {
						seen[o.registers()[1]] = o.shown(s)
					}
				}
				return seen
			})
		}
		r.write(config, with(r.as.endpoint(), fields{"key_type": "ed25519"}))
		r.write(role, fields{"verify": false})
		for _, o := range all {
			write(o, fields{"verify": false})
		}
		var mu sync.Mutex // guards rotated
		var rotated []string

		run(func(random *rand.Rand) {
			path := []string{config, role}[random.IntN(2)]
			tokenPath := []string{"token/weather", "token/weather/reader"}[random.IntN(2)]
			switch random.IntN(16) {
			case 0:
				data, status := r.ask(logical.UpdateOperation, "keys/weather/rotate", fields{"activate_after": "5m"},
					http.StatusConflict, http.StatusBadRequest)
				if status == http.StatusOK {
					mu.Lock()
					rotated = append(rotated, data["key_id"].(string))
					mu.Unlock()
				}
			case 1, 2:
				read(path)
			case 3, 4, 5:
				readToken(logical.ReadOperation, "token/", tokenPath)
			case 6:
				readToken(logical.UpdateOperation, "refresh/", tokenPath)
			case 7:
				readToken(logical.ReadOperation, "status/", tokenPath)
			default:
				if o := all[random.IntN(len(all))]; o.mu.TryLock() {
					write(o, fields{"verify": random.IntN(2) == 0})
					o.mu.Unlock()
				}
			}
		})

		for _, path := range []string{config, role} {
			read(path)
		}
		for _, path := range []string{"token/weather", "token/weather/reader"} {
			readToken(logical.ReadOperation, "token/", path)
		}
		for _, o := range all {
			equal(t, fmt.Sprintf("seed %d: %s of %s at the end", r.seed, o.field, o.path), o.sees(r.read(o.path)), o.last)
		}
		r.checkStored(true)
		published, _ := r.keys("weather")
		for _, key := range rotated {
			if !slices.Contains(published, key) {
				t.Errorf("seed %d: the key %s is lost; there are %q", r.seed, key, published)
			}
		}
		r.happened("update config: 200", "update config: 409", "update role: 200", "update rotate: 200", "read token: 200")
	})
}
