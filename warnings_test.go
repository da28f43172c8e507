package mcpoauth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// jwt returns a token in JWT form (RFC 9068).
func jwt(payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(payload)) + "." + encode([]byte("signature"))
}

func TestAudienceOfATokenIsComparedWithTheResource(t *testing.T) {
	const a, b = "https://a.example.com/mcp", "https://b.example.com"
	for _, test := range []struct {
		name      string
		token     string
		resources []string
		warns     bool
	}{
		{"the resource", jwt(`{"aud":"` + a + `"}`), []string{a}, false},
		{"among several", jwt(`{"aud":["x","` + a + `"]}`), []string{a}, false},
		{"one of several resources", jwt(`{"aud":"` + b + `"}`), []string{a, b}, false},
		{"with a slash more", jwt(`{"aud":"` + b + `/"}`), []string{b}, false},
		{"with a slash less", jwt(`{"aud":"` + a + `"}`), []string{a + "/"}, false},
		{"another", jwt(`{"aud":"` + b + `"}`), []string{a}, true},
		{"others", jwt(`{"aud":["` + b + `","x"]}`), []string{a}, true},
		{"empty", jwt(`{"aud":""}`), []string{a}, true},
		{"in other case", jwt(`{"aud":"` + strings.ToUpper(a) + `"}`), []string{a}, true},
		{"no resource asked", jwt(`{"aud":"` + b + `"}`), nil, false},
		{"no aud", jwt(`{"sub":"vault"}`), []string{a}, true},
		{"an empty list", jwt(`{"aud":[]}`), []string{a}, true},
		{"null", jwt(`{"aud":null}`), []string{a}, true},
		{"a number", jwt(`{"aud":7}`), []string{a}, true},
		{"a list with a number", jwt(`{"aud":["` + b + `",7]}`), []string{a}, true},
		{"no aud and no resource asked", jwt(`{"sub":"vault"}`), nil, false},
		{"not JSON", jwt(`aud`), []string{a}, false},
		{"another JSON thing in three parts", "eyJhIjoxfQ.eyJhIjoxfQ.c2ln", []string{a}, false},
		{"opaque", "t0ken", []string{a}, false},
		{"opaque with dots", "a.b.c", []string{a}, false},
		{"encrypted", "a.b.c.d.e", []string{a}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := foreignAudience(test.resources, test.token)
			if (got != "") != test.warns || test.warns && !strings.Contains(got, a) || strings.Contains(got, "eyJ") {
				t.Errorf("the warning is %q; want one that names the resource, and not the token: %t", got, test.warns)
			}
		})
	}
}

// The write and the status show both warnings; a read shows none.
func TestWarningsOfAToken(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.answers(granting(fields{"access_token": jwt(`{"aud":"https://other.example.com"}`), "scope": "a"}))
	want := []string{
		`the authorization server did not grant "b"; it granted "a"`,
		`the token's audience is "https://other.example.com", and does not hold the resource "https://mcp.example.com": the MCP server may refuse it`,
	}
	equal(t, "the warnings of the write", m.write("config/weather", with(as.client(), fields{
		"scopes": "a b", "resource": "https://mcp.example.com",
	})), want)
	equal(t, "the warnings of the status", m.read("status/weather")["warnings"].([]string), want)
	equal(t, "the warnings of a read", must(m.do(logical.ReadOperation, "token/weather", nil))(t).Warnings, nil)
	equal(t, "the warnings of a role's write", m.write("role/weather/reader", fields{"scopes": "a"}), want[1:])
	equal(t, "the warnings of a role's status", m.read("status/weather/reader")["warnings"].([]string), want[1:])
	equal(t, "the warnings of a role for the other", m.write("role/weather/other", fields{"resource": "https://other.example.com"}), want[:1])
	equal(t, "the warnings of a role without a resource", m.write("role/weather/none", fields{"scopes": "a", "omit_resource": true}), nil)
	equal(t, "the warnings of its status", m.read("status/weather/none")["warnings"].([]string), nil)
}

// Brokers cannot use a token bound to a key.
func TestWarningOfABoundToken(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.answers(granting(fields{"access_token": jwt(`{"cnf":{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}`)}))
	const bound = "bound to the client's key or certificate (cnf)"
	warns(t, "the write", m.write("config/weather", as.client()), bound)
	warns(t, "the status", m.read("status/weather")["warnings"].([]string), bound)
}

// Entra ID v1 and AD FS identify a resource by a GUID or a name.
func TestResourceThatIsNoURI(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	for n, resource := range []string{"00000003-0000-0000-c000-000000000000", "Weather Dienst", "/mcp", "https://mcp.example.com/#a"} {
		for i, path := range []string{"config/weather", "role/weather/reader"} {
			both := []string{"https://mcp.example.com", resource}
			warns(t, path, m.write(path, fields{"resource": both}), `resource "`+resource+`"`, "RFC 8707")
			equal(t, "the resources", as.await(2*n + i + 2).form["resource"], both)
		}
	}
	warns(t, "a write with verify=false", m.write("config/weather", fields{"resource": "again", "verify": false}), "RFC 8707")
}

