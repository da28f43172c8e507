package discovery

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestOneSlashIsNoDifference(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"https://h", "https://h", true},
		{"https://h/", "https://h", true},
		{"https://h:8443/", "https://h:8443", true},
		{"https://h/a/", "https://h/a/", true},
		{"https://h/a/", "https://h/a", false},
		{"https://h//", "https://h/", false},
		{"https://h//", "https://h", false},
		{"https://H/", "https://h", false},
		{"https://h:443/", "https://h", false},
		{"http://h/", "https://h", false},
		{"https://h?/", "https://h?", false},
		{"https://h.evil/", "https://h", false},
		{"https:///", "https://", false},
		{"/", "", false},
	} {
		if SameIssuer(c.a, c.b) != c.same || SameIssuer(c.b, c.a) != c.same {
			t.Errorf("%s and %s: %t", c.a, c.b, !c.same)
		}
	}
	// Assertions need the server's own spelling.
	for _, spelled := range []string{issuer, issuer + "/"} {
		for _, named := range []string{issuer, issuer + "/"} {
			w := healthy()
			w.handlers[challenged] = answers(resourceDoc(serverURL, named))
			w.handlers[oauthURL] = answers(serverDoc(spelled))
			for _, r := range []Request{{}, {Issuer: named}} {
				w.wantIssuer(t, r, spelled)
			}
		}
	}
}

func TestErrorSuggestsTheExactSpellingOfAnIssuer(t *testing.T) {
	for spelled, hint := range map[string]string{
		"https://as.example.com/a/":    ": write issuer=https://as.example.com/a/",
		"https://AS.example.com/a":     ": write issuer=https://AS.example.com/a",
		"https://as.example.com:443/a": ": write issuer=https://as.example.com:443/a",
		"http://as.example.com/a":      "",
		"https://other.example.com/a":  "",
		"https://as.example.com/a/b":   "",
		"https://as.example.com/{t}/a": "",
	} {
		w := &world{handlers: map[string]http.HandlerFunc{oauthURL + "/a": answers(serverDoc(spelled))}}
		_, err := w.search(t, Request{Issuer: issuer + "/a"})
		if want := "its issuer is " + spelled + ", not https://as.example.com/a" + hint + "\n"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestURLOfMetadataIsNoStart(t *testing.T) {
	for raw, want := range map[string][2]string{
		"https://h/.well-known/openid-configuration":               {"issuer", "https://h"},
		"https://h/.well-known/openid-configuration/":              {"issuer", "https://h"},
		"https://h/.well-known/openid-configuration?p=policy":      {"issuer", "https://h"},
		"https://h/realms/a/.well-known/openid-configuration":      {"issuer", "https://h/realms/a"},
		"https://h/.well-known/openid-configuration/realms/a":      {"issuer", "https://h/realms/a"},
		"https://h:1/.well-known/oauth-authorization-server/t%2F1": {"issuer", "https://h:1/t%2F1"},
		"https://h/a/.well-known/oauth-authorization-server":       {"issuer", "https://h/a"},
		"https://h/.well-known/oauth-protected-resource":           {"server_url", "https://h"},
		"https://h/.well-known/oauth-protected-resource/mcp":       {"server_url", "https://h/mcp"},
		"https://h/.well-known/jwks.json":                          {},
		"https://h/.well-known/":                                   {},
		"https://h/well-known/openid-configuration":                {},
		"https://h/openid-configuration":                           {},
		"https://h":                                                {},
		"://":                                                      {},
	} {
		field, value := MetadataOf(raw)
		if field != want[0] || field != "" && value != want[1] {
			t.Errorf("%s: %s=%s", raw, field, value)
		}
		if field == "" {
			continue
		}
		w := &world{}
		for name, r := range map[string]Request{"issuer": {Issuer: raw}, "server_url": {ServerURL: raw}} {
			_, err := w.search(t, r)
			if text := name + " is the URL of a metadata document: write " + field + "=" + value; err == nil || err.Error() != text || len(w.asked) > 0 {
				t.Errorf("%v, want %s; asked %q", err, text, w.asked)
			}
		}
	}
}

// Some MCP servers give the URL of the metadata instead of the issuer. A well-known URL derived from it does not
// exist.
func TestErrorSuggestsTheIssuerOfANamedURL(t *testing.T) {
	for _, named := range []string{oauthURL, openidURL, issuer + "/a/.well-known/openid-configuration", issuer + "/.well-known/oauth-authorization-server/a"} {
		w := healthy()
		w.handlers[challenged] = answers(resourceDoc(serverURL, named))
		_, value := MetadataOf(named)
		wantAttempts(t, errorOf(w.search(t, Request{})), named+": as an issuer it is the URL of a metadata document: write issuer="+value+" if the credentials are for that server")
		// If the metadata also names a working server, that server is used.
		w.handlers[challenged] = answers(resourceDoc(serverURL, named, issuer))
		w.wantIssuer(t, Request{}, issuer)
	}
}

func FuzzIssuers(f *testing.F) {
	for _, seed := range []string{issuer, issuer + "/", "https://h/.well-known/openid-configuration/a", "https://h/a/.well-known/oauth-protected-resource?x", "https://h//", "://", "https://h?/"} {
		f.Add(seed, issuer)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if !SameIssuer(a, a) || SameIssuer(a, b) != SameIssuer(b, a) {
			t.Fatalf("%q and %q", a, b)
		}
		if SameIssuer(a, b) && strings.TrimSuffix(a, "/") != strings.TrimSuffix(b, "/") {
			t.Fatalf("%q and %q are the same", a, b)
		}
		field, value := MetadataOf(a)
		if field == "" {
			return
		}
		// The suggested value is a URL of the same origin, without the query.
		u, reason := parseURL(a)
		v, odd := parseURL(value)
		if reason != "" || odd != "" || origin(u) != origin(v) || v.RawQuery != "" || !slices.Contains([]string{"issuer", "server_url"}, field) {
			t.Fatalf("%q: %s=%q", a, field, value)
		}
	})
}
