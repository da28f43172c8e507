package mcpoauth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// Gateways want a key of their own beside the client's credentials: it is as secret as these.
func TestExtraHeaders(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	const first, second = secretMark + "-of-the-gateway", "another-" + secretMark
	m.write("config/weather", with(as.client(), fields{"extra_headers": []string{"x-api-key=" + first, "user-agent=broker/1"}}))
	equal(t, "the names", m.read("config/weather")["extra_headers"].([]string), []string{"User-Agent", "X-Api-Key"})
	header := as.await(1).header
	if header.Get("X-Api-Key") != first || header.Get("User-Agent") != "broker/1" {
		t.Error("the headers were not sent")
	}

	// Another value is other credentials, and is tried.
	m.write("config/weather", fields{"extra_headers": fields{"X-Api-Key": second}})
	if got := as.await(2).header.Get("X-Api-Key"); got != second {
		t.Error("the new value was not tried")
	}
	m.write("config/weather", fields{"extra_headers": ""})
	if got := as.await(3).header.Get("X-Api-Key"); got != "" || len(m.read("config/weather")["extra_headers"].([]string)) != 0 {
		t.Error("the header is still sent")
	}

	// What the server repeats of it is not shown.
	as.answers(func(r tokenRequest) (int, fields) {
		return http.StatusForbidden, fields{"message": "the key " + r.header.Get("X-Api-Key") + " is unknown"}
	})
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"extra_headers": "x-api-key=" + first}, "the key [redacted] is unknown")
}

func TestWritingBackHeaderNamesKeepsTheValues(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"extra_headers": "x-api-key=" + secret + "-2"}))
	was := m.storage.entries(t)
	for _, verify := range []bool{true, false} {
		m.write("config/weather", with(m.read("config/weather"), fields{"verify": verify}))
		m.write("config/weather", fields{"extra_headers": "x-api-key", "verify": verify})
		m.write("config/weather", fields{"extra_headers": fields{"X-API-KEY": nil}, "verify": verify})
	}
	m.storage.unchanged(t, was)
	as.asked(t, 1, "after writes that change nothing")
}

// They travel by the credentials' rule.
func TestExtraHeadersGoNowhereElse(t *testing.T) {
	as, other, m := newAuthServer(t), newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"extra_headers": "x-api-key=" + secret + "-2"}))
	was := m.storage.entries(t)
	there := fields{"token_url": other.URL + "/token"}
	for _, bring := range []fields{
		{},
		{"client_secret": secret},
		{"extra_headers": "x-api-key=" + secret + "-2"},
		{"client_secret": secret, "extra_headers": "x-api-key"},
		{"client_secret": secret, "extra_headers": fields{"x-api-key": nil}},
	} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(there, bring), "client_secret and extra_headers")
	}
	m.storage.unchanged(t, was)
	other.asked(t, 0, "without the credentials")
	m.write("config/weather", with(there, fields{"client_secret": secret, "extra_headers": "x-api-key=" + secret + "-3"}))
	if got := other.await(1).header.Get("X-Api-Key"); got != secret+"-3" {
		t.Error("the header that was brought was not sent")
	}
	m.write("config/weather", fields{"token_url": as.URL + "/token", "client_secret": secret, "extra_headers": ""})
	if got := as.await(2).header.Get("X-Api-Key"); got != "" {
		t.Error("the header that was left behind was sent")
	}
}

func TestFaultyExtraHeadersAreRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	const value = secretMark
	for _, test := range []struct {
		headers any
		says    string
	}{
		{"authorization=Bearer " + value, "Authorization is the plugin's to send"},
		{fields{"HOST": value}, "Host is the plugin's to send"},
		{"content-type=" + value, "Content-Type is the plugin's to send"},
		{"content-length=" + value, "Content-Length is the plugin's to send"},
		{"x key=" + value, "a header's name consists of"},
		{"x-key=", "the value of X-Key must be"},
		{"x-key", "a header's name consists of letters, digits and hyphens (RFC 9110 section 5.1): write name=value"},
		{"x-key=" + value + "\nx: y", "the value of X-Key must be"},
		{fields{"x-key": []string{value}}, "must be a text"},
		{fields{"x-key": 7}, "must be a text"},
		{7, "extra_headers takes name=value pairs or a JSON object"},
		{[]any{7}, "extra_headers takes name=value pairs or a JSON object"},
		{"{" + value, "not a JSON object"},
		{[]string{"x-key=" + value, "x-key=b"}, "holds"},
		{[]string{"x-key=" + value, "X-Key=b"}, `extra_headers holds "X-Key" twice`},
		{fields{"x-key": value, "X-Key": value}, `extra_headers holds "X-Key" twice`},
		{`{"x-key":"` + value + `","x-key":"b"}`, "twice"},
	} {
		says := m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(as.client(), fields{"extra_headers": test.headers}), test.says)
		if strings.Contains(says, value) {
			t.Errorf("the value is in %q", says)
		}
	}
	as.asked(t, 0, "after writes that are refused")
}

// A value that was written without its name is not shown as a name.
func TestValueWithoutAHeaderNameIsNotShown(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for _, headers := range []any{secretMark, "x-api-key: " + secretMark, fields{secretMark: nil}, []string{"x-api-key", secretMark}} {
		err := m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(as.client(), fields{"extra_headers": headers}), "write name=value")
		if strings.Contains(strings.ToLower(err), strings.ToLower(secretMark)) {
			t.Errorf("%v", err)
		}
	}
	as.asked(t, 0, "after writes that are refused")
}
