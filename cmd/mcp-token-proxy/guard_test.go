package main

import (
	"crypto/x509"
	"net/http"
	"testing"
)

// A web page can make a browser on this machine send requests to loopback, also under the attacker's host name.
func TestWebPagesAreKeptOut(t *testing.T) {
	loopback := &guard{}
	named := &guard{certificate: &x509.Certificate{DNSNames: []string{"proxy.example.com"}}}
	socket := &guard{unix: true}
	configured := &guard{hosts: []string{"kiosk.mcp.local"}}
	for name, c := range map[string]struct {
		guard   *guard
		host    string
		headers http.Header
		good    bool
	}{
		"address":                    {loopback, "127.0.0.1:8300", nil, true},
		"without a port":             {loopback, "127.0.0.1", nil, true},
		"another port, as forwarded": {loopback, "localhost:9000", nil, true},
		"in capitals":                {loopback, "LOCALHOST:8300", nil, true},
		"IPv6":                       {loopback, "[::1]:8300", nil, true},
		"DNS rebinding":              {loopback, "attacker.example.com:8300", nil, false},
		"a name like an address":     {loopback, "127.0.0.1.attacker.example.com", nil, false},
		"a name like localhost":      {loopback, "localhost.attacker.example.com", nil, false},
		"a long s":                   {loopback, "localho\u017ft", nil, false},
		"user information":           {loopback, "127.0.0.1@attacker.example.com", nil, false},
		"another address":            {loopback, "192.0.2.1:8300", nil, false},
		"none":                       {loopback, "", nil, false},
		"a local page":               {loopback, "localhost:8300", http.Header{"Origin": {"http://localhost:3000"}}, true},
		"a page":                     {loopback, "localhost:8300", http.Header{"Origin": {"https://attacker.example.com"}}, false},
		"a page like localhost":      {loopback, "localhost:8300", http.Header{"Origin": {"http://localhost.attacker.example.com"}}, false},
		"a page like an address":     {loopback, "localhost:8300", http.Header{"Origin": {"http://127.0.0.1@attacker.example.com"}}, false},
		"a sandboxed page":           {loopback, "localhost:8300", http.Header{"Origin": {"null"}}, false},
		"an empty origin":            {loopback, "localhost:8300", http.Header{"Origin": {""}}, false},
		"two origins":                {loopback, "localhost:8300", http.Header{"Origin": {"http://localhost", "https://attacker.example.com"}}, false},
		"an image of a page":         {loopback, "localhost:8300", http.Header{"Sec-Fetch-Site": {"cross-site"}}, false},
		"typed into the browser":     {loopback, "localhost:8300", http.Header{"Sec-Fetch-Site": {"none"}}, true},
		"its name":                   {named, "proxy.example.com:8300", nil, true},
		"its own page":               {named, "proxy.example.com", http.Header{"Origin": {"https://proxy.example.com"}}, true},
		"a configured name":          {configured, "kiosk.mcp.local:8300", nil, true},
		"a Kelvin sign":              {configured, "\u212aiosk.mcp.local", nil, false},
		"beside a configured name":   {configured, "mcp.local", nil, false},
		"another name":               {named, "other.example.com", nil, false},
		"a socket":                   {socket, "whatever", nil, true},
		"a page at a socket":         {socket, "whatever", http.Header{"Origin": {"https://attacker.example.com"}}, false},
	} {
		r := &http.Request{Host: c.host, Header: c.headers}
		if why := c.guard.refuse(r); (why == "") != c.good {
			t.Errorf("%s: %q, want it to pass: %t", name, why, c.good)
		}
	}
}

// A refused request reaches neither the MCP server nor Vault.
func TestRefusedPageReachesNothing(t *testing.T) {
	w := newWorld(t)
	url := w.start(w.config())
	for _, headers := range [][]string{{"Origin", "https://attacker.example.com"}, {"Host", "attacker.example.com"}} {
		r := request(t, http.MethodPost, url, http.NoBody, headers...)
		if headers[0] == "Host" {
			r.Host = headers[1]
		}
		if response := do(t, r); response.StatusCode != http.StatusForbidden {
			t.Errorf("%v: status %d, want 403", headers, response.StatusCode)
		}
	}
	if len(w.serverSaw) != 0 || len(w.vaultSaw) != 0 {
		t.Errorf("%d requests to the server, %d to Vault", len(w.serverSaw), len(w.vaultSaw))
	}
}
