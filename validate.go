package mcpoauth

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// Bounds on the durations of a config.
const (
	maxTimeout = 25 * time.Second // of a refresh; a write ends earlier, at writeBudget
	maxTTL     = 365 * 24 * time.Hour
)

// validName checks the names of a path. The paths' pattern has seen to the
// characters; Vault's storage refuses "..".
func validName(name tokens.Name) error {
	for _, part := range []string{name.Server, name.Role} {
		if strings.Contains(part, "..") {
			return badRequest("the name %q must not hold two dots in a row", part)
		}
		if len(part) > maxName {
			return badRequest("a name must not be longer than %d characters", maxName)
		}
	}
	return nil
}

// validate checks a config as a whole, and says of the first fault what to write
// instead.
func (c *config) validate() error {
	if c.ServerURL == "" && c.Issuer == "" && c.TokenURL == "" {
		return badRequest("server_url is missing: write the MCP server's URL, from which its authorization server is discovered, or the authorization server's issuer or token_url")
	}
	for _, endpoint := range []struct{ field, url string }{
		{"server_url", c.ServerURL}, {"issuer", c.Issuer}, {"token_url", c.TokenURL},
	} {
		if endpoint.url == "" {
			continue
		}
		if err := c.validEndpoint(endpoint.field, endpoint.url); err != nil {
			return err
		}
		if field, value := discovery.MetadataOf(endpoint.url); field != "" {
			return badRequest("%s is the URL of a metadata document: write %s=%s", endpoint.field, field, value)
		}
	}
	if strings.Contains(c.Issuer, "?") {
		return badRequest("issuer must not hold a query (RFC 8414 section 2)")
	}
	if err := c.validCredentials(); err != nil {
		return err
	}
	if err := validRequest(c.Scopes, c.Resource, c.Audience); err != nil {
		return err
	}
	if err := validResourceChoice(c.OmitResource, c.Resource); err != nil {
		return err
	}
	if err := validExtraParams(c.ExtraParams); err != nil {
		return err
	}
	if err := c.validHeaders(); err != nil {
		return err
	}
	if err := c.validTimes(); err != nil {
		return err
	}
	if c.CACert != "" {
		if _, err := grant.ParseCACert(c.CACert); err != nil {
			return badRequest("%v", err)
		}
	}
	return nil
}

func (c *config) validTimes() error {
	switch {
	case c.DefaultTTL < time.Second || c.DefaultTTL > maxTTL:
		return badRequest("default_ttl must be between 1s and %s", maxTTL)
	case c.MaxTTL < 0 || c.MaxTTL > maxTTL:
		return badRequest("max_ttl must be between 1s and %s, or 0 for no cap", maxTTL)
	case c.IdleTimeout < 0 || c.IdleTimeout > maxTTL:
		return badRequest("idle_timeout must be at most %s, or 0 to refresh for ever", maxTTL)
	case c.RequestTimeout < time.Second || c.RequestTimeout > maxTimeout:
		return badRequest("request_timeout must be between 1s and %s", maxTimeout)
	}
	return nil
}

// validate checks a role.
func (r *role) validate() error {
	if err := validRequest(r.Scopes, r.Resource, r.Audience); err != nil {
		return err
	}
	if err := validResourceChoice(r.OmitResource, r.Resource); err != nil {
		return err
	}
	if err := validExtraParams(r.ExtraParams); err != nil {
		return err
	}
	return fits(r)
}

func validResourceChoice(omit bool, resource []string) error {
	if omit && len(resource) > 0 {
		return badRequest("resource and omit_resource contradict each other: write one of them")
	}
	return nil
}

// validRequest checks what a config and a role have in common.
func validRequest(scopes, resources []string, audience string) error {
	for _, scope := range scopes {
		if !isScope(scope) {
			return badRequest("scope %s is malformed: a scope is printable ASCII without spaces, quotes or backslashes (RFC 6749 section 3.3)", quote(scope))
		}
	}
	for _, resource := range resources {
		if resource == "" || !isPrintable(resource) { // some servers want a name or a GUID: see oddResources
			return badRequest("resource %s must be printable characters", quote(resource))
		}
	}
	if !isPrintable(audience) {
		return badRequest("audience must be printable characters")
	}
	return nil
}

func validExtraParams(params map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case name == "" || !isVisible(name) || strings.Contains(name, " "):
			return badRequest("extra_params: the name %s is malformed: a parameter's name is printable ASCII without spaces", quote(name))
		case grant.IsReserved(name):
			return badRequest("extra_params must not hold %s: it has a field of its own, or is the plugin's to send", name)
		case !isPrintable(params[name]):
			return badRequest("extra_params: the value of %s must be printable characters", quote(name))
		}
	}
	return nil
}
