package discovery

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFromTheServersURLAlone(t *testing.T) {
	w := healthy()
	w.handlers[oauthURL] = answers(`{"issuer":"https://as.example.com","token_endpoint":"https://tokens.example.net/t?x=1",
		"token_endpoint_auth_methods_supported":["private_key_jwt","client_secret_basic"],
		"token_endpoint_auth_signing_alg_values_supported":["ES256"],
		"mtls_endpoint_aliases":{"token_endpoint":"https://mtls.example.net/t"},
		"grant_types_supported":["authorization_code","client_credentials"]}`)
	got, err := w.search(t, Request{})
	want := &Result{
		Issuer:       issuer,
		TokenURL:     "https://tokens.example.net/t?x=1",
		MTLSTokenURL: "https://mtls.example.net/t",
		AuthMethods:  []string{"private_key_jwt", "client_secret_basic"},
		SigningAlgs:  []string{"ES256"},
		Published:    Published{Scopes: []string{"read", "write"}, Resource: serverURL},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	wantAsked(t, w.asked, serverURL, challenged, oauthURL)
}

func TestFromAnIssuerAlone(t *testing.T) {
	w := healthy()
	got, err := w.search(t, Request{Issuer: issuer, ServerURL: serverURL})
	want := &Result{Issuer: issuer, TokenURL: "https://as.example.com/token"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	wantAsked(t, w.asked, oauthURL)
}

func TestWellKnownURLsInOrder(t *testing.T) {
	for issuer, want := range map[string][]string{
		"https://as.example.com":  {oauthURL, openidURL},
		"https://as.example.com/": {oauthURL, openidURL},
		"https://as.example.com/realms/a%2Fb": {
			oauthURL + "/realms/a%2Fb", openidURL + "/realms/a%2Fb",
			"https://as.example.com/realms/a%2Fb/.well-known/openid-configuration",
		},
		"https://as.example.com:8443/t/": {
			"https://as.example.com:8443/.well-known/oauth-authorization-server/t",
			"https://as.example.com:8443/.well-known/openid-configuration/t",
			"https://as.example.com:8443/t/.well-known/openid-configuration",
		},
	} {
		w := &world{}
		if _, err := w.search(t, Request{Issuer: issuer}); err == nil || !slices.Equal(w.asked, want) {
			t.Errorf("%s: asked %q, %v", issuer, w.asked, err)
		}
		// Each of these URLs may have the metadata, and the issuer keeps its final slash.
		for _, at := range want {
			w := &world{handlers: map[string]http.HandlerFunc{at: answers(serverDoc(issuer))}}
			w.wantIssuer(t, Request{Issuer: issuer}, issuer)
		}
	}
	for server, want := range map[string][]string{
		"https://mcp.example.com":         {rooted},
		"https://mcp.example.com/":        {rooted},
		"https://mcp.example.com/mcp":     {challenged, rooted},
		"https://mcp.example.com/a%2Fb/":  {rooted + "/a%2Fb/", rooted},
		"https://mcp.example.com/mcp?t=1": {challenged + "?t=1", rooted},
	} {
		w := &world{handlers: map[string]http.HandlerFunc{"https://mcp.example.com/mcp": challenges("")}}
		_, err := w.search(t, Request{ServerURL: server})
		asked := slices.DeleteFunc(w.asked, func(u string) bool { return !strings.Contains(u, "protected-resource") })
		if err == nil || !slices.Equal(asked, want) {
			t.Errorf("%s: asked %q, %v", server, asked, err)
		}
	}
}

func TestOddMetadataOfAnAuthorizationServerIsPassedOver(t *testing.T) {
	good := serverDoc(issuer)
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		reason  string
	}{
		{"missing", http.NotFound, "HTTP 404"},
		{"forbidden", status(403), "HTTP 403"},
		{"broken", status(500), "HTTP 500"},
		{"not modified", status(304), "HTTP 304: redirects are not followed"},
		{"redirect", status(302, "Location", "https://x.example.com/a;s=1?q=2#f"), "HTTP 302: redirects, as here to https://x.example.com/a, are not followed"},
		{"relative redirect", status(301, "Location", "/login?q=2"), "HTTP 301: redirects, as here to https://as.example.com/login, are not followed"},
		{"no content", status(204), "HTTP 204"},
		{"empty", answers(""), "the answer is empty"},
		{"white space", answers(" \n"), "the answer is empty"},
		{"web page", answers("\n<!doctype html><title>Sign in</title>"), "the answer is a web page, not JSON"},
		{"array", answers(`[` + good + `]`), "the answer is not a JSON object"},
		{"null", answers(`null`), "the answer is not a JSON object"},
		{"cut short", answers(good[:len(good)-2]), "the answer is not a JSON object"},
		{"two documents", answers(good + good), "the answer is not a JSON object"},
		{"too large", answers(good + strings.Repeat(" ", maxBody)), "the answer is larger than 1 MiB"},
		{"deep", answers(`{"a":` + strings.Repeat(`[`, 500_000)), "the answer is not a JSON object"},
		{"no issuer", answers(`{"token_endpoint":"https://as.example.com/token"}`), "the metadata names no issuer"},
		{"issuer of another type", answers(`{"issuer":["https://as.example.com"],"token_endpoint":"https://as.example.com/token"}`), "the metadata names no issuer"},
		{"issuer by another case", answers(`{"Issuer":"https://as.example.com","token_endpoint":"https://as.example.com/token"}`), "the metadata names no issuer"},
		{"another issuer", answers(serverDoc("https://evil.example.com")), "its issuer is https://evil.example.com, not https://as.example.com"},
		{"issuer with two slashes", answers(serverDoc(issuer + "//")), "its issuer is https://as.example.com//, not https://as.example.com"},
		{"issuer in capitals", answers(serverDoc("https://AS.example.com")), "its issuer is https://AS.example.com, not https://as.example.com"},
		{"no token endpoint", answers(`{"issuer":"https://as.example.com"}`), "the metadata names no token_endpoint"},
		{"relative token endpoint", answers(`{"issuer":"https://as.example.com","token_endpoint":"/token"}`), "its token_endpoint is not an absolute https URL"},
		{"foreign scheme", answers(`{"issuer":"https://as.example.com","token_endpoint":"file:///etc/passwd"}`), "its token_endpoint is not an absolute https URL"},
		{"no host", answers(`{"issuer":"https://as.example.com","token_endpoint":"https://:443/t"}`), "its token_endpoint is not an absolute https URL"},
		{"token endpoint in clear", answers(`{"issuer":"https://as.example.com","token_endpoint":"http://as.example.com/token"}`), "its token_endpoint can't be called: uses http to a host other than loopback"},
		{"token endpoint in loopback", answers(`{"issuer":"https://as.example.com","token_endpoint":"http://localhost/token"}`), "its token_endpoint can't be called: ::1 (loopback) is not called without allow_private_addresses=true"},
		{"token endpoint inside", answers(`{"issuer":"https://as.example.com","token_endpoint":"https://10.0.0.1/token"}`), "its token_endpoint can't be called: 10.0.0.1 (private) is not called without allow_private_addresses=true"},
		{"token endpoint with user", answers(`{"issuer":"https://as.example.com","token_endpoint":"https://u:p@as.example.com/token"}`), "its token_endpoint holds user information"},
		{"token endpoint with fragment", answers(`{"issuer":"https://as.example.com","token_endpoint":"https://as.example.com/token#x"}`), "its token_endpoint holds a fragment"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := healthy()
			w.handlers[oauthURL] = c.handler
			wantAttempts(t, errorOf(w.search(t, Request{})), oauthURL+": "+c.reason, openidURL+": HTTP 404")
			w.handlers[openidURL] = answers(good)
			if got, err := w.search(t, Request{}); err != nil || got.TokenURL != "https://as.example.com/token" {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
}

func TestMetadataNeedsNeitherPKCENorContentType(t *testing.T) {
	w := healthy()
	w.handlers[oauthURL] = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		answers("\xEF\xBB\xBF"+`{"issuer":"https://as.example.com","token_endpoint":"https://as.example.com/token",
			"token_endpoint_auth_methods_supported":"client_secret_post","grant_types_supported":["authorization_code"],
			"token_endpoint_auth_signing_alg_values_supported":[1,"RS256",null,"a b",""],"mtls_endpoint_aliases":{"token_endpoint":"/token"}}`)(rw, nil)
	}
	got, err := w.search(t, Request{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.AuthMethods, []string{"client_secret_post"}) || !slices.Equal(got.SigningAlgs, []string{"RS256"}) || got.MTLSTokenURL != "" {
		t.Errorf("%+v", got)
	}
	want := []string{
		"the metadata's token endpoint for mutual TLS is left out: it is not an absolute https URL",
		"the authorization server's metadata does not list the client_credentials grant",
	}
	if !slices.Equal(got.Warnings, want) {
		t.Errorf("%q", got.Warnings)
	}
	for wanted, warnings := range map[string]int{"urn:ietf:params:oauth:grant-type:jwt-bearer": 2, "authorization_code": 1} {
		got, err := w.search(t, Request{GrantType: wanted})
		if err != nil || len(got.Warnings) != warnings || warnings > 1 && !strings.Contains(got.Warnings[1], wanted) {
			t.Errorf("%s: %q, %v", wanted, got.Warnings, err)
		}
	}
}

func TestAuthorizationServersInOrder(t *testing.T) {
	w := healthy()
	w.handlers[challenged] = answers(resourceDoc(serverURL, "https://as.example.com/?x", "http://a.example.com", "https://169.254.169.254", issuer, "https://fifth.example.com"))
	got, err := w.search(t, Request{})
	if err != nil || got.Issuer != issuer {
		t.Fatalf("%+v %v", got, err)
	}
	const warning = "this is authorization server 4 in the MCP server's list: those before it can't be used (https://as.example.com/?x, http://a.example.com, https://169.254.169.254)"
	if !slices.Equal(got.Warnings, []string{warning}) {
		t.Errorf("%q", got.Warnings)
	}
	delete(w.handlers, oauthURL)
	wantTemporary(t, wantFailed(t, errorOf(w.search(t, Request{})),
		"https://as.example.com/: as an issuer it holds a query",
		"http://a.example.com/.well-known/oauth-authorization-server: uses http to a host other than loopback",
		"https://169.254.169.254/.well-known/oauth-authorization-server: 169.254.169.254 (link-local) is never called",
		oauthURL+": HTTP 404",
		openidURL+": HTTP 404",
		"https://fifth.example.com: not tried, as the 4 before it were: write issuer=https://fifth.example.com to choose it",
	), false)
	w.handlers[openidURL] = status(503)
	wantTemporary(t, errorOf(w.search(t, Request{})), true)
}

// If an authorization server is down, discovery does not continue with the next one: the credentials may be for the
// first.
func TestAuthorizationServerThatIsDownIsNotPassedOver(t *testing.T) {
	w := healthy()
	w.handlers[challenged] = answers(resourceDoc(serverURL, issuer, "https://other.example.com"))
	w.handlers["https://other.example.com/.well-known/oauth-authorization-server"] = answers(serverDoc("https://other.example.com"))
	w.handlers[oauthURL] = status(503)
	wantTemporary(t, wantFailed(t, errorOf(w.search(t, Request{})), oauthURL+": HTTP 503", openidURL+": HTTP 404",
		"https://other.example.com: not tried, as the one before it may only be down: write issuer=https://other.example.com to choose it",
	), true)
	delete(w.handlers, oauthURL)
	if got, err := w.search(t, Request{}); err != nil || got.Issuer != "https://other.example.com" || len(got.Warnings) != 1 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestURLsThatCanNotBeBegunWith(t *testing.T) {
	for _, c := range []struct {
		request Request
		want    string
	}{
		{Request{ServerURL: "mcp.example.com"}, "server_url is not an absolute https URL"},
		{Request{ServerURL: "https://u:secret@mcp.example.com"}, "server_url holds user information"},
		{Request{ServerURL: "https://mcp.example.com#a"}, "server_url holds a fragment"},
		{Request{ServerURL: "https://mcp.example.com\n"}, "server_url is not a URL"},
		{Request{ServerURL: "https://%EF%BC%91%EF%BC%96%EF%BC%99.254.169.254/"}, "server_url has a host that is not ASCII"},
		{Request{ServerURL: "https://2852039166/"}, "server_url has a host that is neither a name nor an address in its usual form"},
		{Request{ServerURL: "https://0xa9fea9fe./"}, "server_url has a host that is neither a name nor an address in its usual form"},
		{Request{ServerURL: "https://169.254.43518/"}, "server_url has a host that is neither a name nor an address in its usual form"},
		{Request{ServerURL: "https://0251.254.169.254/"}, "server_url has a host that is neither a name nor an address in its usual form"},
		{Request{Issuer: "https://169.254.169.0XFE"}, "issuer has a host that is neither a name nor an address in its usual form"},
		{Request{Issuer: "https://as.example.com?a=b"}, "issuer holds a query"},
		{Request{Issuer: "ldap://as.example.com"}, "issuer is not an absolute https URL"},
		{Request{Issuer: issuer, CACert: "x"}, "ca_cert holds no certificate in PEM form"},
	} {
		w := &world{}
		if _, err := w.search(t, c.request); err == nil || err.Error() != c.want || len(w.asked) != 0 {
			t.Errorf("%v, want %s; asked %q", err, c.want, w.asked)
		}
	}
	// For a URL from the operator, the operator's own setting for http applies.
	w := healthy()
	wantAttempts(t, errorOf(w.search(t, Request{ServerURL: "http://mcp.example.com/mcp"})), "http://mcp.example.com/mcp: uses http to a host other than loopback")
	w.handlers["http://as.internal/.well-known/oauth-authorization-server"] = answers(serverDoc("http://as.internal"))
	if got, err := w.search(t, Request{Issuer: "http://as.internal", AllowInsecureHTTP: true}); err != nil || got.TokenURL != "http://as.internal/token" {
		t.Errorf("%+v %v", got, err)
	}
}

// stalled sends no answer before its request ends, or only headers.
type stalled struct{ inBody bool }

func (s stalled) RoundTrip(req *http.Request) (*http.Response, error) {
	if s.inBody {
		return &http.Response{StatusCode: http.StatusOK, Body: stalledBody{req.Context()}}, nil
	}
	<-req.Context().Done()
	return nil, req.Context().Err()
}

type stalledBody struct{ ctx context.Context }

func (b stalledBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, io.EOF // the server may send this in time when it sees the connection close
}

func (stalledBody) Close() error { return nil }

func TestTimeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &request{Request{Issuer: issuer, Timeout: 10 * time.Second}, network{base: stalled{}}}
		begun := time.Now()
		wantAttempts(t, errorOf(r.Do(t.Context())), oauthURL+": timed out after 10s", openidURL+": timed out after 10s")
		r.base = stalled{inBody: true}
		err := wantFailed(t, errorOf(r.Do(t.Context())), oauthURL+": timed out after 10s", openidURL+": timed out after 10s")
		if took := time.Since(begun); took != 40*time.Second || !err.Temporary() {
			t.Errorf("took %s, %v", took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		const want = "found no token endpoint before the time was over\n  " + oauthURL + ": timed out after 10s\n  " +
			openidURL + ": no answer before the time for the whole discovery was over"
		if _, err := r.Do(ctx); !errors.Is(err, context.DeadlineExceeded) || err.Error() != want {
			t.Errorf("%v", err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Do(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
