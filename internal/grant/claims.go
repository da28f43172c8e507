package grant

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// Claims are the claims of an access token in the form of a JWT (RFC 7519, RFC 9068). They are not verified:
// the MCP server does that.
type Claims struct {
	// Audience is the aud claim; empty if it is missing or malformed.
	Audience []string
	// Expires is the exp claim and IssuedAt the iat claim; zero if missing.
	Expires, IssuedAt time.Time
	// Scope is the scope claim, space-delimited (RFC 9068 section 2.2.3). ScopeSaid reports whether the token has
	// a valid one, which may be empty.
	Scope     string
	ScopeSaid bool
	// Bound is set if the token has a cnf claim (RFC 7800): only the holder of a key can use it, such as the
	// key of a client certificate (RFC 8705 section 3.1).
	Bound bool
}

// ParseClaims reads an access token. ok is false if it is not a readable JWT.
func ParseClaims(accessToken string) (claims Claims, ok bool) {
	parts := strings.Split(accessToken, ".")
	var header struct {
		Algorithm string `json:"alg"` // every JWT has it (RFC 7515 section 4.1.1)
	}
	var raw struct {
		Audience json.RawMessage `json:"aud"`
		Expires  json.RawMessage `json:"exp"`
		IssuedAt json.RawMessage `json:"iat"`
		Scope    json.RawMessage `json:"scope"`
		Confirm  json.RawMessage `json:"cnf"`
	}
	if len(parts) != 3 || !decodePart(parts[0], &header) || header.Algorithm == "" || !decodePart(parts[1], &raw) {
		return Claims{}, false
	}
	claims = Claims{
		Expires:  numericDate(raw.Expires),
		IssuedAt: numericDate(raw.IssuedAt),
		Bound:    len(raw.Confirm) > 0 && string(raw.Confirm) != "null" && string(raw.Confirm) != "{}",
	}
	claims.Scope, claims.ScopeSaid = readScope(raw.Scope)
	if one, _ := text(raw.Audience); one != "" {
		claims.Audience = []string{one}
	} else if json.Unmarshal(raw.Audience, &claims.Audience) != nil {
		claims.Audience = nil
	}
	return claims, true
}

// decodePart reads a part of a JWT, which is a JSON object in base64url.
func decodePart(part string, out any) bool {
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
	return err == nil && json.Unmarshal(data, out) == nil
}

// numericDate reads a NumericDate (RFC 7519 section 2), also in milliseconds or as a string; zero if it is
// missing. Servers write 0 for a token that never expires.
func numericDate(raw json.RawMessage) time.Time {
	s, ok := text(raw)
	if !ok {
		s = string(raw)
	}
	n, ok := parseNumber(s)
	if !ok || n <= 0 {
		return time.Time{}
	}
	return sinceEpoch(n)
}
