package grant

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// Answers of real servers, and malformed ones.
func TestGoodAnswers(t *testing.T) {
	const year = 365 * 24 * time.Hour
	const js = "application/json"
	expires := func(v string) string { return `{"access_token":"at-1","token_type":"Bearer","expires_in":` + v + `}` }
	scope := func(v string) string { return `{"access_token":"at-1","token_type":"Bearer","scope":` + v + `}` }
	for _, tc := range []struct {
		name        string
		status      int
		contentType string
		body        string
		want        Token
	}{
		{"plain", 200, js, goodAnswer, Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"charset", 200, "application/json;charset=UTF-8", goodAnswer, Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"201", 201, js, goodAnswer, Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"JSON as text/plain", 200, "text/plain", goodAnswer, Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"JSON as text/html", 200, "text/html; charset=utf-8", goodAnswer, Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"JSON as a form", 200, "application/x-www-form-urlencoded", goodAnswer, Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"JSON as nothing", 200, "", goodAnswer, Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"JSON as rubbish", 200, ";;", goodAnswer, Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"JSON with byte order mark", 200, js, "\xEF\xBB\xBF\r\n" + goodAnswer + "\n", Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"form", 200, "application/x-www-form-urlencoded", "access_token=at%2B1&token_type=bearer&expires_in=60&scope=read\n", Token{"at+1", "read", time.Time{}, time.Minute}},
		{"form as text/plain", 200, "text/plain", "access_token=at-1&token_type=bearer", Token{"at-1", "read write", time.Time{}, 0}},
		{"form as nothing", 200, "", "access_token=at-1&expires_in=", Token{"at-1", "read write", time.Time{}, 0}},

		{"expires_in missing", 200, js, `{"access_token":"at-1","token_type":"Bearer"}`, Token{"at-1", "read write", time.Time{}, 0}},
		{"expires_in null", 200, js, expires(`null`), Token{"at-1", "read write", time.Time{}, 0}},
		{"expires_in zero", 200, js, expires(`0`), Token{"at-1", "read write", time.Time{}, 0}},
		{"expires_in negative", 200, js, expires(`-1`), Token{"at-1", "read write", time.Time{}, 0}},
		{"expires_in negative string", 200, js, expires(`"-3600"`), Token{"at-1", "read write", time.Time{}, 0}},
		{"expires_in empty", 200, js, expires(`""`), Token{"at-1", "read write", time.Time{}, 0}},
		{"expires_in string", 200, js, expires(`"3600"`), Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"expires_in string with space", 200, js, expires(`" 3600 "`), Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"expires_in one short", 200, js, expires(`3599`), Token{"at-1", "read write", time.Time{}, time.Hour - time.Second}},
		{"expires_in float", 200, js, expires(`3600.0`), Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"expires_in fraction", 200, js, expires(`59.5`), Token{"at-1", "read write", time.Time{}, 59*time.Second + 500*time.Millisecond}},
		{"expires_in under a second", 200, js, expires(`0.5`), Token{"at-1", "read write", time.Time{}, 500 * time.Millisecond}},
		{"expires_in exponent", 200, js, expires(`3.6e3`), Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"expires_in float string", 200, js, expires(`"3.6E+3"`), Token{"at-1", "read write", time.Time{}, time.Hour}},
		{"expires_in over 32 bits", 200, js, expires(`4294967296`), Token{"at-1", "read write", time.Time{}, year}},
		{"expires_in over 64 bits", 200, js, expires(`99999999999999999999999999`), Token{"at-1", "read write", time.Time{}, year}},
		{"expires_in over a double", 200, js, expires(`1e999`), Token{"at-1", "read write", time.Time{}, year}},

		{"scope granted", 200, js, scope(`"read"`), Token{"at-1", "read", time.Time{}, 0}},
		{"scope array", 200, js, scope(`["read","write","more"]`), Token{"at-1", "read write more", time.Time{}, 0}},
		{"scope null", 200, js, scope(`null`), Token{"at-1", "read write", time.Time{}, 0}},
		{"scope of another type", 200, js, scope(`7`), Token{"at-1", "read write", time.Time{}, 0}},
		{"scope granted: none", 200, js, scope(`""`), Token{"at-1", "", time.Time{}, 0}},
		{"scope granted: none, array", 200, js, scope(`[]`), Token{"at-1", "", time.Time{}, 0}},
		{"scope with control characters", 200, js, scope(`"  read\n\u0007bell x\u001by write "`), Token{"at-1", "read write", time.Time{}, 0}},

		{"token_type lower case", 200, js, `{"access_token":"at-1","token_type":"bearer"}`, Token{"at-1", "read write", time.Time{}, 0}},
		{"token_type upper case", 200, js, `{"access_token":"at-1","token_type":"BEARER"}`, Token{"at-1", "read write", time.Time{}, 0}},
		{"token_type missing", 200, js, `{"access_token":"at-1"}`, Token{"at-1", "read write", time.Time{}, 0}},
		{"token_type null", 200, js, `{"access_token":"at-1","token_type":null}`, Token{"at-1", "read write", time.Time{}, 0}},

		{"refresh_token that is not needed", 200, js, `{"access_token":"at-1","refresh_token":"rt","id_token":{"a":[1]}}`, Token{"at-1", "read write", time.Time{}, 0}},
		{"error null", 200, js, `{"access_token":"at-1","error":null,"error_description":null}`, Token{"at-1", "read write", time.Time{}, 0}},
		{"error empty", 200, js, `{"access_token":"at-1","error":""}`, Token{"at-1", "read write", time.Time{}, 0}},
		{"token beyond b64token", 200, js, `{"access_token":"a|b!c:#$%*,;<=>?@[]^_{}()\u0026\u0060~"}`, Token{"a|b!c:#$%*,;<=>?@[]^_{}()&`~", "read write", time.Time{}, 0}},
		{"token of 64 KiB", 200, js, `{"access_token":"` + strings.Repeat("a", maxToken) + `"}`, Token{strings.Repeat("a", maxToken), "read write", time.Time{}, 0}},
	} {
		r := newRequest(&network{handler: answering(tc.status, tc.contentType, tc.body)})
		r.Scopes = []string{"read", "write"}
		token, err := r.Do(t.Context())
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if !strings.Contains(token.RequestedAt.String(), " m=") {
			t.Errorf("%s: no monotonic reading in %v", tc.name, token.RequestedAt)
		}
		token.RequestedAt = time.Time{}
		if *token != tc.want {
			t.Errorf("%s: %.200v, want %.200v", tc.name, *token, tc.want)
		}
	}
}

