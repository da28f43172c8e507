package mcpoauth

import (
	"net/http"
	"strings"
	"testing"
)

// Some gateways need a key in addition to the client's credentials. It is a secret too.
func TestExtraHeaders(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	const first, second = secretMark + "-of-the-gateway", "another-" + secretMark
	m.write("config/weather", with(as.client(), fields{"extra_headers": []string{"x-api-key=" + first, "user-agent=broker/1"}}))
	equal(t, "the names", m.read("config/weather")["extra_headers"].([]string), []string{"User-Agent", "X-Api-Key"})
	header := as.await(1).header
	equal(t, "the headers", []string{header.Get("X-Api-Key"), header.Get("User-Agent")}, []string{first, "broker/1"})

	// A write with a new value is verified.
	m.write("config/weather", fields{"extra_headers": fields{"X-Api-Key": second}})
	equal(t, "the new value", as.await(2).header.Get("X-Api-Key"), second)
	m.write("config/weather", fields{"extra_headers": ""})
	equal(t, "the removed value", as.await(3).header.Get("X-Api-Key"), "")
	equal(t, "the names", m.read("config/weather")["extra_headers"], nil)

	// An answer that echoes the value is redacted.
	as.answers(func(r tokenRequest) (int, fields) {
		return http.StatusForbidden, fields{"message": "the key " + r.header.Get("X-Api-Key") + " is unknown"}
	})
	m.rejects("config/weather", fields{"extra_headers": "x-api-key=" + first}, "the key [redacted] is unknown")
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

// Extra headers obey the same rules as credentials.
func TestExtraHeadersGoNowhereElse(t *testing.T) {
	as, other, m := newAuthServer(t), newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"extra_headers": "x-api-key=" + secret + "-2"}))
	was := m.storage.entries(t)
	there := fields{"token_url": other.URL + "/token"}
	for _, supplied := range []fields{
		{},
		{"client_secret": secret},
		{"extra_headers": "x-api-key=" + secret + "-2"},
		{"client_secret": secret, "extra_headers": "x-api-key"},
		{"client_secret": secret, "extra_headers": fields{"x-api-key": nil}},
	} {
		m.rejects("config/weather", with(there, supplied), "client_secret and extra_headers")
	}
	m.storage.unchanged(t, was)
	other.asked(t, 0, "without the credentials")
	m.write("config/weather", with(there, fields{"client_secret": secret, "extra_headers": "x-api-key=" + secret + "-3"}))
	equal(t, "the supplied header", other.await(1).header.Get("X-Api-Key"), secret+"-3")
	m.write("config/weather", fields{"token_url": as.URL + "/token", "client_secret": secret, "extra_headers": ""})
	equal(t, "the removed header", as.await(2).header.Get("X-Api-Key"), "")
}

func TestFaultyExtraHeadersAreRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	const value = secretMark
	for _, test := range []struct {
		headers any
		says    string
	}{
		{"authorization=Bearer " + value, "leave Authorization out: extra_headers can't hold it"},
		{fields{"HOST": value}, "leave Host out: extra_headers can't hold it"},
		{"content-type=" + value, "leave Content-Type out: extra_headers can't hold it"},
		{"content-length=" + value, "leave Content-Length out: extra_headers can't hold it"},
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
		says := m.rejects("config/weather", with(as.client(), fields{"extra_headers": test.headers}), test.says)
		if strings.Contains(says, value) {
			t.Errorf("the value is in %q", says)
		}
	}
	as.asked(t, 0, "after writes that are refused")
}

func TestValueWithoutAHeaderNameIsNotShown(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for _, headers := range []any{secretMark, "x-api-key: " + secretMark, fields{secretMark: nil}, []string{"x-api-key", secretMark}} {
		err := m.rejects("config/weather", with(as.client(), fields{"extra_headers": headers}), "write name=value")
		if strings.Contains(strings.ToLower(err), strings.ToLower(secretMark)) {
			t.Errorf("%v", err)
		}
	}
	as.asked(t, 0, "after writes that are refused")
}
