package grant

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestErrorTexts(t *testing.T) {
	for want, err := range map[string]error{
		"invalid_client: client authentication failed (HTTP 401)": &RefusedError{Status: 401, Code: "invalid_client", Description: "client authentication failed"},
		"invalid_scope (HTTP 400)":                                &RefusedError{Status: 400, Code: "invalid_scope"},
		"refused without an OAuth error code (HTTP 403)":          &RefusedError{Status: 403},
		"connection refused":                                      &UnavailableError{Reason: "connection refused"},
		"HTTP 503":                                                &UnavailableError{Status: 503},
		"the answer is empty (HTTP 200)":                          &UnavailableError{Status: 200, Reason: "the answer is empty"},
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err.Error(), want)
		}
	}
}

func TestDescriptionIsCleaned(t *testing.T) {
	const clientID = "Xk3mQ9vTz7LbW2nRp5sYc8dFg4hJ6aEu" // as long as a token
	c := newCleaner(clientID, testSecret)
	basic := base64.StdEncoding.EncodeToString([]byte(clientID + ":" + url.QueryEscape(testSecret)))
	rawBasic := base64.StdEncoding.EncodeToString([]byte(clientID + ":" + testSecret))
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ3In0.c2lnbmF0dXJl"
	for in, want := range map[string]string{
		"client authentication failed": "client authentication failed",
		"":                             "",
		" two\r\n\tlines\x00 and \x1b[31mcolour\u202e ":  "two lines and [31mcolour",
		"secret " + testSecret + " is wrong":             "secret [redacted] is wrong",
		"client_secret=" + url.QueryEscape(testSecret):   "client_secret=[redacted]",
		"secret " + url.PathEscape(testSecret):           "secret [redacted]",
		strings.ToLower(url.QueryEscape(testSecret)):     "[redacted]",
		`p%+&amp;=:/ &#34;é-correct-horse`:               "[redacted]",
		`{"s":"p%+&=:/ \"é-correct-horse"}`:              `{"s":"[redacted]"}`,
		"p%+&=:/ \n\"é-correct-horse":                    "[redacted]",
		"Basic " + basic:                                 "Basic [redacted]",
		"Basic " + rawBasic:                              "Basic [redacted]",
		"bad assertion " + jwt + ", replayed":            "bad assertion [redacted], replayed",
		"token 8f14e45fceea167a5a36dedd4bea2543 unknown": "token [redacted] unknown",
		"Client '" + clientID + "' not found":            "Client '" + clientID + "' not found",
		"Trace ID: 6c2b1c34-6f5e-4a3c-9d1e-0f1e2d3c4b5a": "Trace ID: 6c2b1c34-6f5e-4a3c-9d1e-0f1e2d3c4b5a",
		"see https://as.example.com/docs/oauth2/errors":  "see https://as.example.com/docs/oauth2/errors",
		"the-quick-brown-fox-jumps-over-the-lazy-dog":    "the-quick-brown-fox-jumps-over-the-lazy-dog",
		strings.Repeat("é ", 600):                        strings.Repeat("é ", 299) + "é…",
	} {
		got := c.text(in)
		if got != want {
			t.Errorf("%q\n got %q\nwant %q", in, got, want)
		}
	}
	// A secret across the cut is redacted before the text is cut.
	if got := c.text(strings.Repeat("x ", 297) + testSecret); strings.Contains(got, "p%") || utf8.RuneCountInString(got) != maxDescription {
		t.Errorf("%q", got)
	}
}

func TestErrorCodeIsForeignInput(t *testing.T) {
	c := newCleaner("weather", "s3cret-s3cret")
	for in, want := range map[string]string{
		"invalid_client":          "invalid_client",
		"urn:as:error/7000215":    "urn:as:error/7000215",
		"Not quite a code":        "Not quite a code",
		"":                        "",
		" ":                       "",
		`quo"te`:                  "",
		`back\slash`:              "",
		"two\nlines":              "",
		"é":                       "",
		"s3cret-s3cret":           "",
		"bad-s3cret-s3cret":       "",
		strings.Repeat("e", 64):   strings.Repeat("e", 64),
		strings.Repeat("e", 65):   "",
		fmt.Sprintf("%064x", 255): "",
	} {
		if got := c.code(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// Registered codes are public. The operator needs them even if the client's secret occurs in them.
func TestRegisteredCodesAreNeverRedacted(t *testing.T) {
	for _, secret := range []string{"client", "invalid", "_", "invalid_client", "scope", "e"} {
		c := newCleaner("weather", secret)
		for code := range registered {
			if got := c.code(code); got != code {
				t.Errorf("secret %q: %q became %q", secret, code, got)
			}
		}
		if got := c.code("their_" + secret); got != "" {
			t.Errorf("secret %q is in the code %q", secret, got)
		}
	}
}

// Names of a client share a backoff window only for failures of the client.
func TestClientWide(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{&RefusedError{Status: 401, Code: "invalid_client"}, true},
		{&RefusedError{Status: 400, Code: "invalid_client"}, true},
		{&RefusedError{Status: 401, Code: "unauthorized_client"}, true},
		{&RefusedError{Status: 400, Code: "unauthorized_client"}, true},
		{&RefusedError{Status: 400, Code: "unsupported_grant_type"}, true},
		{&RefusedError{Status: 400, Code: "invalid_grant"}, true},
		{&RefusedError{Status: 400, Code: "E0000021"}, true},
		{&RefusedError{Status: 401}, true},
		{&RefusedError{Status: 403}, true},
		{&RefusedError{Status: 401, Code: "access_denied", Description: "Unauthorized"}, true},
		{&RefusedError{Status: 401, Code: "invalid_request"}, true},
		{fmt.Errorf("wrapped: %w", &RefusedError{Status: 401, Code: "invalid_client"}), true},
		{&UnavailableError{Reason: "connection refused"}, true},
		{&UnavailableError{Status: 429}, true},
		{&UnavailableError{Status: 200, Reason: "the answer is empty"}, true},
		{fmt.Errorf("wrapped: %w", &UnavailableError{Status: 503}), true},

		{&RefusedError{Status: 400, Code: "invalid_scope"}, false},
		{&RefusedError{Status: 401, Code: "invalid_scope"}, false},
		{&RefusedError{Status: 400, Code: "invalid_target"}, false},
		{&RefusedError{Status: 400, Code: "invalid_resource"}, false},
		{&RefusedError{Status: 403, Code: "access_denied", Description: "Client is not authorized to access"}, false},
		{&RefusedError{Status: 400, Code: "invalid_request"}, false},
		{&RefusedError{Status: 400, Code: "invalid_authorization_details"}, false},
		{fmt.Errorf("wrapped: %w", &RefusedError{Status: 400, Code: "invalid_scope"}), false},
		{&UnavailableError{Status: 200, Reason: "token_type", ofToken: true}, false},
		{context.Canceled, false},
		{context.DeadlineExceeded, false},
		{nil, false},
	} {
		if got := ClientWide(tc.err); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.err, got, tc.want)
		}
	}
}
