package grant

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

const (
	userAgent = "vault-plugin-mcp-oauth"

	maxAnswer   = 1 << 20  // bytes of an answer
	maxToken    = 64 << 10 // bytes of an access token, and of a scope: they are stored and go into headers
	maxDuration = 365 * 24 * time.Hour
)

// normaliser is the http.RoundTripper between the library and the network. It reads and judges every
// answer itself. The library sees either a plain answer that it cannot misread, or an error that is
// already typed, so that its own errors, which carry requests and bodies, do not arise.
//
// It serves one request.
type normaliser struct {
	base        http.RoundTripper
	clean       cleaner
	certificate bool          // the client authenticates with a certificate
	granted     grantedAnswer // set when RoundTrip succeeded
}

// grantedAnswer is a judged answer: a bearer token and what was said about it.
type grantedAnswer struct {
	accessToken string
	expiresIn   time.Duration
	scope       string
	scopeSaid   bool
}

// RoundTrip sends the request once and returns a normalised answer, a *RefusedError, an
// *UnavailableError, or the transport's own error.
func (n *normaliser) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	req.GetBody = nil // what http.Transport would need to send the request again

	resp, err := n.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 599 {
		return nil, n.unavailable(resp, "not an answer to a token request") // a 101's body never ends
	}
	if resp.StatusCode/100 == 3 {
		return nil, n.unavailable(resp, n.redirection(resp))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if reach.Busy(resp.StatusCode) {
		// The status says it; of the body only an OAuth error is of interest, if there is one.
		a, _ := parseAnswer(body)
		return nil, n.unavailable(resp, n.saying(a))
	}
	if err != nil {
		return nil, err
	}
	if len(body) > maxAnswer {
		return nil, n.unavailable(resp, "the answer is larger than 1 MiB")
	}
	if err := n.judge(resp, body); err != nil {
		return nil, err
	}
	return plain(resp, n.granted.accessToken)
}

// plain is the answer for the library: what the server said about scope and lifetime stays with the
// normaliser, which has read it more carefully.
func plain(resp *http.Response, accessToken string) (*http.Response, error) {
	body, err := json.Marshal(map[string]string{"access_token": accessToken, "token_type": "Bearer"})
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status:        http.StatusText(http.StatusOK),
		StatusCode:    http.StatusOK,
		Proto:         resp.Proto,
		ProtoMajor:    resp.ProtoMajor,
		ProtoMinor:    resp.ProtoMinor,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       resp.Request,
	}, nil
}

// judge sets n.granted from a 2xx or 4xx answer, or returns the typed error that the answer is.
func (n *normaliser) judge(resp *http.Response, body []byte) error {
	a, understood := parseAnswer(body)
	status := resp.StatusCode
	code := n.clean.code(a.errorCode)
	if status != http.StatusBadRequest && strings.EqualFold(code, http.StatusText(status)) {
		code = "" // the status in words, of a framework's own error page in JSON
	}
	switch {
	case code == "temporarily_unavailable", code == "server_error", code == "slow_down":
		return n.unavailable(resp, n.saying(a)) // RFC 6749 section 4.1.2.1, RFC 8628 section 3.5
	case code != "":
		return &RefusedError{Status: status, Code: code, Description: n.clean.text(a.description)}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return &RefusedError{Status: status, Description: n.clean.text(a.description)}
	case status >= 400 && n.certificate:
		// Proxies in front of servers answer a certificate that they refuse with a page.
		return n.unavailable(resp, "not an answer of a token endpoint: check token_url and client_certificate")
	case status >= 400:
		return n.unavailable(resp, "not an answer of a token endpoint: check token_url")
	case len(bytes.TrimSpace(body)) == 0:
		return n.unavailable(resp, "the answer is empty")
	case !understood && bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")):
		return n.unavailable(resp, "the answer is a web page, not JSON: check token_url")
	case !understood:
		return n.unavailable(resp, "the answer is not JSON")
	case a.accessToken == "":
		return n.unavailable(resp, "the answer holds no access_token")
	case len(a.accessToken) > maxToken:
		return n.unusable(resp, "the access_token is longer than 64 KiB")
	case !bearer.MatchString(a.accessToken):
		return n.unusable(resp, "the access_token holds a blank, a quote, a backslash or another character that no bearer token has (RFC 6750 section 2.1)")
	// RFC 6749 section 5.1 requires token_type, but servers leave it out.
	case a.tokenType != "" && !strings.EqualFold(a.tokenType, "bearer"):
		return n.unusable(resp, "token_type"+n.typeName(a.tokenType)+" is not usable as a bearer token")
	case len(a.scope) > maxToken:
		return n.unusable(resp, "the scope is longer than 64 KiB")
	}
	expiresIn, ok := lifetime(a.expiresIn)
	if !ok {
		return n.unusable(resp, "the expires_in is not a number of seconds from now")
	}
	n.granted = grantedAnswer{accessToken: a.accessToken, expiresIn: expiresIn, scope: a.scope, scopeSaid: a.scopeSaid}
	return nil
}

