package mcpoauth

import (
	"fmt"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// certificateNotice is the time before a client certificate's expiry in which there are warnings.
const certificateNotice = 30 * 24 * time.Hour

// certificateEnd returns when the client certificate expires; false without a readable certificate.
func (c *config) certificateEnd() (time.Time, bool) {
	if c.ClientCertificate == "" {
		return time.Time{}, false
	}
	pair, err := grant.ParseClientCertificate(c.ClientCertificate, c.ClientCertificateKey)
	if err != nil {
		return time.Time{}, false
	}
	return pair.Leaf.NotAfter, true
}

// certificateWarning returns a warning if the client certificate has expired or is about to; "" otherwise.
func (c *config) certificateWarning(now time.Time) string {
	end, ok := c.certificateEnd()
	if !ok || end.Sub(now) > certificateNotice {
		return ""
	}
	verb := "expires"
	if !now.Before(end) {
		verb = "expired"
	}
	return fmt.Sprintf("client_certificate %s at %s: write a new one", verb, rfc3339(end))
}
