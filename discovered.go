package mcpoauth

import (
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
)

// discovered is what discovery found, pinned in the config: it is looked for again
// only when the operator writes another server_url or issuer, or rediscover=true.
type discovered struct {
	Issuer       string           `json:"issuer"`
	TokenURL     string           `json:"token_url"`
	MTLSTokenURL string           `json:"mtls_token_url,omitempty"`
	AuthMethods  []string         `json:"auth_methods,omitempty"`
	SigningAlgs  []string         `json:"signing_algs,omitempty"`
	Scopes       []string         `json:"scopes,omitempty"`
	Resource     string           `json:"resource,omitempty"` // as the MCP server spells it
	Policy       discovery.Policy `json:"policy"`
	At           time.Time        `json:"at"`
}

// same tells whether both pin the same, whenever that was found. Either may be nil.
func (d *discovered) same(o *discovered) bool {
	if d == nil || o == nil {
		return d == o
	}
	a, b := *d, *o
	a.At, b.At = time.Time{}, time.Time{}
	return fingerprint(a) == fingerprint(b)
}
