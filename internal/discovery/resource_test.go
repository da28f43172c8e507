package discovery

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestChallengeThatLeadsNowhereIsPassedOver(t *testing.T) {
	for name, c := range map[string]struct{ params, reason string }{
		"useless URL":        {`resource_metadata="/metadata"`, serverURL + ": the challenge's resource_metadata is not an absolute https URL"},
		"URL in clear":       {`resource_metadata="http://mcp.example.com/m?q"`, "http://mcp.example.com/m: uses http to a host other than loopback"},
		"URL in the inside":  {`resource_metadata="https://192.168.1.1/m"`, "https://192.168.1.1/m: 192.168.1.1 (private) is not called without allow_private_addresses=true"},
		"metadata not there": {`resource_metadata="https://mcp.example.com/m"`, "https://mcp.example.com/m: HTTP 404"},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy()
			w.handlers[serverURL] = challenges(c.params)
			if got, err := w.search(t, Request{}); err != nil || got.Resource != serverURL {
				t.Errorf("%+v %v", got, err)
			}
			delete(w.handlers, challenged)
			wantAttempts(t, errorOf(w.search(t, Request{})), c.reason, challenged+": HTTP 404", rooted+": HTTP 404")
		})
	}
}

// Metadata for the MCP server's URL, or for a path above it, covers the server.
func TestMetadataMustCoverTheServer(t *testing.T) {
	for _, c := range []struct {
		server, resource string
		covers           bool
	}{
		{serverURL, serverURL, true},
		{serverURL, "HTTPS://MCP.example.com:443/mcp", true},
		{serverURL, serverURL + "/", true},
		{serverURL + "/", serverURL, true},
		{"https://mcp.example.com", "https://mcp.example.com/", true},
		{"https://mcp.example.com/", "https://mcp.example.com", true},
		{serverURL, "https://mcp.example.com", true},
		{serverURL, "https://mcp.example.com/", true},
		{serverURL + "/a/b", serverURL, true},
		{serverURL + "/a/b", serverURL + "/a/", true},
		{"https://mcp.example.com/a%2Fb/c", "https://mcp.example.com/a%2Fb", true},
		{serverURL + "?t=1", serverURL + "?t=1", true},
		{serverURL + "?t=1", serverURL, true},
		{serverURL + "?t=1", "https://mcp.example.com", true},

		{serverURL, serverURL + "?t=1", false},
		{serverURL + "?t=2", serverURL + "?t=1", false},
		{serverURL, serverURL + "/other", false},
		{serverURL, "https://mcp.example.com/MCP", false},
		{serverURL, "https://mcp.example.com/mc", false},
		{serverURL + "2", serverURL, false},
		{serverURL + "2", serverURL + "/", false},
		{"https://mcp.example.com/a%2Fb/c", "https://mcp.example.com/a", false},
		{serverURL, "https://mcp.example.com//", false},
		{serverURL, "https://mcp.example.com/other", false},
		{serverURL, "https://mcp.example.com/../mcp", false},
		{serverURL, "https://mcp.example.com:8443/mcp", false},
		{serverURL, "http://mcp.example.com/mcp", false},
		{serverURL, "https://example.com/mcp", false},
		{serverURL, "https://evil.example.com/mcp", false},
		{serverURL, "https://mcp.example.com.evil.example/mcp", false},
		{serverURL, "https://mcp.example.com@evil.example.com/mcp", false},
		{serverURL, "https://mcp.example.com/#mcp", false},
		{serverURL, "urn:mcp", false},
	} {
		server, _ := parseURL(c.server)
		if covers(c.resource, server) != c.covers {
			t.Errorf("%s for %s: %t", c.resource, c.server, !c.covers)
		}
		for _, at := range []string{resourceURLs(server)[0], rooted} {
			path, _, _ := strings.Cut(at, "?")
			w := healthy()
			delete(w.handlers, challenged)
			w.handlers[path] = answers(resourceDoc(c.resource, issuer))
			got, err := w.search(t, Request{ServerURL: c.server})
			if c.covers && (err != nil || got.Resource != c.resource) {
				t.Errorf("%s for %s at %s: %+v %v", c.resource, c.server, at, got, err)
			}
			if !c.covers && (err == nil || !strings.Contains(err.Error(), "its resource is "+c.resource+", not the MCP server's URL")) {
				t.Errorf("%s for %s at %s: %+v %v", c.resource, c.server, at, got, err)
			}
		}
	}
	if reason := unfit(resourceMetadata{servers: []string{issuer}}, &url.URL{}, false); reason != "the metadata names no resource" {
		t.Error(reason)
	}
}

