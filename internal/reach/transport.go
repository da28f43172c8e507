package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
)

// NewTransport returns a transport for one request, without a proxy. roots nil are the system's. Without keep-alive
// there is no connection left to close late, and none to find dead: http.Transport repeats a request on a new
// connection if a kept one broke, and so does HTTP/2 if the server says that it did not begin.
func NewTransport(roots *x509.CertPool) *http.Transport {
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Transport{
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		DisableKeepAlives:      true,
		Protocols:              http1,
		MaxResponseHeaderBytes: 256 << 10,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			return proxyError{resp.StatusCode} // http.Transport's own would hold the proxy's words
		},
	}
}

// proxyError says that a proxy did not connect.
type proxyError struct{ status int }

func (e proxyError) Error() string { return ProxyRefusal(e.status) }

// ProxyRefusal is the reason for a proxy's own answer with an HTTP status that is no success.
func ProxyRefusal(status int) string {
	if status == http.StatusProxyAuthRequired {
		return "proxy: HTTP 407: the proxy asks for credentials, not the server: write them into the proxy's URL in Vault's environment (HTTPS_PROXY)"
	}
	return fmt.Sprintf("proxy: refused to connect: HTTP %d", status)
}
