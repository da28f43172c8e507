package mcpoauth

import (
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
)

// discovered holds the findings of discovery, pinned in the config. Discovery runs again only if the operator writes
// another server_url, issuer or grant, or rediscover=true.
type discovered struct {
	Issuer       string           `json:"issuer"`
	TokenURL     string           `json:"token_url"`
	MTLSTokenURL string           `json:"mtls_token_url,omitempty"`
	AuthMethods  []string         `json:"auth_methods,omitempty"`
	SigningAlgs  []string         `json:"signing_algs,omitempty"`
	Scopes       []string         `json:"scopes,omitempty"`
	Resource     string           `json:"resource,omitempty"` // as published by the MCP server
	Others       []string         `json:"others,omitempty"`   // other authorization servers named by the MCP server
	Policy       discovery.Policy `json:"policy"`
	Warnings     []string         `json:"warnings,omitempty"`
	At           time.Time        `json:"at"`
}

func newDiscovered(found *discovery.Result) *discovered {
	return &discovered{
		Issuer:       found.Issuer,
		TokenURL:     found.TokenURL,
		MTLSTokenURL: found.MTLSTokenURL,
		AuthMethods:  found.AuthMethods,
		SigningAlgs:  found.SigningAlgs,
		Scopes:       found.Scopes,
		Resource:     found.Resource,
		Others:       found.Others,
		Policy:       found.Policy,
		Warnings:     found.Warnings,
		At:           time.Now().UTC().Truncate(time.Second),
	}
}

// published holds the scopes and resource published by the MCP server if the operator named the authorization server.
// It is pinned as discovered is.
type published struct {
	ServerURL string    `json:"server_url"` // the URL that was asked
	Scopes    []string  `json:"scopes,omitempty"`
	Resource  string    `json:"resource,omitempty"`
	Warning   string    `json:"warning,omitempty"` // why the rest is missing
	At        time.Time `json:"at"`
}

func newPublished(serverURL string, found discovery.Published) *published {
	return &published{ServerURL: serverURL, Scopes: found.Scopes, Resource: found.Resource, At: time.Now().UTC().Truncate(time.Second)}
}

// same reports whether d and o are equal except for At. Either may be nil.
func (d *discovered) same(o *discovered) bool {
	if d == nil || o == nil {
		return d == o
	}
	a, b := *d, *o
	a.At, b.At = time.Time{}, time.Time{}
	return fingerprint(a) == fingerprint(b)
}
