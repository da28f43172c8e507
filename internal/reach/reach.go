// Package reach has the transport of one HTTP request, and describes why a request failed without a response. The
// descriptions contain neither URLs nor anything sent by the other side, so they are safe in errors and logs.
package reach

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
	"unicode"
)

// Reasons for which a caller may have advice.
const (
	NotHTTP = "the answer is not HTTP"
	NotTLS  = "TLS: the server does not speak TLS there"
)

// Cause returns why a request failed without a response, in the plugin's own words: errors of net/http contain the
// URL with its query, and text sent by the other side. temporary is false if a retry of the same request will not
// help. The caller must handle its own timeouts before.
func Cause(err error) (reason string, temporary bool) {
	if refused, ok := errors.AsType[proxyError](err); ok {
		return refused.Error(), true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "proxyconnect" {
		reason, temporary = Cause(op.Err)
		return "proxy: " + reason, temporary
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return "DNS lookup failed: no such host " + printable(dns.Name), true
		}
		return "DNS lookup failed for " + printable(dns.Name), true
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
		return NotHTTP, false
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

// tlsCause is Cause for TLS; "" if err has another cause.
func tlsCause(err error) string {
	if alert := Alert(err); alert != "" {
		return "TLS: refused by the server: " + alert
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "TLS: certificate not trusted: set ca_cert to the certificate of the CA that issued it"
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return "TLS: certificate is not valid for " + printable(name.Host)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "TLS: certificate has expired or is not yet valid"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "TLS: certificate is not valid"
	}
	_, record := errors.AsType[tls.RecordHeaderError](err)
	if record || errors.Is(err, http.ErrSchemeMismatch) {
		return NotTLS
	}
	if strings.Contains(err.Error(), "tls: ") {
		return "TLS: handshake failed: TLS 1.2 or later is needed"
	}
	return ""
}

// Alert returns the TLS alert (RFC 8446 section 6.2) sent by the server, in crypto/tls's words; "" if err is not an
// alert.
func Alert(err error) string {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return ""
	}
	return strings.TrimPrefix(op.Err.Error(), "tls: ")
}

// printable returns s without unprintable characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

// Ended returns ctx.Err(), or context.DeadlineExceeded if ctx's deadline has passed: a dialer has a timer of its own
// for it, which may fire just before ctx's.
func Ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// Busy reports whether an HTTP status describes a temporary state, whatever the body says.
func Busy(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}
