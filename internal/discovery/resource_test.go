package discovery

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestChallengeOfAPost(t *testing.T) {
	w := healthy()
	const elsewhere = "https://meta.example.net/mcp.json"
	w.handlers[serverURL] = status(405)
	w.handlers["POST "+serverURL] = func(rw http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		if !strings.Contains(string(body), `"method":"server/discover"`) || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v", body, req.Header)
		}
		challenges(`scope="weather:read", resource_metadata="`+elsewhere+`"`)(rw, req)
	}
	w.handlers[elsewhere] = w.handlers[challenged]
	delete(w.handlers, challenged)
	got, err := w.search(t, Request{})
	if err != nil || got.TokenURL != "https://as.example.com/token" || !slices.Equal(got.Scopes, []string{"weather:read"}) {
		t.Errorf("%+v %v", got, err)
	}
	if want := []string{serverURL, "POST " + serverURL, elsewhere, oauthURL}; !slices.Equal(w.asked, want) {
		t.Errorf("asked %q", w.asked)
	}
}

func TestServersThatGiveNoUsefulChallenge(t *testing.T) {
	for name, c := range map[string]struct {
		get, post http.HandlerFunc
		reason    string
		names     bool // a document, which then is not got around
	}{
		"open":               {answers("data: {}\n\n"), answers("{}"), "answers a request without a token with HTTP 200 (GET) and 200 (POST), not with a challenge", false},
		"knows nothing":      {status(405), status(400), "answers a request without a token with HTTP 405 (GET) and 400 (POST), not with a challenge", false},
		"forbids":            {status(403), status(403), "answers a request without a token with HTTP 403 (GET) and 403 (POST), not with a challenge", false},
		"no header":          {status(401), nil, "the challenge names no resource_metadata", false},
		"no parameter":       {challenges(`realm=""`), nil, "the challenge names no resource_metadata", false},
		"another scheme":     {status(401, "WWW-Authenticate", `Basic realm="x", resource_metadata="https://not.me"`), nil, "the challenge names no resource_metadata", false},
		"redirects":          {status(308, "Location", "https://mcp.example.com/mcp/"), nil, "HTTP 308: redirects, as here to https://mcp.example.com/mcp/, are not followed", false},
		"useless URL":        {challenges(`resource_metadata="/metadata"`), nil, serverURL + ": the challenge's resource_metadata is not an absolute https URL", true},
		"URL in clear":       {challenges(`resource_metadata="http://mcp.example.com/m?q"`), nil, "http://mcp.example.com/m: uses http to a host other than loopback", true},
		"URL in the inside":  {challenges(`resource_metadata="https://192.168.1.1/m"`), nil, "https://192.168.1.1/m: 192.168.1.1 (private) is not called without allow_private_addresses=true", true},
		"metadata not there": {challenges(`resource_metadata="https://mcp.example.com/m"`), nil, "https://mcp.example.com/m: HTTP 404", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy()
			w.handlers[serverURL], w.handlers["POST "+serverURL] = c.get, c.post
			if got, err := w.search(t, Request{}); err != nil || got.Resource != serverURL {
				t.Errorf("%+v %v", got, err)
			}
			delete(w.handlers, challenged)
			_, err := w.search(t, Request{})
			if c.names {
				wantAttempts(t, err, c.reason, challenged+": HTTP 404", rooted+": HTTP 404")
				return
			}
			wantAttempts(t, err,
				serverURL+": "+c.reason,
				challenged+": HTTP 404",
				rooted+": HTTP 404",
				"https://mcp.example.com/.well-known/oauth-authorization-server: HTTP 404",
				"https://mcp.example.com/.well-known/openid-configuration: HTTP 404",
			)
		})
	}
}

