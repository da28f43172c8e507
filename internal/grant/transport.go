package grant

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// transport is the package's own, for one request. Without keep-alive there is no connection left to
// close late, and none to find dead: http.Transport repeats a request on a new connection where a kept
// one broke, and so does HTTP/2 where the server says that it did not begin, while one call here is one
// request.
type transport struct {
	*http.Transport
	// asked is set when a server asked for the client certificate. The handshake has a goroutine of
	// its own.
	asked atomic.Bool
}

// newTransport returns the transport that the request asks for.
func newTransport(r *Request) (*transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12} // no roots: the system's
	if r.CACert != "" {
		var err error
		if config.RootCAs, err = ParseCACert(r.CACert); err != nil {
			return nil, err
		}
	}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	t := &transport{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        config,
		DisableKeepAlives:      true,
		Protocols:              http1,
		MaxResponseHeaderBytes: 256 << 10,
		// Without this the error would be the proxy's own words.
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			return &UnavailableError{Reason: reach.ProxyRefusal(resp.StatusCode)}
		},
	}}
	if r.Control != nil && !(r.Proxied && hasProxy(r.TokenURL)) {
		// A proxy would look the name up itself, out of Control's sight.
		t.Proxy = nil
		t.DialContext = (&net.Dialer{Control: r.Control}).DialContext
	}
	if r.AuthMethod.Certificate() {
		// Some servers ask for the certificate only once they know the path, by renegotiation (RFC 5246
		// section 7.4.1.1).
		config.Renegotiation = tls.RenegotiateOnceAsClient
		if t.Proxy != nil {
			t.Proxy = withoutTLS(t.Proxy)
		}
		config.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
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
