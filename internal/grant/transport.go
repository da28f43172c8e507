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

// transport is the package's own, for one request: one call here is one request.
type transport struct {
	*http.Transport
	// asked is set when a server asked for the client certificate. The handshake has a goroutine of
	// its own.
	asked atomic.Bool
}

// newTransport returns the transport that the request asks for.
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
		// A proxy would look the name up itself, out of Control's sight.
		t.Proxy = nil
		t.DialContext = (&net.Dialer{Control: r.Control}).DialContext
	}
	if r.AuthMethod.Certificate() {
		// Some servers ask for the certificate only once they know the path, by renegotiation (RFC 5246
		// section 7.4.1.1).
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

// hasProxy reports whether the environment has a proxy for a URL, or one that can't be used.
func hasProxy(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	return proxy != nil || err != nil
}

// withoutTLS refuses proxies over TLS. A client certificate is for the server alone, and such a proxy
// would be shown it too: net/http has one TLS configuration for both.
func withoutTLS(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		u, err := proxy(req)
		if err == nil && u != nil && u.Scheme == "https" {
			return nil, &UnavailableError{Reason: "proxy: a client certificate does not work through an https proxy: use an http proxy, or none for this server"}
		}
		return u, err
	}
}

// show returns the client certificate to a server that asks for one. It does so whatever CAs the server
// names: crypto/tls would keep a certificate of another CA back, and the server could only say that
// there was none. Its error is an *UnavailableError.
func (t *transport) show(cert *tls.Certificate, asked tls.CertificateRequestInfo) (*tls.Certificate, error) {
	t.asked.Store(true)
	asked.AcceptableCAs = nil
	if err := asked.SupportsCertificate(cert); err != nil {
		return nil, &UnavailableError{Reason: "TLS: the server accepts no signature by the client certificate's key: use a key of another type"}
	}
	return cert, nil
}
