package grant

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

const (
	userAgent = "vault-plugin-mcp-oauth"

	maxAnswer = 1 << 20  // bytes of an answer
	maxToken  = 64 << 10 // bytes of an access token, and of a scope: they are stored and go into headers
)

// normaliser is the http.RoundTripper between the library and the network. It reads and judges every answer itself.
// The library gets either a plain answer or a typed error, and so never makes its own errors, which contain requests
// and bodies.
//
// It serves one request.
type normaliser struct {
	base        http.RoundTripper
	clean       cleaner
	certificate bool              // the client authenticates with a certificate
	headers     map[string]string // of the operator
	// authorization replaces the library's header, which encodes a blank as "+" and lacks a raw form; "" keeps the
	// library's.
	authorization string
	begun         time.Time     // when the request began
	clock         clock         // set when there is an answer
	granted       grantedAnswer // set when RoundTrip succeeded
}

// grantedAnswer is a judged answer: a bearer token, its lifetime and its scope.
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
	if n.authorization != "" {
		req.Header.Set("Authorization", n.authorization)
	}
	for name, value := range n.headers {
		req.Header.Set(name, value)
	}
	req.GetBody = nil // http.Transport cannot send the request again without it

	resp, err := n.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	n.clock = newClock(n.begun, time.Now(), resp.Header)
	if resp.StatusCode < 200 || resp.StatusCode > 599 {
		return nil, n.unavailable(resp, "not an answer to a token request") // a 101's body never ends
	}
	if resp.StatusCode/100 == 3 {
		return nil, n.unavailable(resp, n.redirection(resp))
	}
	if resp.StatusCode == http.StatusProxyAuthRequired {
		return nil, &UnavailableError{Reason: reach.ProxyRefusal(resp.StatusCode)} // not the server's status
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if reach.Busy(resp.StatusCode) {
		// The status decides. The body may give a reason.
		a, _ := parseAnswer(resp.StatusCode, body)
		return nil, n.unavailable(resp, n.saying(a.reason))
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

// plain returns the answer for the library. The normaliser keeps the scope and the lifetime, which it reads more
// carefully.
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

// judge sets n.granted from a 2xx or 4xx answer, or returns its typed error.
func (n *normaliser) judge(resp *http.Response, body []byte) error {
	status := resp.StatusCode
	a, format := parseAnswer(status, body)
	if a.reason == (reason{}) {
		a.reason = challengeReason(resp.Header) // for servers that send an empty body
	}
	code, description := n.clean.reason(a.reason)
	switch {
	case busyCodes[code] && status != http.StatusUnauthorized: // ServiceNow's server_error is a wrong secret
		return n.unavailable(resp, n.saying(a.reason))
	case code != "" && (status >= 400 || a.failed):
		return &RefusedError{Status: status, Code: code, Description: description}
	case status == http.StatusUnauthorized, status == http.StatusForbidden,
		status >= 400 && description != "",
		status >= 400 && format == jsonObject && !a.blank && wrongPlace[status] == "":
		return &RefusedError{Status: status, Description: description}
	case status >= 400:
		return n.unavailable(resp, n.misplaced(status))
	case len(bytes.TrimSpace(body)) == 0:
		return n.unavailable(resp, "the answer is empty")
	case format == neither && bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")):
		return n.unavailable(resp, "the answer is a web page, not JSON: check token_url")
	case format == neither, format == jsonOther:
		return n.unavailable(resp, "the answer is not JSON")
	case a.accessToken == "":
		return n.unavailable(resp, joined("the answer holds no access_token", n.saying(a.reason)))
	}
	return n.accept(resp, a)
}

// busyCodes are the OAuth error codes of temporary failures: RFC 6749 section 4.1.2.1, RFC 8628 section
// 3.5, and the codes of rate limits with a status other than 429.
var busyCodes = map[string]bool{
	"temporarily_unavailable": true, "server_error": true, "slow_down": true, "too_many_requests": true,
	"rate_limit_exceeded": true,
}

// accept sets n.granted from an answer with a token, or returns an error if the token can't be handed out.
func (n *normaliser) accept(resp *http.Response, a answer) error {
	switch {
	case len(a.accessToken) > maxToken:
		return n.unusable(resp, "the access_token is longer than 64 KiB")
	case !bearer.MatchString(a.accessToken):
		return n.unusable(resp, "the access_token holds a blank, a quote, a backslash or another character that no bearer token has (RFC 6750 section 2.1)")
	// RFC 6749 section 5.1 requires token_type, but servers leave it out.
	case a.tokenType != "" && !bearerType.MatchString(a.tokenType):
		return n.unusable(resp, "token_type"+n.typeName(a.tokenType)+" is not usable as a bearer token")
	case len(a.scope) > maxToken:
		return n.unusable(resp, "the scope is longer than 64 KiB")
	}
	expiresIn, problem := leastLifetime(a.accessToken, a.lifetimes, n.clock)
	if problem != "" {
		return n.unusable(resp, problem)
	}
	n.granted = grantedAnswer{accessToken: a.accessToken, expiresIn: expiresIn, scope: a.scope, scopeSaid: a.scopeSaid}
	return nil
}

// misplaced returns the reason for an answer from a wrong URL.
func (n *normaliser) misplaced(status int) string {
	reason := "not an answer of a token endpoint"
	if said := wrongPlace[status]; said != "" {
		reason = said
	}
	reason += ": check token_url"
	if n.certificate {
		// Proxies in front of servers refuse a certificate with a web page.
		reason += " and client_certificate"
	}
	return reason
}

func (n *normaliser) unavailable(resp *http.Response, reason string) *UnavailableError {
	return &UnavailableError{
		Status:     resp.StatusCode,
		Reason:     reason,
		RetryAfter: retryAfter(resp.StatusCode, resp.Header, n.clock.answered),
	}
}

// unusable returns the error for a token that was issued but can't be handed out.
func (n *normaliser) unusable(resp *http.Response, reason string) *UnavailableError {
	unavailable := n.unavailable(resp, reason)
	unavailable.ofToken = true
	return unavailable
}

// saying returns a server's reason in words; "" without a reason.
func (n *normaliser) saying(r reason) string {
	return joined(n.clean.reason(r))
}

// joined returns "text: reason", or the non-empty one.
func joined(text, reason string) string {
	if text == "" || reason == "" {
		return text + reason
	}
	return text + ": " + reason
}

// redirection returns the reason for a redirect. It leaves out the parts of the location that may hold secrets:
// query, fragment, user information and path parameters (";jsessionid=").
func (n *normaliser) redirection(resp *http.Response) string {
	const advice = "set token_url to the final URL"
	to, err := resp.Location()
	if err != nil || to.Host == "" {
		return "redirected: " + advice
	}
	path, _, _ := strings.Cut(to.EscapedPath(), ";")
	return "redirected to " + n.clean.text(to.Scheme+"://"+to.Host+path) + "; " + advice
}

// typeName returns the server's token_type for an error, quoted after a space; "" if it is not safe to print.
func (n *normaliser) typeName(s string) string {
	if len(s) > maxCode || !tokenType.MatchString(s) || n.clean.hide(s) != s {
		return ""
	}
	return ` "` + s + `"`
}

var (
	// bearer matches a bearer token. RFC 6750's b64token is narrower, but some servers' tokens hold "!", "|"
	// or ":". Quotes and backslashes are refused: they would end or change a string in the configuration
	// files into which templates write tokens.
	bearer = regexp.MustCompile(`^[\x21\x23-\x26\x28-\x5B\x5D-\x7E]+$`)
	// bearerType is the token type of bearer tokens (RFC 6750 section 6.1.1), with the spellings of some servers.
	bearerType = regexp.MustCompile(`(?i)^\s*bearer[\s_-]*(token)?\s*$`)
	// tokenType is a token type: a name or a URI (RFC 6749 section 8.1).
	tokenType = regexp.MustCompile(`^[\w.:/-]+$`)
)
