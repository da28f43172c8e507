package main

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"slices"
)

// A guard refuses requests from web pages. A page in a browser on this machine can send requests to loopback, and can
// read the answers if its own host name resolves to loopback (DNS rebinding). So the MCP specification requires local
// servers to check Host and Origin.
type guard struct {
	unix        bool              // a browser can't connect to a unix socket
	hosts       []string          // more names than those of loopback, compared literally
	certificate *x509.Certificate // of the listener, or nil without TLS: its names are allowed too
}

// refuse returns the reason to refuse a request, or "".
func (g *guard) refuse(r *http.Request) string {
	if !g.unix && !g.isName(hostname(r.Host)) {
		return "the Host header is not a name of this proxy"
	}
	origins := r.Header.Values("Origin")
	if len(origins) == 0 && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return "the request comes from another site's page"
	}
	for _, origin := range origins {
		if u, err := url.Parse(origin); err != nil || !g.isName(u.Hostname()) {
			return "the Origin header is not an origin of this proxy"
		}
	}
	return ""
}

// isName reports whether a host is loopback, or a name in the listener's configuration or certificate.
func (g *guard) isName(host string) bool {
	return isLoopback(host) || slices.Contains(g.hosts, host) || g.certificate != nil && host != "" && g.certificate.VerifyHostname(host) == nil
}

// hostname returns the host of a Host header, without its port.
func hostname(host string) string {
	return (&url.URL{Host: host}).Hostname()
}