// If the answer omits the granted scopes, a JWT may name them (RFC 9068 section 2.2.3). Authlib drops scopes that the
// client may not have, and names none if none is left.
func TestScopeThatTheTokenSays(t *testing.T) {
	for _, tc := range []struct {
		name   string
		claims map[string]any
		member string // in the answer
		want   string
	}{
		{"none granted", map[string]any{"scope": ""}, "", ""},
		{"one granted", map[string]any{"scope": "read"}, "", "read"},
		{"a list", map[string]any{"scope": []string{"read", "more"}}, "", "read more"},
		{"no claim", map[string]any{"scp": "read"}, "", "read write"},
		{"null", map[string]any{"scope": nil}, "", "read write"},
		{"of another type", map[string]any{"scope": 7}, "", "read write"},
		{"the answer says more", map[string]any{"scope": "read"}, `,"scope":"write"`, "write"},
	} {
		token := unsignedJWT(t, tc.claims)
		r := newRequest(&network{handler: answering(200, "", `{"token_type":"bearer","access_token":"`+token+`"`+tc.member+`}`)})
		r.Scopes = []string{"read", "write"}
		got, err := r.Do(t.Context())
		if err != nil || got.Scope != tc.want {
			t.Errorf("%s: %v, %v; want the scope %q", tc.name, got, err, tc.want)
		}
	}
}

