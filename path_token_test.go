package mcpoauth

import (
	"maps"
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

// firstToken is the token_id of t0ken-1, the first token of an authServer.
const firstToken = "8380bfcbf4fc8485"

func TestTokenAnswersEveryFieldInItsType(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.answers(granting(fields{"scope": "a b"}))
	m.configure(as, nil)
	began := time.Now().Truncate(time.Second)
	got := m.read("token/weather")

	shows(t, got, fields{
		"access_token":    "t0ken-1",
		"token_type":      "Bearer",
		"authorization":   "Bearer t0ken-1",
		"scope":           "a b",
		"rotation_period": int64(2700), // three quarters of an hour
		"token_id":        firstToken,
	})
	// Vault Agent ignores a float and reads every 5 minutes, and panics at a string.
	if ttl, ok := got["ttl"].(int64); !ok || ttl < 2500 || ttl > 3200 {
		t.Errorf("ttl is %#v; want an int64 of about three quarters of an hour", got["ttl"])
	}
	issued, expires := instant(t, got, "last_vault_rotation"), instant(t, got, "expires_at")
	if issued.Before(began) || issued.After(time.Now()) {
		t.Errorf("last_vault_rotation is %s; want when the request began, after %s", issued, began)
	}
	equal(t, "the lifetime", expires.Sub(issued), time.Hour)
	equal(t, "the fields", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(tokenFields())))
}

// instant returns a field's time, which must be RFC 3339 in UTC.
func instant(t *testing.T, data fields, field string) time.Time {
	t.Helper()
	text, _ := data[field].(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || !strings.HasSuffix(text, "Z") {
		t.Fatalf("%s is %#v; want RFC 3339 in UTC", field, data[field])
	}
	return at
}

func TestTokenScopeIsTheGrantedOrTheRequestedOne(t *testing.T) {
	for _, test := range []struct {
		name  string
		asked string
		said  fields
		want  any // nil: absent
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
			equal(t, "scope", m.read("token/weather")["scope"], test.want)
		})
	}
}

func TestTokenAndStatusOfUnconfiguredNames(t *testing.T) {
	as, m := newConfigured(t)
	for _, prefix := range []string{"token/", "status/"} {
		m.missing(prefix+"absent", "absent", "write config/absent")
		m.missing(prefix+"absent/reader", "write config/absent")
		m.missing(prefix+"weather/absent", "role/weather/absent")
	}
	as.asked(t, 0, "after reading unconfigured names")
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
			synctest.Test(t, func(t *testing.T) { // so that the short window does not end early
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

func TestTokenOfAnotherShapeIsNotUsed(t *testing.T) {
	_, m := newConfigured(t)
	m.stash(weather, "t0ken-stashed", time.Minute, time.Hour)
	// A crash between two writes, or a restored backup, may leave such a config.
	m.edit("weather", func(c *config) { c.Audience = "https://other.example.com" })
	m.holds("weather", "t0ken-1")
}

// Reads of tokens bypass the framework, and must take the same name from a path as the framework would.
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
