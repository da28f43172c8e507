package mcpoauth

import (
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// validName checks the length of a path's names and refuses "..", as Vault's storage does. The paths' patterns have
// checked the characters.
func validName(name tokens.Name) error {
	for _, part := range []string{name.Server, name.Role} {
		if strings.Contains(part, "..") {
			return badRequest("the name %q must not hold two dots in a row", part)
		}
		if len(part) > maxName {
			return badRequest("the name %s must not be longer than %d bytes", quote(part), maxName)
		}
	}
	return nil
}

// validate checks everything except the credentials. It runs before updateKeys, so that an invalid write doesn't make
// a key; validCredentials runs after.
func (c *config) validate() error {
	if err := configTable.check(c); err != nil {
		return err
	}
	if c.ServerURL == "" && c.Issuer == "" && c.TokenURL == "" {
		return badRequest("server_url is missing: write the MCP server's URL, from which its authorization server is discovered, or the authorization server's issuer or token_url")
	}
	for _, endpoint := range []struct{ field, url string }{
		{"server_url", c.ServerURL}, {"issuer", c.Issuer}, {"token_url", c.TokenURL},
	} {
		if endpoint.url == "" {
			continue
		}
		if err := validEndpoint(endpoint.field, endpoint.url, c.AllowInsecureHTTP); err != nil {
			return err
		}
		if field, value := discovery.MetadataOf(endpoint.url); field != "" {
			return badRequest("%s is the URL of a metadata document: write %s=%s", endpoint.field, field, value)
		}
	}
	if strings.Contains(c.Issuer, "?") {
		return badRequest("issuer must not hold a query (RFC 8414 section 2)")
	}
	if err := c.validIdentity(); err != nil {
		return err
	}
	if c.ClientID == "" && c.Identity == identityStatic {
		return badRequest("client_id is missing: write the client's identifier at the authorization server")
	}
	return nil
}

// validate checks the role's fields and size.
func (r *role) validate() error {
	if err := roleTable.check(r); err != nil {
		return err
	}
	return validSize(r)
}
