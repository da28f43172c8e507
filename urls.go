package mcpoauth

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// absoluteURL parses a URI with a scheme and a host, without a fragment.
func absoluteURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || strings.ContainsFunc(raw, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return nil, errors.New("is not a URL") // the parser's error would quote it
	case u.Scheme == "" || u.Host == "" && u.Opaque == "":
		return nil, errors.New("must be absolute, as in https://mcp.example.com/mcp")
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, errors.New("must not hold a fragment (#...)")
	}
	return u, nil
}

// validEndpoint checks a URL that the plugin or its brokers call. insecure allows http to any host; to loopback it is
// always allowed. field is the URL's name in errors.
func validEndpoint(field, raw string, insecure bool) error {
	u, err := absoluteURL(raw)
	switch {
	case err != nil:
		return badRequest("%s: %v", field, err)
	case !isVisible(raw):
		return badRequest("%s must consist of ASCII characters (RFC 3986): write a host name in other letters as xn--..., and percent-encode the rest", field)
	case u.Scheme != "https" && u.Scheme != "http":
		return badRequest("%s must start with https://", field)
	case !validPort(u.Port()):
		return badRequest("%s names a port that does not exist: it must be between 1 and 65535", field)
	case u.Hostname() == "":
		return badRequest("%s must be absolute, as in https://mcp.example.com/mcp: it names no host", field)
	case u.User != nil:
		return badRequest("%s must not hold user information: credentials have fields of their own", field)
	case u.Scheme == "http" && !insecure && !isLoopback(u.Hostname()):
		return badRequest("%s uses http to a host other than loopback: write https, or allow_insecure_http=true if the network between is trusted", field)
	}
	return nil
}

// canonicalResource returns a validated MCP server URL as a resource indicator: scheme and host in lower case, and
// without a lone slash as path.
func canonicalResource(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if u.Path == "/" && u.RawQuery == "" {
		u.Path = ""
	}
	return u.String()
}

// validPort reports whether a URL's port is empty or exists.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// isLoopback reports whether a URL's host is localhost or a loopback address.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// origin returns a URL's scheme, host and port in a canonical form. A URL with a host that is not ASCII is returned
// as it is: in lower case it may be another host.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || !isVisible(u.Host) {
		return raw
	}
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
