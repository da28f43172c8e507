package discovery

import (
	"slices"
	"strings"
	"testing"
)

const prm = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"

func TestBearerChallenge(t *testing.T) {
	for _, c := range []struct {
		name     string
		fields   string // one line each
		metadata string
		scopes   string
	}{
		{"none", ``, "", ""},
		{"plain", `Bearer resource_metadata="` + prm + `"`, prm, ""},
		{"no parameters", `Bearer`, "", ""},
		{"case of names", `BEARER Resource_Metadata="` + prm + `", SCOPE="a"`, prm, "a"},
		{"scope", `Bearer error="invalid_token", scope="a b  a", resource_metadata="` + prm + `"`, prm, "a b"},
		{"scope without use", `Bearer scope="", resource_metadata="` + prm + `"`, prm, ""},
		{"what is no scope", `Bearer scope="a\"b c\\d é ok"`, "", "ok"},
		{"empty realm", `Bearer realm="", resource_metadata="` + prm + `"`, prm, ""},
		{"other schemes before", `Basic realm="a, Bearer resource_metadata=x", Digest qop="auth", nonce=abc, Bearer resource_metadata="` + prm + `"`, prm, ""},
		{"other schemes after", `Bearer resource_metadata="` + prm + `", Basic realm="x", resource_metadata="https://not.me"`, prm, ""},
		{"another scheme's parameter", `DPoP resource_metadata="https://not.me", scope="no", Bearer scope="a"`, "", "a"},
		{"Negotiate", `Negotiate, Bearer resource_metadata="` + prm + `"`, prm, ""},
		{"Negotiate with token68", `Negotiate YIIJvwYGKw+/==, Bearer resource_metadata="` + prm + `"`, prm, ""},
		{"NTLM with token68", `NTLM TlRMTVNTUAAC, Bearer resource_metadata="` + prm + `"`, prm, ""},
		{"several fields", "Basic realm=\"x\nNegotiate\nBearer resource_metadata=\"" + prm + "\"", prm, ""},
		{"two Bearer challenges", `Bearer realm="a", Bearer scope="s", resource_metadata="` + prm + `"`, prm, "s"},
		{"a name twice", `Bearer resource_metadata="` + prm + `", resource_metadata="https://not.me"`, prm, ""},
		{"unquoted URL", `Bearer resource_metadata=` + prm + `, scope=a`, prm, "a"},
		{"unquoted scopes", `Bearer scope=a b, resource_metadata="` + prm + `"`, prm, "a b"},
		{"no comma", `Bearer error="invalid_token" resource_metadata="` + prm + `"`, prm, ""},
		{"unquoted URL without a comma", `Bearer resource_metadata=` + prm + ` scope=a`, prm, "a"},
		{"unquoted scopes without a comma", `Bearer scope=a b resource_metadata="` + prm + `"`, prm, "a b"},
		{"single quotes", `Bearer scope='a b', resource_metadata='` + prm + `'`, prm, "a b"},
		{"semicolons", `Bearer realm="x"; scope=a; resource_metadata="` + prm + `"`, prm, "a"},
		{"a semicolon behind the scheme", `Bearer; resource_metadata="` + prm + `"`, prm, ""},
		{"empty elements", `,, Bearer realm="a",, resource_metadata="` + prm + `", ,`, prm, ""},
		{"tab and spaces", "Bearer\trealm = \"a\" ,  resource_metadata\t=\t\"" + prm + "\"", prm, ""},
		{"escapes", `Bearer error_description="say \"Bearer scope=no\", \\", resource_metadata="` + prm + `"`, prm, ""},
		{"cut short", `Bearer scope="a", resource_metadata="https://mcp.exam`, "", "a"},
		{"garbage before", `"x" ü, Bearer resource_metadata="` + prm + `"`, prm, ""},
		{"parameters alone", `resource_metadata="https://not.me"`, "", ""},
	} {
		got := parseBearer(strings.Split(c.fields, "\n"))
		if got.metadata != c.metadata || strings.Join(got.scopes, " ") != c.scopes || got.scopes != nil && len(got.scopes) == 0 {
			t.Errorf("%s: %q %q", c.name, got.metadata, got.scopes)
		}
	}
}

func FuzzWWWAuthenticate(f *testing.F) {
	for _, seed := range []string{
		`Bearer resource_metadata="` + prm + `", scope="a b"`, `Negotiate YII=, Bearer realm=""`, `NTLM`,
		`Basic realm="a\"b", Bearer x`, `Bearer a = "b" c=d,,e`, `Bearer "`, `=,=`, "Bearer\ta=\"\\", `,`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		// The parsed challenges, written in the plainest form, parse to the same challenges.
		var plain []string
		all := parseChallenges(field)
		for _, c := range all {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Fatalf("scheme %q", c.scheme)
			}
			params := make([]string, 0, len(c.params))
			for name, value := range c.params {
				if len(value) > len(field) {
					t.Fatalf("value %q", value)
				}
				params = append(params, name+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)+`"`)
			}
			slices.Sort(params)
			plain = append(plain, c.scheme+" "+strings.Join(params, ", "))
		}
		again := parseChallenges(strings.Join(plain, ", "))
		if len(again) != len(all) {
			t.Fatalf("%q: %v, written out %v", field, all, again)
		}
		for i, c := range all {
			if again[i].scheme != c.scheme || len(again[i].params) != len(c.params) {
				t.Fatalf("%q: %v, written out %v", field, all, again)
			}
			for name, value := range c.params {
				if again[i].params[name] != value {
					t.Fatalf("%q: %v, written out %v", field, all, again)
				}
			}
		}
		b := parseBearer([]string{field})
		for _, s := range b.scopes {
			if !isVisible(s, maxValue) {
				t.Fatalf("scope %q", s)
			}
		}
	})
}
