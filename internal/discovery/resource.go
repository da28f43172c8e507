package discovery

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// hint is what an MCP server's answer to a request without a token says.
type hint struct {
	bearer
	policy Policy // for the metadata's URL
}

// probe is the request that MCP clients begin with. It needs no session and makes none, and a server that
// does not know it has refused a request without a token before it finds out.
const (
	probeVersion = "2026-07-28"
	probeMethod  = "server/discover"
	probe        = `{"jsonrpc":"2.0","id":1,"method":"` + probeMethod + `","params":{"_meta":{` +
		`"io.modelcontextprotocol/protocolVersion":"` + probeVersion + `",` +
		`"io.modelcontextprotocol/clientInfo":{"name":"` + userAgent + `","version":"1"},` +
		`"io.modelcontextprotocol/clientCapabilities":{}}}}`
)

// challenge asks the MCP server without a token, to be told what it wants. First by GET, which changes
// nothing. Many servers answer that with 405 before they look for a token, as MCP up to 2025-11-25 asks
// of those without event streams, and as all may since: hence by POST as well. reached is false if there
// was no connection, which the server's other URLs would share.
func (s *search) challenge(ctx context.Context, server *url.URL) (said hint, reached bool) {
	get := call{method: http.MethodGet, url: server, head: true, header: http.Header{
		"Accept": {"application/json, text/event-stream"},
	}}
	post := call{method: http.MethodPost, url: server, head: true, body: probe, header: http.Header{
		"Accept":               {"application/json, text/event-stream"},
		"Content-Type":         {"application/json"},
		"Mcp-Protocol-Version": {probeVersion},
		"Mcp-Method":           {probeMethod},
	}}
	var statuses []int
	for _, c := range []call{get, post} {
		a, fail := s.do(ctx, c)
		if fail != nil {
			s.fail(server, fail)
			return said, !fail.unreached
		}
		said.policy = a.policy
		if a.status/100 == 3 {
			s.refuse(server, redirected(server, a))
			return said, true
		}
		if statuses = append(statuses, a.status); a.status != http.StatusUnauthorized {
			continue
		}
		said.bearer = parseBearer(a.header.Values("WWW-Authenticate"))
		if said.metadata == "" {
			s.refuse(server, "the challenge names no resource_metadata")
		}
		return said, true
	}
	s.refuse(server, fmt.Sprintf("answers a request without a token with HTTP %d (GET) and %d (POST), not with a challenge", statuses[0], statuses[1]))
	return said, true
}

// resource gets the MCP server's metadata: from where its challenge says, else from the well-known URLs.
// exists is set if there is a document, or may be, though none fit: a challenge that names one says so, and
// what answers with anything but a 4xx or something that is no metadata.
func (s *search) resource(ctx context.Context, server *url.URL, said hint) (m *resourceMetadata, policy Policy, exists bool) {
	urls := resourceURLs(server)
	root := urls[len(urls)-1]
	if said.metadata != "" {
		exists = true
		urls = slices.DeleteFunc(urls, func(u string) bool { return u == said.metadata })
		urls = append([]string{said.metadata}, urls...)
	}
	for _, raw := range urls {
		if reach.Ended(ctx) != nil {
			return nil, Policy{}, exists
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
			exists = exists || !fail.absent
			continue
		}
		m, reason := parseResource(a.body)
		if reason == "" {
			exists = true
			reason = unfit(m, server, raw == root)
		}
		if reason == "" {
			return &m, a.policy, exists
		}
		s.refuse(u, reason)
	}
	return nil, Policy{}, exists
}

// unfit says why a document is not the MCP server's, or "". It must name exactly what it was asked for
// (RFC 9728 section 3.3): without that, a server could have a client get tokens for another and take
// them. The root's document, which MCP adds for servers with a path, may name the origin: the well-known
// URL of that is the root's.
func unfit(m resourceMetadata, server *url.URL, root bool) string {
	at := &url.URL{Scheme: server.Scheme, Host: server.Host}
	switch {
	case m.resource == "":
		return "the metadata names no resource"
	case !sameResource(m.resource, server) && !(root && sameResource(m.resource, at)):
		return fmt.Sprintf("its resource is %s, not the MCP server's URL", shown(m.resource))
	case len(m.servers) == 0:
		return "the metadata names no authorization_servers"
	}
	return ""
}

// sameResource compares a resource identifier with a URL, as RFC 9728 section 3.3 asks, but for what is
// the same by RFC 3986 section 6.2, and a slash at the end: frameworks add one.
func sameResource(resource string, u *url.URL) bool {
	r, reason := parseURL(resource)
	return reason == "" && origin(r) == origin(u) && r.RawQuery == u.RawQuery &&
		strings.TrimSuffix(r.EscapedPath(), "/") == strings.TrimSuffix(u.EscapedPath(), "/")
}

// resourceURLs are the well-known URLs of an MCP server's metadata: RFC 9728 section 3.1's, which keeps
// the query, then the root, which MCP adds.
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
