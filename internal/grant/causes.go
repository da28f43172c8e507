package grant

import (
	"errors"
	"io"
	"syscall"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// hints are advice by reason.
var hints = map[string]string{
	reach.NotHTTP: ": check token_url",
	reach.NotTLS:  ": check token_url's scheme and port",
}

// cause returns why a request failed, without the text of err. It does not handle timeouts of the request.
func cause(err error) string {
	if reach.Alert(err) == "certificate required" {
		return "TLS: the server requires a client certificate, which token_endpoint_auth_method " + string(TLSClientAuth) + " sends"
	}
	reason, _ := reach.Cause(err)
	return reason + hints[reason]
}

// certificateAlerts maps the TLS alerts by which a server refuses a client certificate (RFC 8446 section 6.2), in
// crypto/tls's words, to advice.
var certificateAlerts = map[string]string{
	"bad certificate":               "",
	"unsupported certificate":       ": is it meant for client authentication?",
	"revoked certificate":           "",
	"expired certificate":           "",
	"unknown certificate":           "",
	"unknown certificate authority": ": the server does not trust its CA, or client_certificate lacks the chain to it",
	"access denied":                 "",
	"error decrypting message":      "",
	"certificate required":          "",
}

// clientCertificateCause is cause for a request with a client certificate. A server refuses a certificate with an
// alert, or closes the connection without an alert.
func clientCertificateCause(err error) string {
	if alert := reach.Alert(err); alert != "" {
		if advice, ok := certificateAlerts[alert]; ok {
			return "TLS: the server refused the client certificate: " + alert + advice
		}
	}
	reason := cause(err)
	for _, lost := range []error{io.EOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, lost) {
			return reason + ": the server may have refused the client certificate"
		}
	}
	return reason
}
