package discovery

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestListsAreReadLeniently(t *testing.T) {
	long := strings.Repeat("x", maxValue+1)
	for raw, want := range map[string][]string{
		``: nil, `null`: nil, `1`: nil, `{}`: nil,
		`[]`: {}, `""`: {}, `[null,1,{},["a"]]`: {},
		`["a","b"]`: {"a", "b"}, `"a b"`: {"a", "b"}, `["a",1,"b c","\u0000","ü","` + long + `","d"]`: {"a", "d"},
	} {
		o := object{"x": json.RawMessage(raw)}
		if raw == "" {
			o = object{}
		}
		if got := o.list("x", maxValue); !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s: %q", raw, got)
		}
	}
	many := object{"x": json.RawMessage(`"` + strings.Repeat("a ", 1000) + `"`)}
	if got := many.list("x", maxValue); len(got) != maxItems {
		t.Errorf("%d values", len(got))
	}
}

func TestSameOrigin(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"https://h/a", "https://h/b?c", true},
		{"https://H:443/", "HTTPS://h", true},
		{"http://h:80", "http://h", true},
		{"https://h:8443", "https://h", false},
		{"https://h", "http://h", false},
		{"https://h.evil", "https://h", false},
		{"https://u@h", "https://h", false},
		{"https://\u0130", "https://i", false},
		{"", "", false},
	} {
		if SameOrigin(c.a, c.b) != c.same {
			t.Errorf("%s and %s: %t", c.a, c.b, !c.same)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	for _, seed := range []string{
		serverDoc(issuer), resourceDoc(serverURL, issuer), "\xEF\xBB\xBF{}", "<html>", "null", `{"issuer":`, `[[[[`,
		`{"issuer":"https://as.example.com","token_endpoint":"https://127.0.0.1","mtls_endpoint_aliases":{"token_endpoint":"https://a"},
		"grant_types_supported":["x",1],"token_endpoint_auth_methods_supported":"a b"}`,
		`{"issuer":"https://as.example.com","token_endpoint":"https://[::ffff:169.254.169.254]:1/a?b"}`,
		`{"resource":"https://mcp.example.com","authorization_servers":["https://as"],"scopes_supported":["openid","a"]}`,
		`{"resource":"https://mcp.example.com/mcp/?","authorization_servers":["https://as"]}`,
		`{"resource":"https://mcp.example.com/mcp","authorization_servers":["https://as/%2f//","x"],"scopes_supported":"a b"}`,
	} {
		f.Add([]byte(seed))
	}
	server, _ := parseURL(serverURL)
	s := &search{Request: &Request{}, origin: "https://mcp.example.com"}
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, reason := parseResource(body); reason == "" && unfit(m, server, true) == "" {
			r, reason := parseURL(m.resource)
			if reason != "" || r.User != nil || !strings.EqualFold(r.Hostname(), "mcp.example.com") ||
				!slices.Contains([]string{"", "/", "/mcp", "/mcp/"}, r.EscapedPath()) || r.RawQuery != "" {
				t.Fatalf("resource %q", m.resource)
			}
			for _, scope := range published(&m, hint{}).Scopes {
				if scope == "openid" || !isVisible(scope, maxValue) {
					t.Fatalf("scope %q", scope)
				}
			}
			for _, issuer := range m.servers {
				u, reason := parseIssuer(issuer)
				if reason != "" {
					continue
				}
				for _, raw := range serverURLs(u) {
					wellKnown, reason := parseURL(raw)
					if reason == "" && (origin(wellKnown) != origin(u) || wellKnown.RawQuery != "") {
						t.Fatalf("%q for issuer %q", raw, issuer)
					}
				}
			}
		}
		got, reason := s.take(&answer{body: body}, issuer)
		if reason != "" {
			if len(reason) > 2*maxURL || strings.ContainsAny(reason, "\n\x00") {
				t.Fatalf("reason %q", reason)
			}
			return
		}
		endpoints := []string{got.TokenURL}
		if got.MTLSTokenURL != "" {
			endpoints = append(endpoints, got.MTLSTokenURL)
		}
		for _, endpoint := range endpoints {
			u, reason := parseURL(endpoint)
			if reason != "" || u.Scheme != "https" || !SameIssuer(got.Issuer, issuer) {
				t.Fatalf("%+v", got)
			}
			if addr, err := netip.ParseAddr(u.Hostname()); err == nil && (Policy{}).Check(addr) != nil {
				t.Fatalf("%+v", got)
			}
		}
	})
}
