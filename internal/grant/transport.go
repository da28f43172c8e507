package grant

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// transport is the package's own transport, for one request.
type transport struct {
	*http.Transport
	// asked is set when a server asks for the client certificate. The handshake runs on its own goroutine.
	asked atomic.Bool
}

// newTransport returns the transport for a request.
func newTransport(r *Request) (*transport, error) {
	var roots *x509.CertPool
	if r.CACert != "" {
		var err error
		if roots, err = ParseCACert(r.CACert); err != nil {
			return nil, err
		}
	}
	t := &transport{Transport: reach.NewTransport(roots)}
	t.Proxy = http.ProxyFromEnvironment
	if r.Control != nil && !(r.Proxied && hasProxy(r.TokenURL)) {
		// A proxy would resolve the name itself, and Control would not see the address.
		t.Proxy = nil
		t.DialContext = (&net.Dialer{Control: r.Control}).DialContext
	}
	if r.AuthMethod.Certificate() {
		// Some servers ask for the certificate by renegotiation, when they know the path (RFC 5246 section
		// 7.4.1.1).
		t.TLSClientConfig.Renegotiation = tls.RenegotiateOnceAsClient
		if t.Proxy != nil {
			t.Proxy = withoutTLS(t.Proxy)
		}
		t.TLSClientConfig.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.show(r.Certificate, *asked)
		}
	}
	return t, nil
}

// hasProxy reports whether the environment names a proxy for a URL, even an invalid one.
func hasProxy(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	return proxy != nil || err != nil
}

// withoutTLS refuses proxies over TLS. net/http has one TLS configuration for the proxy and the server, so it would
// show the client certificate to the proxy too.
func withoutTLS(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		u, err := proxy(req)
		if err == nil && u != nil && u.Scheme == "https" {
			return nil, &UnavailableError{Reason: "proxy: a client certificate does not work through an https proxy: use an http proxy, or none for this server"}
		}
		return u, err
	}
}

// show returns the client certificate for a server that asks for one, whatever CAs the server names. crypto/tls would
// hold back the certificate of another CA, and the server would report it as missing. The error of show is an
// *UnavailableError.
func (t *transport) show(cert *tls.Certificate, asked tls.CertificateRequestInfo) (*tls.Certificate, error) {
	t.asked.Store(true)
	asked.AcceptableCAs = nil
	if err := asked.SupportsCertificate(cert); err != nil {
		return nil, &UnavailableError{Reason: "TLS: the server does not accept signatures by client_certificate_key: use a key of another type"}
	}
	return cert, nil
}