func TestNoScopeAskedNoScopeSaid(t *testing.T) {
	token, err := newRequest(&network{handler: answering(200, "", goodAnswer)}).Do(t.Context())
	if err != nil || token.Scope != "" {
		t.Errorf("%v %v", token, err)
	}
}

func TestBadAnswers(t *testing.T) {
	const js = "application/json"
	const wrongEndpoint = "not an answer of a token endpoint: check token_url"
	busy := func(status int, reason string) error { return &UnavailableError{Status: status, Reason: reason} }
	useless := func(status int, reason string) error {
		return &UnavailableError{Status: status, Reason: reason, ofToken: true}
	}
	expires := func(v string) string { return `{"access_token":"at-1","expires_in":` + v + `}` }
	const badToken = "the access_token holds a blank, a quote, a backslash or another character that no bearer token has (RFC 6750 section 2.1)"
	const badExpiry = "the expires_in is neither a number of seconds from now nor a time"
	const noPost = "no POST is accepted there: check token_url"
	for _, tc := range []struct {
		name        string
		status      int
		contentType string
		body        string
		want        error
	}{
		{"refused", 401, js, `{"error":"invalid_client","error_description":"client authentication failed"}`, &RefusedError{Status: 401, Code: "invalid_client", Description: "client authentication failed"}},
		{"refused, JSON as text/plain", 400, "text/plain", `{"error":"invalid_scope"}`, &RefusedError{Status: 400, Code: "invalid_scope"}},
		{"refused, as a form", 400, "application/x-www-form-urlencoded", "error=invalid_target&error_description=no+such+resource", &RefusedError{Status: 400, Code: "invalid_target", Description: "no such resource"}},
		{"refused with 200", 200, js, `{"error":"invalid_client","access_token":"at-1"}`, &RefusedError{Status: 200, Code: "invalid_client"}},
		{"refused with 404", 404, js, `{"error":"invalid_request"}`, &RefusedError{Status: 404, Code: "invalid_request"}},
		{"401 without error", 401, "text/html", "<html>login</html>", &RefusedError{Status: 401}},
		{"403 without error", 403, "", "", &RefusedError{Status: 403}},
		{"401 with a bad code", 401, js, `{"error":"<script>\n","error_description":"x"}`, &RefusedError{Status: 401, Description: "x"}},
		{"403 with an error object", 403, js, `{"error":{"code":403,"message":"no"}}`, &RefusedError{Status: 403, Description: "no"}},
		{"description of another type", 400, js, `{"error":"invalid_request","error_description":{"a":1}}`, &RefusedError{Status: 400, Code: "invalid_request"}},

		{"a code of 0", 401, js, `{"code":0,"message":"no"}`, &RefusedError{Status: 401, Description: "no"}},
		{"a code with 200", 200, js, `{"code":"E1","message":"no"}`, busy(200, "the answer holds no access_token: E1: no")},
		{"a reason three deep", 401, js, `{"error":{"errors":[{"message":"no"}]}}`, &RefusedError{Status: 401, Description: "no"}},
		{"a reason too deep", 401, js, `{"error":{"error":{"error":{"error":{"message":"no"}}}}}`, &RefusedError{Status: 401}},
		{"400 without anything", 400, js, `{}`, busy(400, wrongEndpoint)},
		{"400 without error", 400, js, `{"ok":false}`, &RefusedError{Status: 400}},
		{"400 that is no JSON", 400, "text/plain", "no", busy(400, wrongEndpoint)},
		{"404 page of a framework", 404, js, `{"timestamp":"2026-01-01T00:00:00Z","status":404,"error":"Not Found","path":"/tokens"}`, busy(404, wrongEndpoint)},
		{"405 page of a framework", 405, js, `{"status":405,"error":"method not allowed"}`, busy(405, noPost)},
		{"401 page of a framework", 401, js, `{"status":401,"error":"Unauthorized"}`, &RefusedError{Status: 401}},
		{"401 in words, described", 401, js, `{"error":"Unauthorized","error_description":"no such client"}`, &RefusedError{Status: 401, Description: "no such client"}},
		{"400 in words", 400, js, `{"error":"Bad Request"}`, &RefusedError{Status: 400, Code: "Bad Request"}},
		{"404 page", 404, "text/html", "<html>not here</html>", busy(404, wrongEndpoint)},
		{"405", 405, "", "", busy(405, noPost)},
		{"407", 407, "", "", busy(0, reach.ProxyRefusal(407))},
		{"415", 415, "", "", busy(415, "no form is accepted there, which is how a token request is sent (RFC 6749 section 4.4.2); JSON is not supported: check token_url")},
		{"temporarily_unavailable", 400, js, `{"error":"temporarily_unavailable","error_description":"back at noon"}`, busy(400, "temporarily_unavailable: back at noon")},
		{"server_error with 200", 200, js, `{"error":"server_error"}`, busy(200, "server_error")},
		{"slow_down", 400, js, `{"error":"slow_down"}`, busy(400, "slow_down")},
		{"408", 408, "", "", busy(408, "")},
		{"429", 429, "text/plain", "too many", busy(429, "")},
		{"429 with an OAuth error", 429, js, `{"error":"access_denied","error_description":"rate limit"}`, busy(429, "access_denied: rate limit")},
		{"500 with an OAuth error", 500, js, `{"error":"invalid_client"}`, busy(500, "invalid_client")},
		{"503 page", 503, "text/html", "<html>down</html>", busy(503, "")},
		{"503 huge", 503, "text/html", strings.Repeat("x", maxAnswer+1), busy(503, "")},
		{"a status of its own", 999, js, goodAnswer, busy(999, "not an answer to a token request")},

		{"empty", 200, js, "", busy(200, "the answer is empty")},
		{"204", 204, "", "", busy(204, "the answer is empty")},
		{"blank", 200, js, " \n", busy(200, "the answer is empty")},
		{"web page", 200, "text/html", "<!doctype html><title>Login</title>", busy(200, "the answer is a web page, not JSON: check token_url")},
		{"words", 200, "text/plain", "OK", busy(200, "the answer is not JSON")},
		{"array", 200, js, `[` + goodAnswer + `]`, busy(200, "the answer is not JSON")},
		{"half", 200, js, goodAnswer[:30], busy(200, "the answer is not JSON")},
		{"two", 200, js, goodAnswer + goodAnswer, busy(200, "the answer is not JSON")},
		{"null", 200, js, `null`, busy(200, "the answer is not JSON")},
		{"too large", 200, js, goodAnswer + strings.Repeat(" ", maxAnswer), busy(200, "the answer is larger than 1 MiB")},
		{"4xx too large", 401, js, strings.Repeat(" ", maxAnswer+1), busy(401, "the answer is larger than 1 MiB")},

		{"no token", 200, js, `{}`, busy(200, "the answer holds no access_token")},
		{"token empty", 200, js, `{"access_token":""}`, busy(200, "the answer holds no access_token")},
		{"token null", 200, js, `{"access_token":null}`, busy(200, "the answer holds no access_token")},
		{"token number", 200, js, `{"access_token":7}`, busy(200, "the answer holds no access_token")},
		{"token object", 200, js, `{"access_token":{"a":1}}`, busy(200, "the answer holds no access_token")},
		{"token with space", 200, js, `{"access_token":"a b"}`, useless(200, badToken)},
		{"token with line break", 200, js, `{"access_token":"a\r\nSet-Cookie:x"}`, useless(200, badToken)},
		{"token with trailing line break", 200, js, `{"access_token":"a\n"}`, useless(200, badToken)},
		{"token with tab", 200, js, `{"access_token":"a\tb"}`, useless(200, badToken)},
		{"token with delete", 200, js, `{"access_token":"a\u007f"}`, useless(200, badToken)},
		{"token with quote", 200, js, `{"access_token":"a\"b"}`, useless(200, badToken)},
		{"token with apostrophe", 200, js, `{"access_token":"a'b"}`, useless(200, badToken)},
		{"token with backslash", 200, js, `{"access_token":"a\\b"}`, useless(200, badToken)},
		{"form token with quote", 200, "application/x-www-form-urlencoded", "access_token=a%22b", useless(200, badToken)},
		{"token not ASCII", 200, js, `{"access_token":"é"}`, useless(200, badToken)},
		{"token too long", 200, js, `{"access_token":"` + strings.Repeat("a", maxToken+1) + `"}`, useless(200, "the access_token is longer than 64 KiB")},
		{"scope too long", 200, js, `{"access_token":"a","scope":"` + strings.Repeat("a", maxToken+1) + `"}`, useless(200, "the scope is longer than 64 KiB")},

		{"DPoP", 200, js, `{"access_token":"at-1","token_type":"DPoP"}`, useless(200, `token_type "DPoP" is not usable as a bearer token`)},
		{"mac", 200, js, `{"access_token":"at-1","token_type":"mac"}`, useless(200, `token_type "mac" is not usable as a bearer token`)},
		{"N_A", 200, js, `{"access_token":"at-1","token_type":"N_A"}`, useless(200, `token_type "N_A" is not usable as a bearer token`)},
		{"token_type not printable", 200, js, `{"access_token":"at-1","token_type":"be\u0000arer"}`, useless(200, "token_type is not usable as a bearer token")},
		{"token_type of another type", 200, js, `{"access_token":"at-1","token_type":["Bearer"]}`, useless(200, "token_type is not usable as a bearer token")},

		{"expires_in hardly positive", 200, js, expires(`1e-12`), useless(200, badExpiry)},
		{"expires_in a word", 200, js, expires(`"never"`), useless(200, badExpiry)},
		{"expires_in NaN", 200, js, expires(`"NaN"`), useless(200, badExpiry)},
		{"expires_in Infinity", 200, js, expires(`"Infinity"`), useless(200, badExpiry)},
		{"expires_in hexadecimal", 200, js, expires(`"0x10"`), useless(200, badExpiry)},
		{"expires_in true", 200, js, expires(`true`), useless(200, badExpiry)},
		{"expires_in object", 200, js, expires(`{}`), useless(200, badExpiry)},
	} {
		token, err := newRequest(&network{handler: answering(tc.status, tc.contentType, tc.body)}).Do(t.Context())
		if token != nil || err == nil {
			t.Errorf("%s: %v, %v", tc.name, token, err)
			continue
		}
		switch want := tc.want.(type) {
		case *RefusedError:
			got, ok := err.(*RefusedError)
			if ok {
				got.Advice = "" // see TestAdviceFits
			}
			if !ok || *got != *want {
				t.Errorf("%s: %T %v, want %v", tc.name, err, err, want)
			}
		case *UnavailableError:
			if got, ok := err.(*UnavailableError); !ok || *got != *want {
				t.Errorf("%s: %T %#v, want %#v", tc.name, err, err, want)
			}
		}
	}
}

