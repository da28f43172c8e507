package brokerauth

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// An origin is the only origin that may get a token: the scheme, host and port of the MCP server's URL (RFC 6454
// section 4).
type origin struct {
	scheme string
	host   string // host and port as the caller wrote them
	ascii  string // scheme, host and port, the host in IDNA ASCII, as net/http connects to it
}

// newOrigin returns the origin of an MCP server's URL; false if the host lacks an IDNA ASCII form.
func newOrigin(u *url.URL) (origin, bool) {
	host := u.Hostname()
	if !isASCII(host) {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return origin{}, false
		}
	}
	return origin{u.Scheme, u.Host, serialized(u.Scheme, host, u.Port())}, true
}

// contains reports whether a request to u goes to this origin. A non-ASCII host must be written exactly as in the
// server's URL: case mappings turn U+0130 and U+212A into ASCII letters, so two hosts would become one.
func (o origin) contains(u *url.URL) bool {
	if u.Scheme == o.scheme && u.Host == o.host {
		return true
	}
	host := u.Hostname()
	return isASCII(host) && serialized(u.Scheme, host, u.Port()) == o.ascii
}

func serialized(scheme, asciiHost, port string) string {
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme + "://" + strings.ToLower(asciiHost) + ":" + port
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
