package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// plainError is a reason in words of our own.
type plainError string

func (e plainError) Error() string { return string(e) }

// cause names what kept an answer from coming, in words of our own: errors of net/http carry the URL
// with its query, and pieces of what the other side sent. temporary is false where trying again
// unchanged will not help.
func cause(err error) (reason string, temporary bool) {
	if refused, ok := errors.AsType[*AddressError](err); ok {
		return refused.Error(), false
	}
	if plain, ok := errors.AsType[plainError](err); ok {
		return string(plain), true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "proxyconnect" {
		reason, temporary = cause(op.Err)
		return "proxy: " + reason, temporary
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return "DNS lookup failed: no such host " + shown(dns.Name), true
		}
		return "DNS lookup failed for " + shown(dns.Name), true
	}
	if reason := tlsCause(err); reason != "" {
		return reason, false
	}
	for _, c := range causes {
		if errors.Is(err, c.is) {
			return c.reason, true
		}
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return "timed out", true
	}
	switch text := err.Error(); {
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "malformed MIME"):
		return "the answer is not HTTP", false
	case strings.Contains(text, "response headers exceeded"):
		return "the answer's headers are too large", false
	}
	return "the request failed", true
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
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" { // an alert
		return "TLS: refused by the server: " + strings.TrimPrefix(op.Err.Error(), "tls: ")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "TLS: certificate not trusted: set ca_cert to the certificate of the CA that issued it"
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return "TLS: certificate is not valid for " + shown(name.Host)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "TLS: certificate has expired or is not yet valid"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "TLS: certificate is not valid"
	}
	_, record := errors.AsType[tls.RecordHeaderError](err)
	if record || errors.Is(err, http.ErrSchemeMismatch) {
		return "TLS: the server does not speak TLS there"
	}
	if strings.Contains(err.Error(), "tls: ") {
		return "TLS: handshake failed: TLS 1.2 or later is needed"
	}
	return ""
}

// ended is ctx.Err(), or its deadline where that has passed: a dialer keeps ctx's deadline with a timer
// of its own, which may fire just before ctx's.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}