// Discovery does not guess: unless the operator names it, a server outside the MCP server's metadata gets no
// credentials.
func TestUnnamedServerIsNotTaken(t *testing.T) {
	const origin = "https://mcp.example.com"
	for name, c := range map[string]struct {
		document http.HandlerFunc
		reason   string
	}{
		"another's":                 {answers(resourceDoc("https://victim.example.com/mcp", issuer)), "its resource is https://victim.example.com/mcp, not the MCP server's URL"},
		"without servers":           {answers(`{"resource":"` + serverURL + `"}`), "the metadata names no authorization_servers"},
		"down":                      {status(502), "HTTP 502"},
		"moved":                     {status(301, "Location", "https://mcp.example.com/m"), "HTTP 301: redirects, as here to https://mcp.example.com/m, are not followed"},
		"too large":                 {answers(strings.Repeat(" ", maxBody+1)), "the answer is larger than 1 MiB"},
		"a single-page application": {answers("<html>"), "the answer is a web page, not JSON"},
		"nothing":                   {http.NotFound, "HTTP 404"},
		"nothing without a token":   {status(401), "HTTP 401"},
	} {
		for at, c2 := range map[string]struct{ document, named, write string }{
			"oauth-authorization-server": {serverDoc(origin), origin, origin},
			"openid-configuration":       {serverDoc(origin + "/"), origin + "/", origin + "/"},
			// Earlier versions took this for the metadata of the MCP server's authorization server.
			"oauth-authorization-server ": {serverDoc(issuer), issuer, issuer},
			"openid-configuration ":       {`{"issuer":"https://as.example.com?x","token_endpoint":"https://as.example.com/t"}`, "", ""},
			"":                            {`{"issuer":"https://mcp.example.com"}`, "", ""},
		} {
			w := &world{handlers: map[string]http.HandlerFunc{
				serverURL:  challenges(""),
				challenged: c.document,
				origin + "/.well-known/" + strings.TrimSpace(at): answers(c2.document),
			}}
			w.handlers[oauthURL] = answers(serverDoc(issuer))
			failed := wantFailed(t, errorOf(w.search(t, Request{})),
				serverURL+": asked without a token: HTTP 401 (GET), HTTP 404 (server/discover, initialize); no challenge names resource_metadata",
				challenged+": "+c.reason,
				rooted+": HTTP 404",
			)
			if failed.Issuer != c2.named || !failed.NoMetadata || failed.Temporary() != (name == "down") {
				t.Errorf("%s, %s: %+v", name, at, failed)
			}
			hint := "\nits origin publishes the metadata of an authorization server: write issuer=" + c2.write + " if the credentials are for that server"
			if c2.write != "" && !strings.HasSuffix(failed.Error(), hint) {
				t.Errorf("%s, %s: %s", name, at, failed)
			}
			if c2.write != "" {
				// The suggested issuer works.
				w.wantIssuer(t, Request{Issuer: c2.write}, c2.write)
			}
		}
	}
}

func TestURLThatIsTooLongIsNotBlamedOnTheChallenge(t *testing.T) {
	w := &world{}
	server := "https://mcp.example.com/" + strings.Repeat("a", maxURL-len("https://mcp.example.com/"))
	_, err := w.search(t, Request{ServerURL: server})
	if err == nil || strings.Contains(err.Error(), "challenge's") || !strings.Contains(err.Error(), "the well-known URL of its metadata is not a URL") {
		t.Error(err)
	}
}

// Scopes about a user do not fit a client's own tokens, so they are requested only if a challenge names them.
func TestScopesThatTheGrantHasNot(t *testing.T) {
	for _, c := range []struct {
		challenge, supported string
		want                 []string
	}{
		{``, `["openid","read","profile","email","address","phone","offline_access","write"]`, []string{"read", "write"}},
		{``, `["openid","offline_access"]`, nil},
		{``, `["OpenID","openid.x","read:email","emails"]`, []string{"OpenID", "openid.x", "read:email", "emails"}},
		{``, `"read  write"`, []string{"read", "write"}},
		{``, `[]`, nil},
		{``, `null`, nil},
		{`scope="openid read"`, `["write"]`, []string{"openid", "read"}},
	} {
		w := healthy()
		w.handlers[serverURL] = challenges(c.challenge)
		w.handlers[challenged] = answers(`{"resource":"` + serverURL + `","authorization_servers":["` + issuer + `"],"scopes_supported":` + c.supported + `}`)
		got, err := w.search(t, Request{})
		if err != nil || !slices.Equal(got.Scopes, c.want) || got.Scopes == nil != (c.want == nil) {
			t.Errorf("%s: %+v %v", c.supported, got, err)
		}
	}
}

