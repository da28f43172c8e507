package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	serverURL  = "https://mcp.example.com/mcp"
	challenged = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
	rooted     = "https://mcp.example.com/.well-known/oauth-protected-resource"
	issuer     = "https://as.example.com"
	oauthURL   = "https://as.example.com/.well-known/oauth-authorization-server"
	openidURL  = "https://as.example.com/.well-known/openid-configuration"
)

// world is an internet in memory. It has a handler for each URL without query; "POST " before the URL limits the
// handler to this method. Other URLs answer 404.
type world struct {
	handlers map[string]http.HandlerFunc
	asked    []string
}

func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Header.Get("Authorization") != "" || req.Header.Get("Cookie") != "" {
		return nil, errors.New("credentials were sent")
	}
	name := req.URL.Scheme + "://" + req.URL.Host + req.URL.EscapedPath()
	if req.Method != http.MethodGet {
		name = req.Method + " " + name
	}
	asked := name
	if req.URL.RawQuery != "" {
		asked += "?" + req.URL.RawQuery
	}
	w.asked = append(w.asked, asked)
	handler := w.handlers[name]
	if handler == nil {
		handler = http.NotFound
	}
	recorder := httptest.NewRecorder()
	if aborted := serve(handler, recorder, req); aborted {
		return nil, io.EOF
	}
	return recorder.Result(), nil
}

// serve reports whether the handler aborted its answer, as net/http's handlers do.
func serve(handler http.HandlerFunc, w http.ResponseWriter, req *http.Request) (aborted bool) {
	defer func() {
		if r := recover(); r != nil {
			if r != http.ErrAbortHandler {
				panic(r)
			}
			aborted = true
		}
	}()
	handler(w, req)
	return false
}

// answers is a handler that answers with a body.
func answers(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
}

// status is a handler that answers with a status, and with headers in pairs.
func status(code int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Add(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
	}
}

// challenges is an MCP server's handler for requests without a token.
func challenges(params string) http.HandlerFunc {
	return status(http.StatusUnauthorized, "WWW-Authenticate", strings.TrimSpace("Bearer "+params))
}

func resourceDoc(resource string, servers ...string) string {
	return fmt.Sprintf(`{"resource":%q,"authorization_servers":[%s],"scopes_supported":["read","write"]}`,
		resource, `"`+strings.Join(servers, `","`)+`"`)
}

func serverDoc(issuer string) string {
	return fmt.Sprintf(`{"issuer":%q,"token_endpoint":"%s/token"}`, issuer, strings.TrimSuffix(issuer, "/"))
}

// healthy is a world that follows the specifications.
func healthy() *world {
	return &world{handlers: map[string]http.HandlerFunc{
		serverURL:  challenges(`resource_metadata="` + challenged + `"`),
		challenged: answers(resourceDoc(serverURL, issuer)),
		oauthURL:   answers(serverDoc(issuer)),
	}}
}

// request is a search over the test's own network.
type request struct {
	Request
	network
}

func (r *request) Do(ctx context.Context) (*Result, error) { return r.Request.do(ctx, r.network) }

func (r *request) Look(ctx context.Context) (Published, error) { return r.Request.look(ctx, r.network) }

// search searches in the world, by default from the MCP server's URL.
func (w *world) search(t *testing.T, r Request) (*Result, error) {
	t.Helper()
	r.Timeout = 10 * time.Second
	if r.ServerURL == "" && r.Issuer == "" {
		r.ServerURL = serverURL
	}
	return r.do(t.Context(), network{base: w})
}

// errorOf returns the error of a search.
func errorOf[T any](_ T, err error) error { return err }

// wantIssuer checks that a search finds the issuer.
func (w *world) wantIssuer(t *testing.T, r Request, issuer string) {
	t.Helper()
	if got, err := w.search(t, r); err != nil || got.Issuer != issuer {
		t.Errorf("%+v, %v; want the issuer %s", got, err, issuer)
	}
}

func wantAsked(t *testing.T, asked []string, want ...string) {
	t.Helper()
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func wantTemporary(t *testing.T, err error, want bool) {
	t.Helper()
	if failed, ok := errors.AsType[*Error](err); !ok || failed.Temporary() != want {
		t.Errorf("%v: want an error that is temporary: %t", err, want)
	}
}

// wantAttempts is wantFailed without a result.
func wantAttempts(t *testing.T, err error, want ...string) {
	t.Helper()
	_ = wantFailed(t, err, want...)
}

// wantFailed checks that the search failed for exactly these reasons, each a line with a URL and a reason.
func wantFailed(t *testing.T, err error, want ...string) *Error {
	t.Helper()
	failed, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("%T %v", err, err)
	}
	var got []string
	for _, a := range failed.Attempts {
		got = append(got, a.URL+": "+a.Reason)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("attempts:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	what := "found no token endpoint"
	if failed.NoMetadata {
		what = "found no protected resource metadata (RFC 9728) of the MCP server"
	}
	if text := what + "\n  " + strings.Join(want, "\n  "); failed.Issuer == "" && err.Error() != text {
		t.Errorf("%s, want %s", err, text)
	}
	return failed
}
