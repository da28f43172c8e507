package mcpoauth

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// tokenWarnings returns the warnings about a token of the config or its role r: its scope, audience, binding and
// lifetime. scope holds the granted scopes.
func (c *config) tokenWarnings(r *role, accessToken, scope string, lifetime time.Duration) []string {
	q := c.parameters(r)
	return slices.DeleteFunc([]string{
		missingScopes(q.Scopes, scope), foreignAudience(q.Resources, accessToken), boundToken(accessToken), c.lifetimeWarning(lifetime),
	}, func(warning string) bool { return warning == "" })
}

// oddResources warns of resource indicators that are none by RFC 8707: Entra ID's first version and AD FS know
// a resource by a GUID or a name, but with others it is a slip.
func oddResources(resources []string) string {
	for _, resource := range resources {
		if _, err := absoluteURL(resource); err != nil {
			return fmt.Sprintf("resource %s: %v (RFC 8707 section 2); it is sent as it is", quote(resource), err)
		}
	}
	return ""
}

// missingScopes says which of the asked scopes are not among the granted ones; empty if
// none is missing. An authorization server may grant less than was asked (RFC 6749 section
// 3.3), and some drop what they do not know.
func missingScopes(asked []string, granted string) string {
	// Separated by spaces, as RFC 6749 has it, or as lists of all kinds are.
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

// sameScope reports whether two names are one scope's: equal, or one is the other after a resource's identifier,
// which ends in a slash, as at Entra, Cognito and Google, in "#", or as a URN in a colon.
func sameScope(a, b string) bool {
	short := func(name, long string) bool {
		resource, ok := strings.CutSuffix(long, name)
		return ok && name != "" && (strings.HasSuffix(resource, "/") || strings.HasSuffix(resource, "#") ||
			strings.HasSuffix(resource, ":") && strings.HasPrefix(resource, "urn:"))
	}
	return a == b || short(a, b) || short(b, a)
}

// isDefaultScope reports whether a scope stands for all that the client was ever granted, which
// is listed by name in the answer or not at all (Entra).
func isDefaultScope(scope string) bool {
	return scope == ".default" || strings.HasSuffix(scope, "/.default")
}

// foreignAudience says of a token that is a JWT (RFC 9068) when its audience holds none
// of the resources: the MCP server will refuse it. Several resources may be several names
// of one server, and servers put one of them into the token. The token is the MCP server's
// to verify; here it is only looked at.
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

// boundToken says of a token that is a JWT when it is of use only to the holder of a key (RFC 7800): no
// broker holds that of the client certificate (RFC 8705 section 3).
func boundToken(accessToken string) string {
	if claims, ok := grant.ParseClaims(accessToken); !ok || !claims.Bound {
		return ""
	}
	return "the token is bound to the client's key or certificate (cnf), which no broker has: have the authorization server issue tokens that are not bound"
}

// longLifetime is from where on a token's lifetime is doubted.
const longLifetime = 30 * 24 * time.Hour

// capped is a token's lifetime under max_ttl.
func (c *config) capped(lifetime time.Duration) time.Duration {
	if c.MaxTTL > 0 {
		return min(lifetime, c.MaxTTL)
	}
	return lifetime
}

// lifetimeWarning warns of a lifetime that the authorization server did not say, which is 0; that is so
// long that it may be milliseconds; or that is too short for a refresh ahead of its end.
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