func TestWarningsOfALifetime(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for _, test := range []struct {
		name     string
		answer   fields
		change   fields
		write    string // of the write; empty: no warning
		inStatus bool
	}{
		{"said", fields{"expires_in": 3600}, nil, "", false},
		{"not said", fields{"expires_in": nil}, nil, "does not say how long the token is valid: default_ttl (5m0s) is assumed", false},
		{"negative", fields{"expires_in": -1}, fields{"default_ttl": "1h"}, "default_ttl (1h0m0s) is assumed", false},
		{"said by the token", fields{"expires_in": nil, "access_token": jwt(fmt.Sprintf(`{"exp":%d}`, time.Now().Unix()+3600))}, nil, "", false},
		{"milliseconds", fields{"expires_in": 3600000}, nil, "said to be valid for 41 days", true},
		{"milliseconds, capped", fields{"expires_in": 3600000}, fields{"max_ttl": "1h"}, "", false},
		{"too short to refresh ahead", fields{"expires_in": 9}, nil, "valid for 9s only", true},
		{"capped too short to refresh ahead", fields{"expires_in": 3600}, fields{"max_ttl": "5s"}, "valid for 5s only", true},
		{"long enough to refresh ahead", fields{"expires_in": 10}, nil, "", false},
		{"30 days", fields{"expires_in": 30 * 86400}, nil, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			as.answers(granting(test.answer))
			for _, path := range []string{"config/weather", "role/weather/reader"} {
				write := fields{"scopes": "a"}
				if path == "config/weather" {
					m.delete(path)
					write = with(as.client(), test.change)
				}
				warns(t, path, m.write(path, write), test.write)
			}
			equal(t, "a warning in the status", len(m.read("status/weather")["warnings"].([]string)) == 1, test.inStatus)
		})
	}
}

// An expired token does not verify a write, and is never served.
func TestEndedTokenIsRefusedAtTheWrite(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.answers(granting(fields{"access_token": jwt(fmt.Sprintf(`{"exp":%d}`, time.Now().Unix()-1)), "expires_in": 3600}))
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", as.client(), "has expired already")
	m.write("config/weather", with(as.client(), fields{"verify": false}))
	m.refused(http.StatusBadGateway, logical.ReadOperation, "token/weather", nil, "has expired already")
}

func FuzzWarnings(f *testing.F) {
	for _, payload := range []string{`{"aud":"a"}`, `{"aud":["a","b"]}`, `{"aud":null}`, `{"aud":{}}`, `{"AUD":"a"}`, `[]`, ``, `{"aud":[null]}`} {
		f.Add(jwt(payload))
	}
	for _, token := range []string{"", "..", "a.b.c", "a.b.c.d.e", "eyJ.eyJ.eyJ"} {
		f.Add(token)
	}
	c := &config{tokenParams: tokenParams{Resource: []string{"https://mcp.example.com"}}}
	f.Fuzz(func(t *testing.T, token string) {
		claims, ok := grant.ParseClaims(token)
		if !ok && (len(claims.Audience) > 0 || claims.Bound) {
			t.Errorf("%v, %t", claims, ok)
		}
		for _, a := range claims.Audience {
			if foreignAudience([]string{a}, token) != "" {
				t.Errorf("%q is reported as a foreign audience", a)
			}
		}
		for _, warning := range c.tokenWarnings(nil, token, "", time.Hour) {
			if data, err := json.Marshal(warning); err != nil || len(data) > 2000 || strings.ContainsAny(warning, "\n\r\x00") {
				t.Errorf("the warning is %q", warning)
			}
		}
	})
}

// Authorization servers list the granted scopes in different forms.
func TestGrantedScopesAreComparedAsSets(t *testing.T) {
	const graph = "https://graph.microsoft.com/"
	for _, test := range []struct {
		asked   []string
		granted string
		missing string
	}{
		{[]string{"a", "b"}, "a b", ""},
		{[]string{"a", "b"}, "b a c", ""},
		{[]string{"a", "b"}, "a,b", ""},
		{[]string{"a", "b"}, "b, a", ""},
		{[]string{"a", "b"}, "a b,c", ""},
		{[]string{"a,b"}, "a,b", ""},
		{[]string{"a", "a"}, "a", ""},
		{nil, "a", ""},
		{[]string{graph + ".default"}, graph + ".default", ""},
		{[]string{graph + ".default"}, graph + "User.Read " + graph + "Mail.Read", ""},
		{[]string{graph + ".default"}, "User.Read", ""},
		{[]string{".default"}, "", ""},
		{[]string{"api://app/read"}, "read", ""},
		{[]string{"read"}, "api://app/read", ""},
		{[]string{"https://www.googleapis.com/auth/drive"}, "drive,other", ""},
		{[]string{"files/read", "files/write"}, "read write", ""},
		{[]string{"a", "b"}, "a;b", ""},
		{[]string{"a", "b"}, "a|b", ""},
		{[]string{"a", "b"}, "a+b", ""},
		{[]string{"a", "b"}, "[a, b]", ""},
		{[]string{"a", "b"}, `["a","b"]`, ""},
		{[]string{"a;b"}, "a;b c", ""},
		{[]string{"https://api.example.com#read"}, "read", ""},
		{[]string{"read"}, "urn:example:files:read", ""},
		{[]string{"api://app/files/read"}, "files/read", ""},

		{[]string{"files:read", "b"}, "read;b", "files:read"},
		{[]string{"#"}, "a#", "#"},
		{[]string{"a", "b"}, "a", "b"},
		{[]string{"a", "b"}, "", "a b"},
		{[]string{"a"}, "ab", "a"},
		{[]string{"a"}, "A", "a"},
		{[]string{"files:read"}, "read", "files:read"},
		{[]string{"files/read"}, "notes/read", "files/read"},
		{[]string{"read"}, "api://app/readwrite", "read"},
		{[]string{"api://app/"}, "read", "api://app/"},
		{[]string{graph + ".default", "b"}, graph + ".default", "b"},
		{[]string{"x.default"}, "a", "x.default"},
	} {
		got := missingScopes(test.asked, test.granted)
		if (got != "") != (test.missing != "") || !strings.Contains(got, "did not grant "+quote(test.missing)+";") && got != "" {
			t.Errorf("asked %q, granted %q: %q; want %q to be missing", test.asked, test.granted, got, test.missing)
		}
	}
}
