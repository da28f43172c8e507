package grant

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
)

// newTransport returns a transport for one request. Without keep-alive there is no connection left to
// close late, and none to find dead: http.Transport repeats a request on a new connection where a kept
// one broke, and so does HTTP/2 where the server says that it did not begin, while one call here is one
// request.
func newTransport(caCert string) (*http.Transport, error) {
	var roots *x509.CertPool // nil: the system's
	if caCert != "" {
		var err error
		if roots, err = ParseCACert(caCert); err != nil {
			return nil, err
		}
	}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
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
	}, nil
}

// ParseCACert returns the certificates of a PEM, one or more. Text between the blocks is allowed, as
// bundles have it. Its errors say what to write instead: nothing is skipped silently, for a CA that is
// left out shows only when its server fails.
func ParseCACert(pemText string) (*x509.CertPool, error) {
	const begin = "-----BEGIN "
	if !strings.Contains(pemText, begin) {
		return nil, errors.New(`ca_cert must hold certificates in PEM form ("-----BEGIN CERTIFICATE-----"); with the vault command, ca_cert=@ca.pem reads a file`)
	}
	if strings.Contains(pemText, `-----\n`) {
		return nil, errors.New(`ca_cert holds a written-out \n where PEM needs line breaks; with the vault command, ca_cert=@ca.pem reads a file`)
	}
	pool := x509.NewCertPool()
	rest := []byte(pemText)
	n := 0
	for {
		var block *pem.Block
		before := len(rest)
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		n++
		// The decoder skips a block that it cannot read, as if it were text between blocks.
		if used := pemText[len(pemText)-before : len(pemText)-len(rest)]; strings.Count(used, begin) != 1 {
			return nil, fmt.Errorf("ca_cert: PEM block %d is damaged or cut short: copy the file again", n)
		}
		switch {
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, fmt.Errorf("ca_cert: PEM block %d is a private key, which does not belong here: give the CA's certificate alone, and take the key for exposed", n)
		case block.Type != "CERTIFICATE":
			return nil, fmt.Errorf("ca_cert: PEM block %d is not a certificate: only CERTIFICATE blocks belong here", n)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ca_cert: PEM block %d is not an X.509 certificate: copy the file again", n)
		}
		pool.AddCert(cert)
	}
	if left := string(rest); strings.Contains(left, begin) {
		return nil, fmt.Errorf("ca_cert: PEM block %d is damaged or cut short: copy the file again", n+1)
	} else if strings.TrimSpace(left) != "" {
		return nil, fmt.Errorf("ca_cert: what follows PEM block %d is not a certificate: remove it", n)
	}
	return pool, nil
}

// cause names what kept an answer from coming, in words of our own: errors of net/http carry the URL
// with its query, and pieces of what the other side sent. It does not judge timeouts of the request.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		switch op.Op {
		case "proxyconnect": // the outermost one, of a proxy from the environment
			return "proxy: " + cause(op.Err)
		case "remote error": // a TLS alert, whose text is crypto/tls's own
			return "TLS: refused by the server: " + strings.TrimPrefix(op.Err.Error(), "tls: ")
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
