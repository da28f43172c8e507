package discovery

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// server fetches the metadata of an issuer's authorization server. policy is the policy of the document that named
// the issuer.
func (s *search) server(ctx context.Context, issuer string, policy Policy) *Result {
	u, reason := parseIssuer(issuer)
	if reason != "" {
		s.attempts = append(s.attempts, Attempt{URL: shown(strings.SplitN(issuer, "?", 2)[0]), Reason: "as an issuer it " + reason})
		return nil
	}
	if field, value := MetadataOf(issuer); field == "issuer" {
		s.attempts = append(s.attempts, Attempt{URL: shown(issuer), Reason: "as an issuer it is the URL of a metadata document: write issuer=" + shown(value) + " if the credentials are for that server"})
		return nil
	}
	for _, raw := range serverURLs(u) {
		if reach.Ended(ctx) != nil {
			return nil
		}
		wellKnown, reason := parseURL(raw)
		if reason != "" {
			continue // too long for a URL
		}
		a, fail := s.document(ctx, wellKnown, policy)
		if fail != nil {
			if s.fail(wellKnown, fail); fail.unreached {
				return nil
			}
			continue
		}
		found, reason := s.take(a, issuer)
		if reason == "" {
			return found
		}
		s.refuse(wellKnown, reason)
	}
	return nil
}

// take makes a Result of an authorization server's metadata; reason is why the metadata is unusable.
func (s *search) take(a *answer, issuer string) (_ *Result, reason string) {
	m, reason := parseServer(a.body)
	switch {
	case reason != "":
		return nil, reason
	case m.issuer == "":
		return nil, "the metadata names no issuer"
	case !SameIssuer(m.issuer, issuer):
		reason := fmt.Sprintf("its issuer is %s, not %s", shown(m.issuer), shown(issuer))
		if issuer == s.Issuer && nearlyIssuer(m.issuer, issuer) {
			reason += ": write issuer=" + m.issuer
		}
		return nil, reason
	case m.token == "":
		return nil, "the metadata names no token_endpoint"
	}
	if reason := s.endpoint(m.token, a.policy); reason != "" {
		return nil, "its token_endpoint " + reason
	}
	found := &Result{
		Issuer:      m.issuer,
		TokenURL:    m.token,
		AuthMethods: m.authMethods,
		SigningAlgs: m.signingAlgs,
		Policy:      a.policy,
	}
	if m.mtlsToken != "" {
		if _, reason := parseURL(m.mtlsToken); reason != "" {
			found.Warnings = append(found.Warnings, "the metadata's token endpoint for mutual TLS is left out: it "+reason)
		} else {
			found.MTLSTokenURL = m.mtlsToken
		}
	}
	// Many servers with the grant don't list it.
	if wanted := cmp.Or(s.GrantType, "client_credentials"); m.grantTypes != nil && !slices.Contains(m.grantTypes, wanted) {
		found.Warnings = append(found.Warnings, "the authorization server's metadata does not list the "+wanted+" grant")
	}
	return found, ""
}

// endpoint returns why a token endpoint can't be used, or "".
func (s *search) endpoint(raw string, policy Policy) string {
	u, reason := parseURL(raw)
	if reason != "" {
		return reason
	}
	if reason := s.callable(u, policy); reason != "" {
		return "can't be called: " + reason
	}
	return ""
}

// SameIssuer reports whether two issuer identifiers belong to one server: they are identical, as RFC 8414 section 3.3
// requires, or one has the path "/" and the other an empty path. RFC 3986 section 6.2.3 makes these equal, and
// frameworks add the slash.
func SameIssuer(a, b string) bool {
	return a == b || withoutRootSlash(a) == withoutRootSlash(b)
}

// nearlyIssuer reports whether two issuer identifiers differ only in a final slash, in case, or in a default
// port.
func nearlyIssuer(a, b string) bool {
	u, odd := parseIssuer(a)
	v, odder := parseIssuer(b)
	path := func(u *url.URL) string { return strings.TrimSuffix(u.EscapedPath(), "/") }
	return odd == "" && odder == "" && origin(u) == origin(v) && strings.EqualFold(path(u), path(v))
}

// withoutRootSlash cuts off the path "/".
func withoutRootSlash(issuer string) string {
	if _, rest, ok := strings.Cut(issuer, "://"); ok && strings.IndexAny(rest, "/?#") == len(rest)-1 {
		return strings.TrimSuffix(issuer, "/")
	}
	return issuer
}

// parseIssuer parses an issuer identifier, which has neither query nor fragment (RFC 8414 section 2).
func parseIssuer(raw string) (u *url.URL, reason string) {
	u, reason = parseURL(raw)
	if reason == "" && (u.RawQuery != "" || u.ForceQuery) {
		return nil, "holds a query"
	}
	return u, reason
}

// serverURLs returns the well-known URLs of an issuer's metadata, in MCP's order (RFC 8414 sections 3.1 and 5, OpenID
// Connect Discovery section 4), without the issuer's final slash.
func serverURLs(issuer *url.URL) []string {
	root := issuer.Scheme + "://" + issuer.Host
	path := strings.TrimSuffix(issuer.EscapedPath(), "/")
	urls := []string{
		root + "/.well-known/oauth-authorization-server" + path,
		root + "/.well-known/openid-configuration" + path,
	}
	if path != "" {
		urls = append(urls, root+path+"/.well-known/openid-configuration")
	}
	return urls
}

// wellKnowns maps the well-known name of a metadata document to the field whose value leads to it.
var wellKnowns = map[string]string{
	"oauth-protected-resource":   "server_url",
	"oauth-authorization-server": "issuer",
	"openid-configuration":       "issuer",
}

// MetadataOf recognises the URL of a metadata document, which operators paste. It returns the field and the value to
// write instead: server_url or issuer, and the URL that leads to the document. field is "" for other URLs.
func MetadataOf(raw string) (field, value string) {
	u, reason := parseURL(raw)
	if reason != "" {
		return "", ""
	}
	before, after, ok := strings.Cut(u.EscapedPath(), "/.well-known/")
	if !ok {
		return "", ""
	}
	name, rest, inserted := strings.Cut(after, "/")
	if inserted {
		rest = "/" + rest
	}
	return wellKnowns[name], u.Scheme + "://" + u.Host + before + strings.TrimSuffix(rest, "/")
}
