package discovery

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// elsewhere is the URL of metadata that only a challenge names.
const elsewhere = "https://meta.example.net/mcp.json"

// byMethod handles the URL of an MCP server by the HTTP method, or by the JSON-RPC method in a POST.
func byMethod(handlers map[string]http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		name := req.Method
		body, _ := io.ReadAll(req.Body)
		for method := range handlers {
			if strings.Contains(string(body), `"method":"`+method+`"`) {
				name = method
			}
		}
		if handlers[name] == nil {
			http.NotFound(w, req)
			return
		}
		handlers[name](w, req)
	}
}

// refuses answers with a status, and with a challenge that names the metadata elsewhere.
func refuses(code int, more string) http.HandlerFunc {
	return status(code, "WWW-Authenticate", `Bearer `+more+`resource_metadata="`+elsewhere+`"`)
}

// A challenge may name the metadata, whatever its status, in the answer to any of a client's first requests. The
// other answers do not matter.
func TestAnyChallengeMayNameTheMetadata(t *testing.T) {
	bare := challenges("")
	for name, c := range map[string]struct {
		get, discover, initialize http.HandlerFunc
		scopes                    []string
	}{
		"GET 400":                {refuses(400, ""), nil, nil, nil},
		"GET 401":                {refuses(401, ""), nil, nil, nil},
		"GET 403":                {refuses(403, `error="insufficient_scope", scope="a b", `), nil, nil, []string{"a", "b"}},
		"GET 404":                {refuses(404, ""), nil, nil, nil},
		"GET 405":                {refuses(405, ""), nil, nil, nil},
		"GET 200":                {refuses(200, ""), nil, nil, nil},
		"GET 503":                {refuses(503, ""), nil, nil, nil},
		"discover 401":           {status(405), refuses(401, ""), nil, nil},
		"discover 403":           {status(405), refuses(403, ""), nil, nil},
		"discover after a 401":   {bare, refuses(401, `scope="a", `), nil, []string{"a"}},
		"discover after a page":  {answers("<html>"), refuses(401, ""), nil, nil},
		"discover after a login": {status(302, "Location", "https://mcp.example.com/login"), refuses(401, ""), nil, nil},
		"discover after an end":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, refuses(401, ""), nil, nil},
		"initialize 401":         {status(405), status(400), refuses(401, ""), nil},
		"initialize 403":         {status(403), status(403), refuses(403, `scope="a", `), []string{"a"}},
		"initialize 400":         {status(404), status(404), refuses(400, ""), nil},
		"initialize after 401s":  {bare, bare, refuses(401, ""), nil},
		"scopes of an earlier":   {challenges(`scope="a"`), challenges(`scope="b"`), refuses(401, ""), []string{"a"}},
		"scopes of the naming":   {challenges(`scope="a"`), status(400), refuses(401, `scope="c", `), []string{"c"}},
		"initialize after 5xx":   {status(500), status(501), refuses(401, ""), nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy()
			w.handlers[serverURL] = byMethod(map[string]http.HandlerFunc{"GET": c.get, "server/discover": c.discover, "initialize": c.initialize})
			w.handlers["POST "+serverURL] = w.handlers[serverURL]
			w.handlers[elsewhere] = answers(resourceDoc(serverURL, issuer))
			// The well-known URLs are not requested, and the server's origin is never used as the issuer.
			w.handlers[challenged] = answers(resourceDoc(serverURL, "https://mcp.example.com"))
			w.handlers["https://mcp.example.com/.well-known/oauth-authorization-server"] = answers(serverDoc("https://mcp.example.com"))
			got, err := w.search(t, Request{})
			if c.scopes == nil {
				c.scopes = []string{"read", "write"}
			}
			if err != nil || got.Issuer != issuer || !slices.Equal(got.Scopes, c.scopes) {
				t.Errorf("%+v %v", got, err)
			}
			wantAsked(t, w.asked[len(w.asked)-2:], elsewhere, oauthURL)
		})
	}
}