func (n *normaliser) unavailable(resp *http.Response, reason string) *UnavailableError {
	return &UnavailableError{
		Status:     resp.StatusCode,
		Reason:     reason,
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}

// unusable is the error of a token that was issued and can't be handed out.
func (n *normaliser) unusable(resp *http.Response, reason string) *UnavailableError {
	unavailable := n.unavailable(resp, reason)
	unavailable.ofToken = true
	return unavailable
}

// saying is the OAuth error of an answer in words; "" if it has none.
func (n *normaliser) saying(a answer) string {
	code, description := n.clean.code(a.errorCode), n.clean.text(a.description)
	if code != "" && description != "" {
		return code + ": " + description
	}
	return code
}

// redirection says where to without what may be secret: query, fragment, user information and path
// parameters (";jsessionid=") are left out.
func (n *normaliser) redirection(resp *http.Response) string {
	const advice = "set token_url to the final URL"
	to, err := resp.Location()
	if err != nil || to.Host == "" {
		return "redirected: " + advice
	}
	path, _, _ := strings.Cut(to.EscapedPath(), ";")
	return "redirected to " + n.clean.text(to.Scheme+"://"+to.Host+path) + "; " + advice
}

// typeName is a foreign token_type for an error, quoted after a space; "" if it is not fit to print.
func (n *normaliser) typeName(s string) string {
	if len(s) > maxCode || !tokenType.MatchString(s) || n.clean.hide(s) != s {
		return ""
	}
	return ` "` + s + `"`
}

var (
	// visible is what a scope may hold to be shown.
	visible = regexp.MustCompile(`^[\x21-\x7E]+$`)
	// bearer is what a bearer token may hold. RFC 6750's b64token is narrower, but not all servers' tokens
	// keep to it: they hold "!", "|" or ":". Quotes and backslashes would end or change a string of the
	// configuration files that templates write tokens into.
	bearer = regexp.MustCompile(`^[\x21\x23-\x26\x28-\x5B\x5D-\x7E]+$`)
	// tokenType is a token type: a name or a URI (RFC 6749 section 8.1).
	tokenType = regexp.MustCompile(`^[\w.:/-]+$`)
)

// answer is what a token endpoint said (RFC 6749 sections 5.1 and 5.2), read but not judged. A
// parameter that is missing, null or of a useless type is "".
type answer struct {
	accessToken string
	tokenType   string
	expiresIn   string // a JSON number as written, or the text of a string
	scope       string // space-delimited
	scopeSaid   bool
	errorCode   string
	description string
}

// parseAnswer reads JSON or a form, whatever the content type: servers send JSON as text/plain,
// text/html and even as a form. ok is false if the body is neither.
func parseAnswer(body []byte) (a answer, ok bool) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xEF\xBB\xBF")))
	if bytes.HasPrefix(body, []byte("{")) {
		return parseJSON(body)
	}
	return parseForm(string(body))
}

func parseJSON(body []byte) (answer, bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return answer{}, false
	}
	var a answer
	a.accessToken, _ = text(fields["access_token"])
	a.errorCode, _ = text(fields["error"])
	a.description, _ = text(fields["error_description"])
	// Of another type these two are not the same as missing: keep what is there, to be refused.
	var isText bool
	if a.tokenType, isText = text(fields["token_type"]); !isText {
		a.tokenType = string(fields["token_type"])
	}
	if a.expiresIn, isText = text(fields["expires_in"]); !isText {
		a.expiresIn = string(fields["expires_in"])
	}
	var list []string
	if s, isText := text(fields["scope"]); isText {
		a.scope, a.scopeSaid = scopes(s), fields["scope"] != nil && string(fields["scope"]) != "null"
	} else if json.Unmarshal(fields["scope"], &list) == nil {
		a.scope, a.scopeSaid = scopes(strings.Join(list, " ")), true
	}
	return a, true
}

// text is the string in raw, "" for null and for a field that is missing. ok is false for other types.
func text(raw json.RawMessage) (s string, ok bool) {
	if raw == nil {
		return "", true
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// parseForm reads the answer as the form that a few servers send instead of JSON.
func parseForm(body string) (answer, bool) {
	v, err := url.ParseQuery(body)
	if err != nil || !v.Has("access_token") && !v.Has("error") {
		return answer{}, false
	}
	return answer{
		accessToken: v.Get("access_token"),
		tokenType:   v.Get("token_type"),
		expiresIn:   v.Get("expires_in"),
		scope:       scopes(v.Get("scope")),
		scopeSaid:   v.Has("scope"),
		errorCode:   v.Get("error"),
		description: v.Get("error_description"),
	}, true
}

// scopes folds white space and drops what cannot be a scope: this is shown to brokers.
func scopes(s string) string {
	var kept []string
	for _, scope := range strings.Fields(s) {
		if visible.MatchString(scope) {
			kept = append(kept, scope)
		}
	}
	return strings.Join(kept, " ")
}

// lifetime reads an expires_in: whole seconds by RFC 6749, but a fraction, an exponent or an empty
// string at some servers. 0 means that the server did not say. ok is false for what is no number and
// for a token that is already dead.
func lifetime(s string) (d time.Duration, ok bool) {
	if s = strings.TrimSpace(s); s == "" {
		return 0, true
	}
	if !number.MatchString(s) {
		return 0, false
	}
	seconds, _ := strconv.ParseFloat(s, 64) // out of range is an infinity, which is what it should be
	d = duration(seconds)
	return d, d > 0 || seconds == 0
}

// number is a JSON number, or one with a sign or leading zeros.
var number = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// retryAfter reads a Retry-After header, seconds or a date (RFC 9110 section 10.2.3), as a duration
// from now. What is missing, unreadable or past is 0.
func retryAfter(s string, now time.Time) time.Duration {
	if s = strings.TrimSpace(s); number.MatchString(s) {
		seconds, _ := strconv.ParseFloat(s, 64)
		return duration(seconds)
	}
	date, err := http.ParseTime(s)
	if err != nil {
		return 0
	}
	return min(max(0, date.Sub(now)), maxDuration)
}

// duration is seconds as a time.Duration from 0 to maxDuration, which keeps clear of overflow.
func duration(seconds float64) time.Duration {
	return time.Duration(math.Max(0, math.Min(seconds, maxDuration.Seconds())) * float64(time.Second))
}