// responding makes a request whose answer has a body of any kind, which a recorder could not send.
func responding(status int, header http.Header, body io.ReadCloser) *request {
	return newRequest(roundTripper(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: header, Body: body, Request: req}, nil
	}))
}

func TestRetryAfterIsInTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for header, want := range map[string]time.Duration{
			"":    0,
			"120": 2 * time.Minute,
			time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat):  90 * time.Second,
			time.Now().Add(-90 * time.Second).UTC().Format(http.TimeFormat): 0,
		} {
			for _, status := range []int{400, 408, 429, 500, 503} {
				n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
					w.Header().Set("Retry-After", header)
					answering(status, "application/json", `{"error":"temporarily_unavailable"}`)(w, req)
				}}
				_, err := newRequest(n).Do(t.Context())
				if unavailable, ok := err.(*UnavailableError); !ok || unavailable.RetryAfter != want {
					t.Errorf("%d with %q: %#v, want %v", status, header, err, want)
				}
			}
		}
	})
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for in, want := range map[string]time.Duration{
			"":                     0,
			"0":                    0,
			" 30 ":                 30 * time.Second,
			"1.5":                  1500 * time.Millisecond,
			"-5":                   0,
			"30s":                  30 * time.Second,
			"00:00:30":             30 * time.Second,
			"1 minute":             time.Minute,
			"soon":                 0,
			"99999999999999999999": maxDuration,
			"-1e999":               0,
			"1e999":                maxDuration,
			now.Add(time.Hour).UTC().Format(http.TimeFormat):                         time.Hour,
			now.Add(time.Hour).UTC().Format("Monday, 02-Jan-06 15:04:05 GMT"):        time.Hour,
			now.Add(time.Hour).UTC().Format(time.ANSIC):                              time.Hour,
			now.Add(-time.Hour).UTC().Format(http.TimeFormat):                        0,
			now.Add(10 * maxDuration).UTC().Format(http.TimeFormat):                  maxDuration,
			"Mon, 01 Jan 0001 00:00:00 GMT":                                          0,
			"Fri, 31 Dec 9999 23:59:59 GMT":                                          maxDuration,
			now.Add(time.Hour).UTC().Format(http.TimeFormat) + ", then some rubbish": 0,
		} {
			if got := retryAfter(503, http.Header{"Retry-After": {in}}, now); got != want {
				t.Errorf("%q: %v, want %v", in, got, want)
			}
		}
	})
}