func TestProbesEqualClientsFirstRequests(t *testing.T) {
	w := healthy()
	var got []string
	w.handlers[serverURL] = func(rw http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		got = append(got, fmt.Sprintf("%s %s %s %s %s", req.Method, req.Header.Get("Content-Type"),
			req.Header.Get("Mcp-Protocol-Version"), req.Header.Get("Mcp-Method"), body))
		if req.Header.Get("Accept") != "application/json, text/event-stream" || req.Header.Get("Mcp-Session-Id") != "" {
			t.Errorf("headers %v", req.Header)
		}
		rw.WriteHeader(405)
	}
	w.handlers["POST "+serverURL] = w.handlers[serverURL]
	if _, err := w.search(t, Request{}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"GET    ",
		"POST application/json 2026-07-28 server/discover " + discoverBody,
		"POST application/json   " + initializeBody,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// Servers with the Python SDK open a session for any first request.
func TestSessionsOfProbesAreEnded(t *testing.T) {
	for name, opens := range map[string][]string{
		"initialize": {"initialize"},
		"all":        {"GET", "server/discover", "initialize"},
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy()
			open := map[string]bool{}
			opened := 0
			handlers := map[string]http.HandlerFunc{"DELETE": func(rw http.ResponseWriter, req *http.Request) {
				if req.Header.Get("Mcp-Protocol-Version") != "2025-11-25" {
					t.Errorf("headers %v", req.Header)
				}
				delete(open, req.Header.Get("Mcp-Session-Id"))
				rw.WriteHeader(405) // a server may refuse to end a session
			}}
			for _, method := range opens {
				handlers[method] = func(rw http.ResponseWriter, _ *http.Request) {
					open[method], opened = true, opened+1
					rw.Header().Set("Mcp-Session-Id", method)
					rw.WriteHeader(map[bool]int{true: 200, false: 400}[method == "initialize"])
				}
			}
			for _, method := range []string{"", "POST ", "DELETE "} {
				w.handlers[method+serverURL] = byMethod(handlers)
			}
			if _, err := w.search(t, Request{}); err != nil {
				t.Fatal(err)
			}
			if opened != len(opens) || len(open) != 0 {
				t.Errorf("%d sessions, left open: %v", opened, open)
			}
		})
	}
}

func TestSessionThatCanNotBeNamedIsLeft(t *testing.T) {
	w := healthy()
	w.handlers["POST "+serverURL] = status(200, "Mcp-Session-Id", "a b")
	delete(w.handlers, serverURL)
	if _, err := w.search(t, Request{}); err != nil {
		t.Fatal(err)
	}
	if i := slices.Index(w.asked, "DELETE "+serverURL); i >= 0 {
		t.Errorf("asked %q", w.asked)
	}
}

// An operator first needs to know how the MCP server itself answered.
func TestAnswersToProbesAreReported(t *testing.T) {
	const origin = "https://mcp.example.com/.well-known/"
	for name, c := range map[string]struct {
		get, post http.HandlerFunc
		reason    string
		temporary bool
	}{
		"mistyped":    {nil, nil, "HTTP 404 (GET, server/discover, initialize)", false},
		"open":        {answers("data: {}\n\n"), answers("{}"), "HTTP 200 (GET, server/discover, initialize)", false},
		"old":         {status(405), status(400), "HTTP 405 (GET), HTTP 400 (server/discover, initialize)", false},
		"no header":   {status(401), status(403), "HTTP 401 (GET), HTTP 403 (server/discover, initialize)", false},
		"bare":        {challenges(`realm=""`), challenges(`scope="a"`), "HTTP 401 (GET, server/discover, initialize)", false},
		"other":       {status(401, "WWW-Authenticate", `Basic realm="x", resource_metadata="https://not.me"`), nil, "HTTP 401 (GET), HTTP 404 (server/discover, initialize)", false},
		"redirects":   {status(308, "Location", "https://mcp.example.com/mcp/?a"), nil, "HTTP 308: redirects, as here to https://mcp.example.com/mcp/, are not followed (GET), HTTP 404 (server/discover, initialize)", false},
		"maintenance": {status(503), status(503), "HTTP 503 (GET, server/discover, initialize)", true},
		"a proxy's":   {status(407), nil, "proxy: HTTP 407: the proxy asks for credentials, not the server: write them into the proxy's URL in Vault's environment (HTTPS_PROXY) (GET), HTTP 404 (server/discover, initialize)", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{handlers: map[string]http.HandlerFunc{serverURL: c.get, "POST " + serverURL: c.post}}
			failed := wantFailed(t, errorOf(w.search(t, Request{})),
				serverURL+": asked without a token: "+c.reason+"; no challenge names resource_metadata",
				challenged+": HTTP 404",
				rooted+": HTTP 404",
			)
			if !failed.NoMetadata || failed.Temporary() != c.temporary || failed.Issuer != "" {
				t.Errorf("%+v", failed)
			}
			// The last two requests look for an authorization server to suggest to the operator.
			wantAsked(t, w.asked[len(w.asked)-2:], origin+"oauth-authorization-server", origin+"openid-configuration")
		})
	}
}

// If a URL does not exist, its origin may still publish metadata that covers it.
func TestURLThatIsNotThereIsWarnedOf(t *testing.T) {
	for code, warned := range map[int]bool{404: true, 410: true, 405: false, 401: false, 200: false, 503: false} {
		w := healthy()
		w.handlers[serverURL], w.handlers["POST "+serverURL] = status(code), status(code)
		got, err := w.search(t, Request{})
		if err != nil || (len(got.Warnings) == 1 && strings.Contains(got.Warnings[0], "server_url itself answers HTTP 404")) != warned {
			t.Errorf("%d: %+v %v", code, got, err)
		}
	}
}