func TestMetadataMustBeTheServers(t *testing.T) {
	const other = "its resource is %, not the MCP server's URL"
	for _, c := range []struct {
		server, resource string
		at, root         string // the reason where it is at the path's well-known URL, and at the root's
	}{
		{serverURL, serverURL, "", ""},
		{serverURL, "HTTPS://MCP.example.com:443/mcp", "", ""},
		{serverURL, serverURL + "/", "", ""},
		{serverURL + "/", serverURL, "", ""},
		{serverURL + "?t=1", serverURL + "?t=1", "", ""},
		{"https://mcp.example.com", "https://mcp.example.com/", "", ""},
		{serverURL, "https://mcp.example.com", other, ""},
		{serverURL, "https://mcp.example.com/", other, ""},
		{serverURL + "?t=1", serverURL, other, other},
		{serverURL, serverURL + "?t=1", other, other},
		{serverURL, serverURL + "/other", other, other},
		{serverURL, "https://mcp.example.com/MCP", other, other},
		{serverURL, "https://mcp.example.com/other", other, other},
		{serverURL, "https://mcp.example.com:8443/mcp", other, other},
		{serverURL, "http://mcp.example.com/mcp", other, other},
		{serverURL, "https://evil.example.com/mcp", other, other},
		{serverURL, "https://mcp.example.com@evil.example.com/mcp", other, other},
		{serverURL, "urn:mcp", other, other},
		{serverURL, "", "the metadata names no resource", "the metadata names no resource"},
	} {
		server, _ := parseURL(c.server)
		for root, reason := range map[bool]string{false: c.at, true: c.root} {
			m := resourceMetadata{resource: c.resource, servers: []string{issuer}}
			want := strings.Replace(reason, "%", c.resource, 1)
			if got := unfit(m, server, root); got != want {
				t.Errorf("%s for %s, root %t: %q", c.resource, c.server, root, got)
			}
		}
	}
}

func TestRefusedMetadataIsNotGotAround(t *testing.T) {
	// The server's origin would do as an authorization server, were there no metadata.
	own := answers(serverDoc("https://mcp.example.com"))
	for _, c := range []struct {
		document http.HandlerFunc
		reason   string
	}{
		{answers(resourceDoc("https://victim.example.com/mcp", issuer)), "its resource is https://victim.example.com/mcp, not the MCP server's URL"},
		{answers(`{"resource":"` + serverURL + `"}`), "the metadata names no authorization_servers"},
		{status(502), "HTTP 502"}, // there may be a document
		{status(301, "Location", "https://mcp.example.com/m"), "HTTP 301: redirects, as here to https://mcp.example.com/m, are not followed"},
		{answers(strings.Repeat(" ", maxBody+1)), "the answer is larger than 1 MiB"},
	} {
		w := &world{handlers: map[string]http.HandlerFunc{
			serverURL:  challenges(""),
			challenged: c.document,
			"https://mcp.example.com/.well-known/oauth-authorization-server": own,
		}}
		_, err := w.search(t, Request{})
		wantAttempts(t, err, serverURL+": the challenge names no resource_metadata", challenged+": "+c.reason, rooted+": HTTP 404")
	}
	for name, none := range map[string]http.HandlerFunc{
		"a single-page application": answers("<html>"),
		"nothing":                   http.NotFound,
		"nothing without a token":   status(401),
	} {
		w := &world{handlers: map[string]http.HandlerFunc{
			serverURL:  challenges(""),
			challenged: none,
			"https://mcp.example.com/.well-known/oauth-authorization-server": own,
		}}
		got, err := w.search(t, Request{})
		if err != nil || got.Issuer != "https://mcp.example.com" || got.Resource != "" || len(got.Warnings) != 1 {
			t.Errorf("%s: %+v %v", name, got, err)
		}
		// A challenge that names a document says that there is one.
		w.handlers[serverURL] = challenges(`resource_metadata="` + challenged + `"`)
		if got, err := w.search(t, Request{}); err == nil {
			t.Errorf("%s, and named: %+v", name, got)
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

func TestRootMetadataMayNameTheOrigin(t *testing.T) {
	for name, challenge := range map[string]http.HandlerFunc{
		"found":      challenges(""),
		"challenged": challenges(`resource_metadata="` + rooted + `"`),
	} {
		w := healthy()
		w.handlers[serverURL] = challenge
		w.handlers[rooted] = answers(resourceDoc("https://mcp.example.com/", issuer))
		delete(w.handlers, challenged)
		got, err := w.search(t, Request{})
		if err != nil || got.Resource != "" || len(got.Warnings) != 1 || got.Policy != (Policy{}) {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}
