package discovery

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Request describes a search. Do does not change it, so it can be used again.
type Request struct {
	// ServerURL is the MCP server's URL, without a fragment. It is called without credentials.
	ServerURL string
	// Issuer is an authorization server's issuer identifier (RFC 8414 section 2), as the server spells
	// it. If it is set, Do begins there, and does not call ServerURL.
	Issuer string
	// GrantType is the grant_type of later token requests. If the metadata does not list it, the result has a
	// warning; "" is client_credentials.
	GrantType string
	// CACert is the PEM of the certificates to trust in place of the system's roots; "" trusts the system's.
	CACert string
	// AllowPrivate permits loopback and private addresses in URLs named by documents.
	AllowPrivate bool
	// AllowInsecureHTTP permits http to hosts other than loopback, in any URL.
	AllowInsecureHTTP bool
	// Timeout bounds each HTTP request, to the last byte. Above zero. Do's ctx bounds the whole search.
	Timeout time.Duration
}

// network is how a search reaches servers.
type network struct {
	proxy    func(*http.Request) (*url.URL, error) // at the origin of ServerURL or Issuer only
	resolver *net.Resolver                         // nil is net.DefaultResolver
	// base sends all requests if it is set: then addresses are neither looked up nor checked.
	base http.RoundTripper
}

// search is one Do or Look.
type search struct {
	*Request
	network
	origin   string // of the operator's URL
	own      Policy // for that origin: after the first connection, the policy for its address
	roots    *x509.CertPool
	attempts []Attempt
}
