package mcpoauth

import (
	"fmt"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// certificateNotice is how long before its end a client certificate is warned of.
const certificateNotice = 30 * 24 * time.Hour

// certificateEnd is when the client certificate expires; false if there is none.
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

// certificateWarning warns of a client certificate that is about to expire.
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
