package grant

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const testSecret = "p%+&=:/ \"é-correct-horse"

// network sends requests to a handler in memory and counts them.
type network struct {
	handler http.HandlerFunc
	count   int
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	n.count++
	rec := httptest.NewRecorder()
	n.handler(rec, req)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}

// hang does not answer before the request's context ends. A server notices a closed connection only after it has read
// the body.
func hang(_ http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	<-req.Context().Done()
}

// answering answers every request alike.
func answering(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil // unless given, absent: the recorder must not guess it
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	}
}

// request is a token request over the test's own transport; nil stands for the package's.
type request struct {
	Request
	over http.RoundTripper
}

func (r *request) Do(ctx context.Context) (*Token, error) {
	if r.over == nil {
		return r.Request.Do(ctx)
	}
	return r.Request.over(ctx, r.over)
}

func newRequest(over http.RoundTripper) *request {
	return &request{over: over, Request: Request{
		TokenURL:     "https://as.example.com/token?key=query-secret",
		ClientID:     "weather",
		AuthMethod:   ClientSecretBasic,
		ClientSecret: testSecret,
		Timeout:      10 * time.Second,
	}}
}

const goodAnswer = `{"access_token":"at-1","token_type":"Bearer","expires_in":3600}`

var granted = answering(200, "application/json", goodAnswer)

// sent makes a request, which must succeed, and returns the request that the authorization server received.
func sent(t *testing.T, r *request) *http.Request {
	t.Helper()
	var got *http.Request
	n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
		if err := req.ParseForm(); err != nil {
			t.Error(err)
		}
		got = req
		granted(w, req)
	}}
	r.over = n
	if _, err := r.Do(t.Context()); err != nil || n.count != 1 {
		t.Fatalf("%d requests, %v", n.count, err)
	}
	return got
}

// wantNotSent makes a request, which must fail before it is sent.
func wantNotSent(t *testing.T, r *request, want string) {
	t.Helper()
	n := &network{handler: granted}
	r.over = n
	_, err := r.Do(t.Context())
	if _, ok := err.(*UnavailableError); !ok || err.Error() != want || n.count != 0 {
		t.Errorf("%d requests, %T %v; want %s", n.count, err, err, want)
	}
}

func TestRequestSendsItsFields(t *testing.T) {
	r := newRequest(nil)
	r.Scopes = []string{"read", "write"}
	r.Resources = []string{"https://b.example.com/mcp", "https://a.example.com/mcp"}
	r.Audience = "aud"
	r.ExtraParams = map[string]string{"tenant": "t 1"}
	req := sent(t, r)
	for header, want := range map[string]string{
		"Accept":       "application/json",
		"User-Agent":   "vault-plugin-mcp-oauth",
		"Content-Type": "application/x-www-form-urlencoded",
	} {
		if got := req.Header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	if req.Method != http.MethodPost || req.URL.String() != "https://as.example.com/token?key=query-secret" {
		t.Errorf("%s %s", req.Method, req.URL)
	}
	want := url.Values{
		"grant_type": {"client_credentials"},
		"scope":      {"read write"},
		"resource":   {"https://b.example.com/mcp", "https://a.example.com/mcp"},
		"audience":   {"aud"},
		"tenant":     {"t 1"},
	}
	if req.PostForm.Encode() != want.Encode() {
		t.Errorf("sent %v, want %v", req.PostForm, want)
	}
}

func TestEmptyOptionsAreNotSent(t *testing.T) {
	if got := sent(t, newRequest(nil)).PostForm.Encode(); got != "grant_type=client_credentials" {
		t.Errorf("sent %s", got)
	}
}

// RFC 6749 section 2.3.1: id and secret are form-encoded for Basic credentials, so a colon in the id does not end it.
// A blank is %20, which means the same in forms and in percent-encoding.
func TestBasicFormEncodesIDAndSecret(t *testing.T) {
	const id = `we:at/her +%&="é`
	r := newRequest(nil)
	r.ClientID = id
	req := sent(t, r)
	user, pass, ok := req.BasicAuth()
	for name, decode := range map[string]func(string) (string, error){"form": url.QueryUnescape, "percent": url.PathUnescape} {
		gotID, err1 := decode(user)
		gotSecret, err2 := decode(pass)
		if !ok || err1 != nil || err2 != nil || gotID != id || gotSecret != testSecret {
			t.Errorf("%s: basic %q %q", name, user, pass)
		}
	}
	if strings.ContainsAny(user+pass, `:/ "é&=+`) {
		t.Errorf("reserved characters in the clear: %q %q", user, pass)
	}
	if req.PostForm.Has("client_secret") || req.PostForm.Has("client_id") {
		t.Errorf("credentials in the body too: %v", req.PostForm)
	}
}

func TestRawBasicIsNotEncoded(t *testing.T) {
	r := newRequest(nil)
	r.ClientID, r.RawBasicAuth = "we/at her+é", true
	if user, pass, ok := sent(t, r).BasicAuth(); !ok || user != "we/at her+é" || pass != testSecret {
		t.Errorf("basic %q %q", user, pass)
	}
}

func TestExtraHeadersAreSent(t *testing.T) {
	n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
		for name, want := range map[string]string{
			"X-Api-Key": "k-1234", "Ocp-Apim-Subscription-Key": "s, 5 6", "User-Agent": "broker/1", "Accept": "application/json",
		} {
			if got := req.Header[name]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		answering(401, "application/json", `{"message":"the key k-1234 is unknown, or s, 5 6"}`)(w, req)
	}}
	r := newRequest(n)
	r.ExtraHeaders = map[string]string{"x-api-key": "k-1234", "Ocp-Apim-Subscription-Key": "s, 5 6", "user-agent": "broker/1"}
	_, err := r.Do(t.Context())
	if refused, ok := err.(*RefusedError); !ok || refused.Description != "the key [redacted] is unknown, or [redacted]" {
		t.Errorf("%v", err)
	}
}

