package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
)

// NewTransport returns a transport for one request, without a proxy. roots nil means the system's. It has neither
// keep-alive nor HTTP/2: http.Transport repeats a request if a kept connection broke, or if an HTTP/2 server says
// that it had not begun.
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
			return proxyError{resp.StatusCode} // http.Transport's own error contains the proxy's text
		},
	}
}

// proxyError is a proxy's refusal to connect.
type proxyError struct{ status int }

func (e proxyError) Error() string { return ProxyRefusal(e.status) }

// ProxyRefusal returns the reason for an unsuccessful response of the proxy itself.
func ProxyRefusal(status int) string {
	if status == http.StatusProxyAuthRequired {
		return "proxy: HTTP 407: the proxy asks for credentials, not the server: write them into the proxy's URL in Vault's environment (HTTPS_PROXY)"
	}
	return fmt.Sprintf("proxy: refused to connect: HTTP %d", status)
}
