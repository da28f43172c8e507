package grant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
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
			return &UnavailableError{Reason: fmt.Sprintf("proxy: refused to connect: HTTP %d", resp.StatusCode)}
		},
	}}
	if r.Control != nil {
		// A proxy would look the name up itself, out of Control's sight.
		t.Proxy = nil
		t.DialContext = (&net.Dialer{Control: r.Control}).DialContext
	}
	if r.AuthMethod == TLSClientAuth {
		if t.Proxy != nil {
			t.Proxy = withoutTLS(t.Proxy)
		}
		config.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.show(r.Certificate, *asked)
		}
	}
	return t, nil
}

// withoutTLS refuses proxies over TLS. A client certificate is for the server alone, and such a proxy
// would be shown it too: net/http has one TLS configuration for both.
func withoutTLS(proxy func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		u, err := proxy(req)
		if err == nil && u != nil && u.Scheme == "https" {
			return nil, &UnavailableError{Reason: "proxy: " + string(TLSClientAuth) + " does not work through an https proxy: use an http proxy, or none for this server"}
		}
		return u, err
	}
}

// cause names what kept an answer from coming, in words of our own: errors of net/http carry the URL
// with its query, and pieces of what the other side sent. It does not judge timeouts of the request.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		switch op.Op {
		case "proxyconnect": // the outermost one, of a proxy from the environment
			return "proxy: " + cause(op.Err)
		case "remote error": // a TLS alert, whose text is crypto/tls's own
			if alert := remoteAlert(err); alert != "certificate required" {
				return "TLS: refused by the server: " + alert
			}
			return "TLS: the server requires a client certificate, which token_endpoint_auth_method " + string(TLSClientAuth) + " sends"
		}
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return "DNS lookup failed: no such host " + fold(dns.Name)
		}
		return "DNS lookup failed for " + fold(dns.Name)
	}
	if reason := tlsCause(err); reason != "" {
		return reason
	}
	for _, c := range causes {
		if errors.Is(err, c.is) {
			return c.reason
		}
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return "timed out"
	}
	switch text := err.Error(); {
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "malformed MIME"):
		return "the answer is not HTTP: check token_url"
	case strings.Contains(text, "response headers exceeded"):
		return "the answer's headers are too large"
	}
	return "the request failed"
}

var causes = []struct {
	is     error
	reason string
}{
	{syscall.ECONNREFUSED, "connection refused"},
	{syscall.ECONNRESET, "connection reset"},
	{syscall.EPIPE, "connection reset"},
	{syscall.EHOSTUNREACH, "no route to host"},
	{syscall.ENETUNREACH, "network unreachable"},
	{syscall.ETIMEDOUT, "connection timed out"},
	{io.ErrUnexpectedEOF, "connection closed before the answer was complete"},
	{io.EOF, "connection closed without an answer"},
}

// tlsCause is cause for what goes wrong in TLS; "" if it was something else.
func tlsCause(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "TLS: certificate not trusted: set ca_cert to the certificate of the CA that issued it"
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return "TLS: certificate is not valid for " + fold(name.Host)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "TLS: certificate has expired or is not yet valid"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "TLS: certificate is not valid"
	}
	_, record := errors.AsType[tls.RecordHeaderError](err)
	if record || errors.Is(err, http.ErrSchemeMismatch) {
		return "TLS: the server does not speak TLS there: check token_url's scheme and port"
	}
	if strings.Contains(err.Error(), "tls: ") {
		return "TLS: handshake failed: TLS 1.2 or later is needed"
	}
	return ""
}