// brokenBody ends early, like a body on a broken connection.
type brokenBody struct{ closed bool }

func (b *brokenBody) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
func (b *brokenBody) Close() error             { b.closed = true; return nil }

func TestBodyThatBreaksOff(t *testing.T) {
	for status, want := range map[int]string{
		200: "connection closed before the answer was complete",
		401: "connection closed before the answer was complete",
		503: "HTTP 503",
		307: "redirected: set token_url to the final URL (HTTP 307)",
		101: "not an answer to a token request (HTTP 101)",
	} {
		body := &brokenBody{}
		if _, err := responding(status, nil, body).Do(t.Context()); err == nil || err.Error() != want {
			t.Errorf("%d: %v", status, err)
		}
		if !body.closed {
			t.Errorf("%d: body left open", status)
		}
	}
}

// FuzzAnswer checks that any answer is a valid token, or a typed and bounded error without the secret or the body.
func FuzzAnswer(f *testing.F) {
	for _, status := range []int{200, 204, 302, 400, 401, 404, 429, 503} {
		for _, body := range []string{
			goodAnswer,
			"access_token=at-1&expires_in=60",
			`{"error":"invalid_client","error_description":"no"}`,
			`{"error":{"a":1}}`,
			`{"access_token":"a","scope":["x"],"expires_in":"1e3"}`,
			"<html>",
			"",
		} {
			f.Add(status, "application/json", body, "30", "/x")
		}
	}
	for _, row := range reportedAnswers(f) {
		resp := row.response(f)
		body := must(io.ReadAll(resp.Body))(f)
		f.Add(resp.StatusCode, resp.Header.Get("Content-Type"), string(body), resp.Header.Get("Retry-After"), "")
	}
	f.Add(503, "text/html", "<html>"+testSecret, "Fri, 31 Dec 1999 23:59:59 GMT", "")
	f.Add(400, "text/plain", `{"error":"x","error_description":"p%+&=:/ \"é-correct-horse"}`, "-1", "")
	f.Add(302, "", testSecret, "1e400", "https://u:p@h/p;x?q#f")
	f.Fuzz(func(t *testing.T, status int, contentType, body, retryAfter, location string) {
		header := http.Header{
			"Content-Type": {contentType}, "Retry-After": {retryAfter}, "Location": {location},
			"Date": {location}, "Ratelimit": {retryAfter},
		}
		token, err := responding(status, header, io.NopCloser(strings.NewReader(body))).Do(t.Context())
		if err == nil {
			if !bearer.MatchString(token.AccessToken) || len(token.AccessToken) > maxToken ||
				token.ExpiresIn < 0 || token.ExpiresIn > maxDuration || token.RequestedAt.IsZero() ||
				len(token.Scope) > maxToken || status < 200 || status > 299 {
				t.Fatalf("%d %q: %+v", status, body, token)
			}
			return
		}
		if token != nil {
			t.Fatal("a token and an error")
		}
		switch e := err.(type) {
		case *RefusedError:
			if utf8.RuneCountInString(e.Description) > maxDescription || len(e.Code) > maxCode || e.Status != status {
				t.Fatalf("%#v", e)
			}
		case *UnavailableError:
			if e.RetryAfter < 0 || e.RetryAfter > maxDuration || e.Status != status && status != http.StatusProxyAuthRequired {
				t.Fatalf("%#v", e)
			}
		default:
			t.Fatalf("%T %v", err, err)
		}
		message := err.Error()
		if strings.Contains(message, testSecret) || strings.Contains(message, "query-secret") {
			t.Fatalf("a secret in %q", message)
		}
		if utf8.RuneCountInString(message) > 1200 || message != fold(message) {
			t.Fatalf("not fit for a log: %q", message)
		}
		if len(body) > 40 && status/100 != 3 && strings.Contains(message, body) {
			t.Fatalf("the body in %q", message)
		}
	})
}

