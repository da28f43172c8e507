package mcpoauth

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// tokenWarnings returns warnings about the scope, audience, binding and lifetime of a token of the config or its role
// r. granted holds the granted scopes.
func (c *config) tokenWarnings(r *role, accessToken, granted string, lifetime time.Duration) []string {
	q := c.parameters(r)
	return slices.DeleteFunc([]string{
		missingScopes(q.Scopes, granted), foreignAudience(q.Resources, accessToken), boundToken(accessToken), c.lifetimeWarning(lifetime),
	}, func(warning string) bool { return warning == "" })
}

// oddResources returns a warning about resource indicators that are not URIs (RFC 8707); "" if all are. Entra ID's
// first version and AD FS know a resource by a GUID or a name; elsewhere it is usually a mistake.
func oddResources(resources []string) string {
	for _, resource := range resources {
		if _, err := absoluteURL(resource); err != nil {
			return fmt.Sprintf("resource %s: %v (RFC 8707 section 2); it is sent as it is", quote(resource), err)
		}
	}
	return ""
}

// missingScopes returns a warning with the scopes that were requested but not granted; "" if all were granted. An
// authorization server may grant less (RFC 6749 section 3.3), and some drop unknown scopes.
func missingScopes(asked []string, granted string) string {
	// Separated by spaces (RFC 6749), or in the list formats of some servers.
	have := append(strings.Fields(granted), strings.FieldsFunc(granted, func(r rune) bool { return strings.ContainsRune(" ,;|+[]{}\"'", r) })...)
	var missing []string
	for _, scope := range asked {
		if !slices.ContainsFunc(have, func(h string) bool { return sameScope(scope, h) }) && !isDefaultScope(scope) {
			missing = append(missing, scope)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("the authorization server did not grant %s; it granted %s",
		quote(strings.Join(missing, " ")), quote(granted))
}

// sameScope reports whether two names mean the same scope: they are equal, or one is the other after a resource
// identifier. The identifier ends in a slash (Entra, Cognito, Google), in "#" or, if it is a URN, in a colon.
func sameScope(a, b string) bool {
	short := func(name, long string) bool {
		resource, ok := strings.CutSuffix(long, name)
		return ok && name != "" && (strings.HasSuffix(resource, "/") || strings.HasSuffix(resource, "#") ||
			strings.HasSuffix(resource, ":") && strings.HasPrefix(resource, "urn:"))
	}
	return a == b || short(a, b) || short(b, a)
}

// isDefaultScope reports whether a scope stands for all permissions of the client (Entra). The response lists them by
// name or omits them.
func isDefaultScope(scope string) bool {
	return scope == ".default" || strings.HasSuffix(scope, "/.default")
}

// foreignAudience returns a warning if the audience of a JWT access token (RFC 9068) lacks all resources; ""
// otherwise. One is enough: several resources may be names of one server. Only the MCP server verifies the token.
func foreignAudience(resources []string, accessToken string) string {
	claims, ok := grant.ParseClaims(accessToken)
	if !ok || len(resources) == 0 {
		return ""
	}
	audience := claims.Audience
	if len(audience) == 0 {
		return fmt.Sprintf("the token is a JWT that names no audience, and so not the resource %s: the MCP server may refuse it",
			quote(strings.Join(resources, " ")))
	}
	for _, resource := range resources {
		if slices.ContainsFunc(audience, func(a string) bool {
			return a == resource || strings.TrimSuffix(a, "/") == strings.TrimSuffix(resource, "/")
		}) {
			return ""
		}
	}
	return fmt.Sprintf("the token's audience is %s, and does not hold the resource %s: the MCP server may refuse it",
		quote(strings.Join(audience, " ")), quote(strings.Join(resources, " ")))
}

// boundToken returns a warning if a JWT access token is bound to a key (RFC 7800), such as the client certificate's
// (RFC 8705 section 3), because brokers don't have it; "" otherwise.
func boundToken(accessToken string) string {
	if claims, ok := grant.ParseClaims(accessToken); !ok || !claims.Bound {
		return ""
	}
	return "the token is bound to the client's key or certificate (cnf), which no broker has: have the authorization server issue tokens that are not bound"
}

// longLifetime is the lifetime above which a warning suspects another unit than seconds.
const longLifetime = 30 * 24 * time.Hour

// capped returns a token's lifetime, limited by max_ttl.
func (c *config) capped(lifetime time.Duration) time.Duration {
	if c.MaxTTL > 0 {
		return min(lifetime, c.MaxTTL)
	}
	return lifetime
}

// lifetimeWarning returns a warning if the authorization server did not state a lifetime (0), or if the lifetime is
// too short for refreshing ahead, or so long that its unit may be milliseconds; "" otherwise.
func (c *config) lifetimeWarning(lifetime time.Duration) string {
	switch {
	case lifetime == 0:
		return fmt.Sprintf("the authorization server does not say how long the token is valid: default_ttl (%s) is assumed", c.DefaultTTL)
	case tokens.ShortLived(c.capped(lifetime)):
		return fmt.Sprintf("the token is valid for %s only: tokens of less than 10s are fetched when they are read, and not refreshed ahead; if the authorization server lets you, choose a longer lifetime", c.capped(lifetime))
	case lifetime > longLifetime && (c.MaxTTL == 0 || c.MaxTTL > longLifetime):
		return fmt.Sprintf("the token is said to be valid for %d days: if the authorization server counts in another unit than seconds, set max_ttl", lifetime/(24*time.Hour))
	}
	return ""
}
