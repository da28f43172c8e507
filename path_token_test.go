package mcpoauth

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

var weather = tokens.Name{Server: "weather"}

// firstToken is the token_id of the first token that an authServer grants, t0ken-1.
const firstToken = "8380bfcbf4fc8485"

func TestTokenAnswersEveryFieldInItsType(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.answers(granting(fields{"scope": "a b"}))
	m.configure(as, nil)
	began := time.Now().Truncate(time.Second)
	got := m.read("token/weather")

	wanted := fields{
		"access_token":    "t0ken-1",
		"token_type":      "Bearer",
		"authorization":   "Bearer t0ken-1",
		"scope":           "a b",
		"rotation_period": int64(2700), // an hour less a quarter
		"token_id":        firstToken,
	}
	for field, want := range wanted {
		if got[field] != want {
			t.Errorf("%s is %#v; want %#v", field, got[field], want)
		}
	}
	// Vault Agent reads a float every 5 minutes, and panics at a string.
	if ttl, ok := got["ttl"].(int64); !ok || ttl < 2500 || ttl > 3200 {
		t.Errorf("ttl is %#v; want an int64 of about three quarters of an hour", got["ttl"])
	}
	issued, expires := instant(t, got, "last_vault_rotation"), instant(t, got, "expires_at")
	if issued.Before(began) || issued.After(time.Now()) {
		t.Errorf("last_vault_rotation is %s; want when the request began, after %s", issued, began)
	}
	if expires.Sub(issued) != time.Hour {
		t.Errorf("expires_at is %s after last_vault_rotation; want an hour", expires.Sub(issued))
	}
	if want := slices.Sorted(maps.Keys(tokenFields())); !slices.Equal(slices.Sorted(maps.Keys(got)), want) {
		t.Errorf("the fields are %q; want %q", slices.Sorted(maps.Keys(got)), want)
	}
}

// instant is a field's time, which must be RFC 3339 in UTC.
func instant(t *testing.T, data fields, field string) time.Time {
	t.Helper()
	text, _ := data[field].(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || !strings.HasSuffix(text, "Z") {
		t.Fatalf("%s is %#v; want RFC 3339 in UTC", field, data[field])
	}
	return at
}

func TestTokenScopeIsWhatIsKnownOfIt(t *testing.T) {
	for _, test := range []struct {
		name  string
		asked string
		said  fields
		want  any // nil: the field is absent
	}{
		{"said", "a b", fields{"scope": "a"}, "a"},
		{"not said, asked", "a b", nil, "a b"},
		{"not said, none asked", "", nil, nil},
		{"said, none asked", "", fields{"scope": "default"}, "default"},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			as.answers(granting(test.said))
			m.configure(as, fields{"scopes": test.asked})
			if got := m.read("token/weather")["scope"]; got != test.want {
				t.Errorf("scope is %#v; want %#v", got, test.want)
			}
		})
	}
}

func TestTokenOfWhatIsNotConfigured(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.refused(http.StatusNotFound, logical.ReadOperation, "token/absent", nil, "absent", "write config/absent")
	m.refused(http.StatusNotFound, logical.ReadOperation, "token/absent/reader", nil, "write config/absent")
	m.refused(http.StatusNotFound, logical.ReadOperation, "token/weather/absent", nil, "role/weather/absent")
	as.asked(t, 0, "after reading what is not configured")
}

func TestTokenErrorsAreMappedToStatuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(tokenRequest) (int, fields)
		status int
		says   string
	}{
		{"refused", refusing(401, "invalid_client"), 400, "invalid_client: said the server"},
		{"refused the scope", refusing(400, "invalid_scope"), 400, "invalid_scope"},
		{"refused the resource", refusing(400, "invalid_target"), 400, "invalid_target"},
		{"down", refusing(503, "x"), 502, "HTTP 503"},
		{"too many requests", refusing(429, "slow_down"), 502, "HTTP 429"},
		{"nonsense", func(tokenRequest) (int, fields) { return 200, fields{"hello": "world"} }, 502, "no access_token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			as := newAuthServer(t)
			as.answers(test.answer)
			synctest.Test(t, func(t *testing.T) { // the window is short
				m := newMount(t)
				m.configure(as, nil)
				host := strings.TrimPrefix(as.URL, "http://")
				m.refused(test.status, logical.ReadOperation, "token/weather", nil, test.says, `"weather"`, host, "next attempt not before")
				m.refused(test.status, logical.ReadOperation, "token/weather", nil, test.says)
				as.asked(t, 1, "after a second read within the backoff window")
			})
		})
	}
}

func TestTokenIsReadOnly(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	for _, path := range []string{"token/weather", "token/weather/reader"} {
		for _, op := range []logical.Operation{
			logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation,
			logical.DeleteOperation, logical.ListOperation,
		} {
			if _, err := m.do(op, path, nil); err != logical.ErrUnsupportedOperation {
				t.Errorf("%s %s: %v; want logical.ErrUnsupportedOperation", op, path, err)
			}
		}
	}
	as.asked(t, 0, "after operations that do not exist")
}

func TestTokenOfAnotherShapeIsNotUsed(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	m.stash(weather, "t0ken-stashed", time.Minute, time.Hour)
	m.stop()
	c := m.config("weather")
	// As a crash between two writes, or a backup, might leave it.
	c.Audience = "https://other.example.com"
	if err := m.store().putConfig(t.Context(), "weather", c); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.holds("weather", "t0ken-1")
}

// Reads of tokens go around the framework, and find the same name in a path as it does, or none.
func FuzzPlainTokenRead(f *testing.F) {
	for _, path := range []string{
		"token/weather", "token/weather/reader", "token/w", "token/_", "token/a-b.c_d/E.0", "token/", "token", "token//", "token/a/",
		"token/a//b", "token/a/b/c", "token/.a", "token/a.", "token/-", "token/a b", "token/\u00e9", "token/a\n", "xtoken/a", "token/a..b", "status/a", "",
	} {
		f.Add(path)
	}
	b := newBackend(nil, store{})
	f.Fuzz(func(t *testing.T, path string) {
		got, ok := plainTokenRead(&logical.Request{Operation: logical.ReadOperation, Path: path})
		var want tokens.Name
		route := b.Route(path)
		isToken := route != nil && strings.HasPrefix(route.Pattern, "^token/")
		if isToken {
			pattern := regexp.MustCompile(route.Pattern)
			for i, field := range pattern.SubexpNames() {
				switch field {
				case "server":
					want.Server = pattern.FindStringSubmatch(path)[i]
				case "role":
					want.Role = pattern.FindStringSubmatch(path)[i]
				}
			}
		}
		if ok != isToken || got != want {
			t.Errorf("%q: %+v, %t; the framework finds %+v, %t", path, got, ok, want, isToken)
		}
	})
}

// What is not a plain read of a token is the framework's.
func TestOnlyPlainReadsGoAroundTheFramework(t *testing.T) {
	for _, req := range []*logical.Request{
		{Operation: logical.ReadOperation, Path: "token/weather", Data: fields{"a": 1}},
		{Operation: logical.UpdateOperation, Path: "token/weather"},
		{Operation: logical.HelpOperation, Path: "token/weather"},
		{Operation: logical.ReadOperation, Path: "status/weather"},
	} {
		if name, ok := plainTokenRead(req); ok {
			t.Errorf("%s %s with %v: %v", req.Operation, req.Path, req.Data, name)
		}
	}
}
