package mcpoauth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// warnings are what an operator should know of a token that was obtained with a
// request, by the access token and its scope.
func warnings(q *grant.Request, accessToken, scope string) []string {
	var all []string
	for _, warning := range []string{missingScopes(q.Scopes, scope), foreignAudience(q.Resources, accessToken)} {
		if warning != "" {
			all = append(all, warning)
		}
	}
	return all
}

// missingScopes says which of the asked scopes are not among the granted ones, which
// are space-delimited; empty when none is missing. An authorization server may grant
// less than was asked (RFC 6749 section 3.3), and some drop what they do not know.
func missingScopes(asked []string, granted string) string {
	have := strings.Fields(granted)
	var missing []string
	for _, scope := range asked {
		if !slices.Contains(have, scope) {
			missing = append(missing, scope)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("the authorization server did not grant %s; it granted %s",
		quote(strings.Join(missing, " ")), quote(granted))
}

// foreignAudience says of a token that is a JWT (RFC 9068) when its audience holds none
// of the resources: the MCP server will refuse it. Several resources may be several names
// of one server, and servers put one of them into the token. The token is the MCP server's
// to verify; here it is only looked at.
func foreignAudience(resources []string, accessToken string) string {
	audience, ok := audienceOf(accessToken)
	if !ok || len(resources) == 0 {
		return ""
	}
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

// audienceOf is the aud of a token (RFC 7519 section 4.1.3), none where it has none that can be read;
// false where the token is not a JWT.
func audienceOf(token string) (audience []string, isJWT bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	var header struct {
		Algorithm string `json:"alg"` // every JWT has it (RFC 7515 section 4.1.1)
	}
	var claims struct {
		Audience json.RawMessage `json:"aud"`
	}
	if !decodePart(parts[0], &header) || header.Algorithm == "" || !decodePart(parts[1], &claims) {
		return nil, false
	}
	var one string
	if json.Unmarshal(claims.Audience, &one) == nil && one != "" {
		return []string{one}, true
	}
	if json.Unmarshal(claims.Audience, &audience) != nil {
		return nil, true
	}
	return audience, true
}

// decodePart reads a part of a JWT, which is a JSON object in base64url.
func decodePart(part string, out any) bool {
	data, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(data, out) == nil
}
