package discovery

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// published combines the metadata and the challenge. MCP prefers the challenge's scopes.
func published(m *resourceMetadata, said hint) Published {
	p := Published{Scopes: said.scopes, Resource: m.resource}
	if p.Scopes == nil {
		p.Scopes = grantable(m.scopes)
	}
	return p
}

// grantable leaves out the scopes of OpenID Connect Core sections 3.1.2.1, 5.4 and 11: they are about a user,
// and authorization servers refuse them for the client credentials grant.
func grantable(scopes []string) []string {
	var kept []string
	for _, scope := range scopes {
		switch scope {
		case "openid", "profile", "email", "address", "phone", "offline_access":
		default:
			kept = append(kept, scope)
		}
	}
	return kept
}

// fromServer searches from an MCP server's URL: its challenge, its metadata, its authorization servers.
func (s *search) fromServer(ctx context.Context, server *url.URL) (*Result, error) {
	said, reached := s.challenge(ctx, server)
	if !reached {
		return nil, s.notFound(ctx)
	}
	m, policy := s.resource(ctx, server, said, true)
	if m == nil {
		failed := s.notFound(ctx)
		failed.NoMetadata = true
		failed.Issuer = s.originIssuer(ctx, server, said.policy)
		return nil, failed
	}
	found := s.named(ctx, m.servers, policy)
	if found == nil {
		return nil, s.notFound(ctx)
	}
	found.Published = published(m, said)
	if said.nothing {
		found.Warnings = append(found.Warnings, "server_url itself answers HTTP 404: check that it is the URL that MCP clients call")
	}
	return found, nil
}

// maxServers is how many authorization servers of one MCP server are tried: more would only cost time.
const maxServers = 4

// named tries the authorization servers named by an MCP server, in their order.
func (s *search) named(ctx context.Context, servers []string, policy Policy) *Result {
	for i, issuer := range servers {
		if i == maxServers {
			s.leave(servers[i:], fmt.Sprintf("not tried, as the %d before it were", maxServers))
			return nil
		}
		before := len(s.attempts)
		found := s.server(ctx, issuer, policy)
		if found == nil {
			if slices.ContainsFunc(s.attempts[before:], func(a Attempt) bool { return a.down }) {
				// The credentials may be for this server: another one must not get them while it is down.
				s.leave(servers[i+1:], "not tried, as the one before it may only be down")
				return nil
			}
			continue
		}
		found.Others = slices.Concat(servers[:i], servers[i+1:])
		found.Others = found.Others[:min(len(found.Others), maxServers)]
		if i > 0 {
			found.Warnings = append(found.Warnings, fmt.Sprintf("this is authorization server %d in the MCP server's list: those before it can't be used (%s)", i+1, shown(strings.Join(servers[:i], ", "))))
		}
		return found
	}
	return nil
}

// leave records the authorization servers not tried, and how the operator can choose one.
func (s *search) leave(servers []string, reason string) {
	for i, issuer := range servers {
		if i == maxServers {
			reason = fmt.Sprintf("%s, nor were %d more", reason, len(servers)-i-1)
		}
		s.attempts = append(s.attempts, Attempt{URL: shown(issuer), Reason: fmt.Sprintf("%s: write issuer=%s to choose it", reason, shown(issuer))})
		if i == maxServers {
			return
		}
	}
}

// originIssuer returns the issuer of the authorization server metadata at an MCP server's origin; "" without such
// metadata. MCP's specification of 2025-03-26 used that server. The MCP server does not name it, so the operator
// must.
func (s *search) originIssuer(ctx context.Context, server *url.URL, policy Policy) string {
	for _, raw := range serverURLs(&url.URL{Scheme: server.Scheme, Host: server.Host}) {
		u, reason := parseURL(raw)
		if reason != "" || reach.Ended(ctx) != nil {
			continue
		}
		a, fail := s.document(ctx, u, policy)
		if fail != nil {
			continue
		}
		m, reason := parseServer(a.body)
		if _, odd := parseIssuer(m.issuer); reason == "" && odd == "" && m.token != "" {
			return m.issuer
		}
	}
	return ""
}

// resource fetches the MCP server's metadata: from the URL in its challenge, else from the well-known URLs. The
// metadata must name authorization servers if servers is set.
func (s *search) resource(ctx context.Context, server *url.URL, said hint, servers bool) (m *resourceMetadata, policy Policy) {
	urls := resourceURLs(server)
	if said.metadata != "" {
		urls = slices.DeleteFunc(urls, func(u string) bool { return u == said.metadata })
		urls = append([]string{said.metadata}, urls...)
	}
	for _, raw := range urls {
		if reach.Ended(ctx) != nil {
			return nil, Policy{}
		}
		u, reason := parseURL(raw)
		if reason != "" {
			of := "the well-known URL of its metadata "
			if raw == said.metadata {
				of = "the challenge's resource_metadata "
			}
			s.refuse(server, of+reason)
			continue
		}
		a, fail := s.document(ctx, u, said.policy)
		if fail != nil {
			s.fail(u, fail)
			continue
		}
		m, reason := parseResource(a.body)
		if reason == "" {
			reason = unfit(m, server, servers)
		}
		if reason == "" {
			return &m, a.policy
		}
		s.refuse(u, reason)
	}
	return nil, Policy{}
}

// unfit returns why a document is not the MCP server's, or "". A document must name the resource for which it was
// fetched (RFC 9728 section 3.3): otherwise a server could make a client get tokens for another server, and steal
// them.
func unfit(m resourceMetadata, server *url.URL, servers bool) string {
	switch {
	case m.resource == "":
		return "the metadata names no resource"
	case !covers(m.resource, server):
		return fmt.Sprintf("its resource is %s, not the MCP server's URL", shown(m.resource))
	case servers && len(m.servers) == 0:
		return "the metadata names no authorization_servers"
	}
	return ""
}

// covers reports whether a resource identifier covers the URL, as the MCP SDKs compare them. The origin must be the
// same, the path the same or one above, the query the same or empty. Servers publish one document for all their
// paths, and frameworks add a slash.
func covers(resource string, u *url.URL) bool {
	r, reason := parseURL(resource)
	if reason != "" || origin(r) != origin(u) || r.RawQuery != "" && r.RawQuery != u.RawQuery {
		return false
	}
	segments := func(u *url.URL) string { return strings.TrimSuffix(u.EscapedPath(), "/") + "/" }
	return strings.HasPrefix(segments(u), segments(r))
}

// resourceURLs returns the well-known URLs of an MCP server's metadata: the one of RFC 9728 section 3.1, which keeps
// the query, then the one at the root, which MCP adds.
func resourceURLs(server *url.URL) []string {
	root := server.Scheme + "://" + server.Host + "/.well-known/oauth-protected-resource"
	first := root
	if path := server.EscapedPath(); path != "/" {
		first += path
	}
	if server.RawQuery != "" {
		first += "?" + server.RawQuery
	}
	return slices.Compact([]string{first, root})
}