func (w *world) look(t *testing.T, r Request) (Published, error) {
	t.Helper()
	r.Timeout, r.ServerURL = 10*time.Second, serverURL
	return r.look(t.Context(), network{base: w})
}

// If the operator names the authorization server, the rest comes from the MCP server's metadata.
func TestLook(t *testing.T) {
	w := healthy()
	w.handlers[challenged] = answers(`{"resource":"https://mcp.example.com/","scopes_supported":["read","openid"]}`)
	got, err := w.look(t, Request{Issuer: "https://operators.example.com"})
	if err != nil || got.Resource != "https://mcp.example.com/" || !slices.Equal(got.Scopes, []string{"read"}) {
		t.Errorf("%+v %v", got, err)
	}
	wantAsked(t, w.asked, serverURL, challenged)
	w.handlers[serverURL] = challenges(`scope="a b"`)
	if got, err := w.look(t, Request{}); err != nil || !slices.Equal(got.Scopes, []string{"a", "b"}) {
		t.Errorf("%+v %v", got, err)
	}
	delete(w.handlers, challenged)
	got, err = w.look(t, Request{})
	if !slices.Equal(got.Scopes, []string{"a", "b"}) || got.Resource != "" {
		t.Errorf("%+v", got)
	}
	failed, ok := errors.AsType[*Error](err)
	if !ok || !failed.NoMetadata {
		t.Fatalf("%v", err)
	}
	if want := "found no protected resource metadata (RFC 9728) of the MCP server; " + serverURL +
		": asked without a token: HTTP 401 (GET), HTTP 404 (server/discover, initialize); no challenge names resource_metadata; " +
		challenged + ": HTTP 404; " + rooted + ": HTTP 404"; failed.Sentence() != want {
		t.Errorf("%s", failed.Sentence())
	}
	if _, err := (&Request{ServerURL: "x", Timeout: time.Second}).Look(t.Context()); err == nil || err.Error() != "server_url is not an absolute https URL" {
		t.Errorf("%v", err)
	}
}

// A GET may stay open without an answer. The other requests still have time.
func TestLookAsksOnAfterAStalledRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := healthy()
		w.handlers["POST "+serverURL] = w.handlers[serverURL]
		w.handlers[serverURL] = func(_ http.ResponseWriter, req *http.Request) {
			<-req.Context().Done()
			panic(http.ErrAbortHandler)
		}
		if got, err := w.look(t, Request{}); err != nil || got.Resource != serverURL {
			t.Errorf("%+v %v", got, err)
		}
	})
}

func TestLookIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &request{Request{ServerURL: serverURL, Timeout: 10 * time.Second}, network{base: stalled{}}}
		begun := time.Now()
		_, err := r.Look(t.Context())
		if took := time.Since(begun); took != lookTime || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("took %s, %v", took, err)
		}
	})
}

// The credentials may be for another server in the MCP server's metadata.
func TestOtherServersAreNamed(t *testing.T) {
	const a, b, c = "https://a.example.com", "https://b.example.com", "https://c.example.com"
	w := healthy()
	w.handlers[challenged] = answers(resourceDoc(serverURL, "https://10.0.0.1", issuer, a, b, c, "https://d.example.com"))
	got, err := w.search(t, Request{})
	if err != nil || !slices.Equal(got.Others, []string{"https://10.0.0.1", a, b, c}) {
		t.Errorf("%+v %v", got, err)
	}
	w.handlers[challenged] = answers(resourceDoc(serverURL, issuer, a, b))
	w.handlers[oauthURL] = status(503)
	_, err = w.search(t, Request{})
	const down = "not tried, as the one before it may only be down: write issuer="
	wantAttempts(t, err,
		oauthURL+": HTTP 503", openidURL+": HTTP 404",
		a+": "+down+a+" to choose it",
		b+": "+down+b+" to choose it",
	)
	many := make([]string, 30)
	for i := range many {
		many[i] = "https://10.0.0.1/" + strings.Repeat("a", i+1)
	}
	w.handlers[challenged] = answers(resourceDoc(serverURL, many...))
	_, err = w.search(t, Request{})
	failed, ok := errors.AsType[*Error](err)
	if !ok || len(failed.Attempts) != 9 || !strings.Contains(failed.Attempts[8].Reason, "nor were 21 more: write issuer="+many[8]+" to choose it") {
		t.Errorf("%v", err)
	}
}