func TestCheckHeader(t *testing.T) {
	for _, tc := range []struct{ name, value, want string }{
		{"x-api-key", "k", ""},
		{"User-Agent", "Mozilla/5.0 (X11)", ""},
		{"Cookie", "a=b; c=\"d\"", ""},
		{"authorization", "Bearer x", "leave Authorization out: extra_headers can't hold it"},
		{"HOST", "h", "leave Host out: extra_headers can't hold it"},
		{"content-type", "x", "leave Content-Type out: extra_headers can't hold it"},
		{"Content-Length", "1", "leave Content-Length out: extra_headers can't hold it"},
		{"transfer-encoding", "chunked", "leave Transfer-Encoding out: extra_headers can't hold it"},
		{"Proxy-Authorization", "Basic x", "leave Proxy-Authorization out: extra_headers can't hold it"},
		{"connection", "close", "leave Connection out: extra_headers can't hold it"},
		{"", "x", "a header's name consists of letters, digits and hyphens (RFC 9110 section 5.1): write name=value"},
		{"x y", "x", "a header's name consists of letters, digits and hyphens (RFC 9110 section 5.1): write name=value"},
		{"x:", "x", "a header's name consists of letters, digits and hyphens (RFC 9110 section 5.1): write name=value"},
		{"x-\u017fecret", "x", "a header's name consists of letters, digits and hyphens (RFC 9110 section 5.1): write name=value"},
		{"x-key", "", "the value of X-Key must be printable ASCII characters, without blanks around them"},
		{"x-key", "a\r\nb: c", "the value of X-Key must be printable ASCII characters, without blanks around them"},
		{"x-key", "k\n", "the value of X-Key must be printable ASCII characters, without blanks around them"},
		{"x-key", " k", "the value of X-Key must be printable ASCII characters, without blanks around them"},
		{"x-key", "é", "the value of X-Key must be printable ASCII characters, without blanks around them"},
	} {
		err := CheckHeader(tc.name, tc.value)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || err.Error() != tc.want) {
			t.Errorf("%q %q: %v, want %q", tc.name, tc.value, err, tc.want)
		}
	}
}

func TestPostSendsCredentialsInTheBodyOnly(t *testing.T) {
	r := newRequest(nil)
	r.AuthMethod = ClientSecretPost
	req := sent(t, r)
	if req.PostForm.Get("client_id") != "weather" || req.PostForm.Get("client_secret") != testSecret {
		t.Errorf("sent %v", req.PostForm)
	}
	if req.Header.Get("Authorization") != "" {
		t.Error("an Authorization header as well")
	}
}

// The library's auto-detection would send the secret again, by the other method.
func TestEveryFailureIsOneRequest(t *testing.T) {
	for _, method := range []AuthMethod{ClientSecretBasic, ClientSecretPost} {
		for name, handler := range map[string]http.HandlerFunc{
			"refused":  answering(401, "application/json", `{"error":"invalid_client"}`),
			"busy":     answering(503, "text/html", "<html>"),
			"nonsense": answering(200, "text/html", "<html>"),
			"redirect": http.RedirectHandler("https://other.example.com/", 307).ServeHTTP,
		} {
			n := &network{handler: handler}
			r := newRequest(n)
			r.AuthMethod = method
			if _, err := r.Do(t.Context()); err == nil {
				t.Errorf("%s %s: no error", method, name)
			}
			if n.count != 1 {
				t.Errorf("%s %s: %d requests", method, name, n.count)
			}
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	const advice = "set token_url to the final URL"
	for _, status := range []int{301, 302, 303, 307, 308} {
		for location, want := range map[string]string{
			"https://u:pw@other.example.com/v2/token;jsessionid=s1?session=s2#s3": "redirected to https://other.example.com/v2/token; " + advice,
			"/v2/token?session=s2": "redirected to https://as.example.com/v2/token; " + advice,
			"":                     "redirected: " + advice,
			":":                    "redirected: " + advice,
		} {
			n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Host != "as.example.com" {
					t.Errorf("followed to %s", req.URL)
				}
				w.Header().Set("Location", location)
				w.WriteHeader(status)
			}}
			_, err := newRequest(n).Do(t.Context())
			unavailable, ok := err.(*UnavailableError)
			if !ok || unavailable.Status != status || unavailable.Reason != want {
				t.Errorf("%d to %q: %v", status, location, err)
			}
			if n.count != 1 {
				t.Errorf("%d requests", n.count)
			}
		}
	}
}

func TestLifetimeCountsFromTheStartOfTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
			time.Sleep(7 * time.Second) // in the bubble's time
			granted(w, req)
		}}
		start := time.Now()
		token := must(newRequest(n).Do(t.Context()))(t)
		if !token.RequestedAt.Equal(start) || token.ExpiresIn != time.Hour || time.Since(start) != 7*time.Second {
			t.Errorf("requested at %v for %v, began at %v", token.RequestedAt, token.ExpiresIn, start)
		}
	})
}

func TestTimeoutBoundsTheWholeRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := newRequest(&network{handler: hang}).Do(t.Context())
		if unavailable, ok := err.(*UnavailableError); !ok || unavailable.Error() != "timed out after 10s" || unavailable.Status != 0 {
			t.Errorf("%T %v", err, err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestCallersContextEndsTheRequestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		start := time.Now()
		_, err := newRequest(&network{handler: hang}).Do(ctx)
		if took := time.Since(start); err != context.Canceled || took != 3*time.Second {
			t.Errorf("%T %v after %v", err, err, took)
		}
		n := &network{handler: hang}
		if _, err := newRequest(n).Do(ctx); err != context.Canceled || n.count != 0 {
			t.Errorf("with an ended context: %v, %d requests", err, n.count)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := newRequest(&network{handler: hang}).Do(ctx); err != context.DeadlineExceeded {
			t.Errorf("%T %v", err, err)
		}
	})
}

// A complete answer counts even if the caller left while it was read.
func TestRefusalOutlivesTheCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := newRequest(roundTripper(func(req *http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		answering(400, "application/json", `{"error":"invalid_scope"}`)(rec, req)
		cancel()
		return rec.Result(), nil
	}))
	if _, err := r.Do(ctx); err == nil || err.Error() != "invalid_scope (HTTP 400); no scope was asked for: write scopes=" {
		t.Errorf("%v", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestUnsendableRequestsAreNotSent(t *testing.T) {
	const absolute = "token_url must be an absolute https URL without user information"
	for name, tc := range map[string]struct {
		change func(*request)
		want   string
	}{
		"no method":      {func(r *request) { r.AuthMethod = "" }, `token_endpoint_auth_method "" is not supported: use client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth or self_signed_tls_client_auth`},
		"other method":   {func(r *request) { r.AuthMethod = "none" }, `token_endpoint_auth_method "none" is not supported: use client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth or self_signed_tls_client_auth`},
		"reserved param": {func(r *request) { r.ExtraParams = map[string]string{"grant_type": "password"} }, `extra_params must not hold "grant_type"`},
		"Authorization":  {func(r *request) { r.ExtraHeaders = map[string]string{"authorization": "Basic x"} }, "extra_headers: leave Authorization out: extra_headers can't hold it"},
		"raw colon":      {func(r *request) { r.ClientID, r.RawBasicAuth = "a:b", true }, "raw_basic_auth does not go with a client_id that holds a colon, which ends it (RFC 7617 section 2)"},
		"no URL":         {func(r *request) { r.TokenURL = "" }, absolute},
		"broken URL":     {func(r *request) { r.TokenURL = "https://as\x00.example.com" }, absolute},
		"relative URL":   {func(r *request) { r.TokenURL = "/token" }, absolute},
		"userinfo":       {func(r *request) { r.TokenURL = "https://u:pw@as.example.com/token" }, absolute},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(nil)
			tc.change(r)
			wantNotSent(t, r, tc.want)
		})
	}
	r := newRequest(nil)
	r.CACert = "x"
	wantFailure(t, r, `ca_cert must hold certificates in PEM form ("-----BEGIN CERTIFICATE-----"); with the vault command, ca_cert=@ca.pem reads a file`)
}

func TestErrorsAreNeverWrapped(t *testing.T) {
	_, err := newRequest(roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("query-secret " + testSecret)
	})).Do(t.Context())
	if err == nil || err.Error() != "the request failed" || errors.Unwrap(err) != nil {
		t.Errorf("%v", err)
	}
}

func TestReservedParams(t *testing.T) {
	for _, param := range []string{
		"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "scope",
		"resource", "audience", "assertion", "refresh_token", "password", "Client_Secret", " scope ",
	} {
		if !IsReserved(param) {
			t.Errorf("%q is free", param)
		}
	}
	for _, param := range []string{"tenant", "organization", "authorization_details", "requested_token_type", ""} {
		if IsReserved(param) {
			t.Errorf("%q is reserved", param)
		}
	}
}
