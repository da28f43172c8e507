package main

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"slices"
)

// A guard keeps web pages out. A page in a browser on this machine can send requests to loopback; and with a name
// of its own that it lets resolve to loopback (DNS rebinding), read the answers. MCP has local servers check Host
// and Origin for that.
type guard struct {
	unix        bool              // no browser connects to a unix socket
	hosts       []string          // names beside those of loopback, compared as they are
	certificate *x509.Certificate // the listener's, nil without TLS: its names are good, too
}

// refuse returns why a request is refused, "" if it is not.
func (g *guard) refuse(r *http.Request) string {
	if !g.unix && !g.isName(hostname(r.Host)) {
		return "the Host header is not a name of this proxy"
	}
	origins := r.Header.Values("Origin")
	if len(origins) == 0 && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return "the request is of another site's page"
	}
	for _, origin := range origins {
		if u, err := url.Parse(origin); err != nil || !g.isName(u.Hostname()) {
			return "the Origin header is not of this machine"
		}
	}
	return ""
}

// isName reports whether a host is this machine, or a name of the listener's configuration or certificate.
func (g *guard) isName(host string) bool {
	return isLoopback(host) || slices.Contains(g.hosts, host) || g.certificate != nil && host != "" && g.certificate.VerifyHostname(host) == nil
}

// hostname is the host of a Host header.
func hostname(host string) string {
	return (&url.URL{Host: host}).Hostname()
}