// FuzzRetryAfter checks that the result is between 0 and a year.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "30", "1.5", "-5", "1e999", "-1e999", "soon", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"} {
		f.Add(s, int64(0))
	}
	f.Fuzz(func(t *testing.T, s string, unix int64) {
		if d := retryAfter(429, http.Header{"Retry-After": {s}, "Ratelimit": {s}}, time.Unix(unix, 0)); d < 0 || d > maxDuration {
			t.Errorf("%q at %d: %v", s, unix, d)
		}
	})
}

// The library gets only members that it cannot misread, so its own error types never occur.
func TestLibraryErrorsDoNotArise(t *testing.T) {
	n := &normaliser{
		base: roundTripper(func(req *http.Request) (*http.Response, error) {
			rec := httptest.NewRecorder()
			answering(200, "text/plain", `{"access_token":"at-1","expires_in":1e3}`)(rec, req)
			return rec.Result(), nil
		}),
		clean: newCleaner("weather", testSecret),
		begun: time.Now(),
	}
	resp := must(n.RoundTrip(httptest.NewRequest(http.MethodPost, "https://as.example.com/token", nil)))(t)
	body, err := io.ReadAll(resp.Body)
	noError(t, errors.Join(err, resp.Body.Close()))
	if got := string(body); got != `{"access_token":"at-1","token_type":"Bearer"}` || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s", got)
	}
}

// A server may return the client's secret as the token type.
func TestTokenTypeThatHoldsASecretIsNotRepeated(t *testing.T) {
	n := &normaliser{clean: newCleaner("client", "s3cr3t-word")}
	for said, want := range map[string]string{"mac": ` "mac"`, "s3cr3t-word": "", "two words": ""} {
		if got := n.typeName(said); got != want {
			t.Errorf("token_type %q is reported as %q, want %q", said, got, want)
		}
	}
}
