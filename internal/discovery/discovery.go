// Package discovery finds the token endpoint that gives tokens for an MCP server: from the server's URL
// over its protected resource metadata (RFC 9728) to the metadata of its authorization server (RFC 8414,
// OpenID Connect Discovery), as MCP's authorization specification prescribes; or from an issuer alone.
//
// It sends no credentials. What it finds decides where credentials go, so documents are held to what they
// must say about themselves (which resource, which issuer), and the URLs in them are called under a
// Policy: who runs an MCP server must not be able to have Vault call its neighbours.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// maxServers is how many of a resource's authorization servers are tried: more would only cost time.
const maxServers = 4

// Result is what was found. Strings are visible ASCII.
type Result struct {
	// Issuer is the authorization server's identifier, as it spells it.
	Issuer string
	// TokenURL is the token endpoint: an absolute URL, https but for the exceptions of Request.
	TokenURL string
	// MTLSTokenURL is the token endpoint for clients with a certificate (RFC 8705 section 5); "" where
	// it is the same. Whether Policy permits it shows when it is called: most clients never do.
	MTLSTokenURL string
	// AuthMethods are the token_endpoint_auth_methods_supported; nil where the server does not say,
	// which means client_secret_basic (RFC 8414 section 2).
	AuthMethods []string
	// SigningAlgs are the token_endpoint_auth_signing_alg_values_supported; nil where the server does
	// not say.
	SigningAlgs []string
	// Scopes are those of the MCP server's challenge, else its metadata's scopes_supported; nil where it
	// names none, and with Issuer.
	Scopes []string
	// Resource is the MCP server's URL as its metadata spells it; "" without such metadata, with that of
	// its origin, and with Issuer.
	Resource string
	// Policy is what later calls of the token endpoints must stay under, without AllowPrivate: see
	// Policy.Or.
	Policy Policy
	// Warnings are what the operator should know, a sentence each.
	Warnings []string
}

// Do searches. Its errors are *Error, or such as say what is wrong with the request.
func (r *Request) Do(ctx context.Context) (*Result, error) {
	name, raw := "issuer", r.Issuer
	if raw == "" {
		name, raw = "server_url", r.ServerURL
	}
	if field, value := MetadataOf(raw); field != "" {
		return nil, fmt.Errorf("%s is the URL of a metadata document: write %s=%s", name, field, value)
	}
	u, reason := parseURL(raw)
	if reason == "" && r.Issuer != "" {
		_, reason = parseIssuer(raw)
	}
	if reason != "" {
		return nil, fmt.Errorf("%s %s", name, reason)
	}
	roots, ok := rootsOf(r.CACert)
	if !ok {
		return nil, errors.New("ca_cert holds no certificate in PEM form")
	}
	// Inside is fine for the operator's own URL, but what no policy permits is permitted to nobody who may
	// write a config.
	s := &search{Request: r, origin: origin(u), own: Policy{Loopback: true, Private: true}, roots: roots, proxy: r.proxied}
	if s.proxy == nil {
		s.proxy = http.ProxyFromEnvironment
	}
	var found *Result
	if r.Issuer != "" {
		found = s.server(ctx, r.Issuer, Policy{})
	} else {
		found = s.fromServer(ctx, u)
	}
	if found == nil {
		return nil, &Error{Attempts: s.attempts, Ended: reach.Ended(ctx)}
	}
	return found, nil
}

// fromServer searches from an MCP server's URL: its challenge, its metadata, its authorization servers.
func (s *search) fromServer(ctx context.Context, server *url.URL) *Result {
	said, reached := s.challenge(ctx, server)
	if !reached || reach.Ended(ctx) != nil {
		return nil
	}
	m, policy, exists := s.resource(ctx, server, said)
	if m == nil {
		if exists || reach.Ended(ctx) != nil {
			return nil
		}
		return s.legacy(ctx, server, said)
	}
	for i, issuer := range m.servers {
		if i == maxServers {
			s.attempts = append(s.attempts, Attempt{URL: shown(issuer), Reason: fmt.Sprintf("not tried, as the %d before it were: write issuer to choose it", maxServers)})
			return nil
		}
		before := len(s.attempts)
		found := s.server(ctx, issuer, policy)
		if found == nil {
			if slices.ContainsFunc(s.attempts[before:], func(a Attempt) bool { return a.down }) {
				return nil // the credentials may be for this one: another must not get them because it is down
			}
			continue
		}
		if i > 0 {
			found.Warnings = append(found.Warnings, fmt.Sprintf("of the authorization servers that the MCP server names, this is number %d: before it %s, which can't be used", i+1, shown(strings.Join(m.servers[:i], ", "))))
		}
		if found.Scopes = said.scopes; found.Scopes == nil {
			found.Scopes = m.scopes
		}
		if sameResource(m.resource, server) {
			found.Resource = m.resource
		} else {
			found.Warnings = append(found.Warnings, fmt.Sprintf("the MCP server's metadata is that of its origin: set resource to %s if tokens for server_url are refused", m.resource))
		}
		return found
	}
	return nil
}

// legacy takes the MCP server's origin for its authorization server, as MCP's specification of 2025-03-26
// had it. Only for a server that has no protected resource metadata at all: a document that was refused
// must not be got around.
func (s *search) legacy(ctx context.Context, server *url.URL, said hint) *Result {
	found := s.server(ctx, server.Scheme+"://"+server.Host, said.policy)
	if found != nil {
		found.Scopes = said.scopes
		found.Warnings = append(found.Warnings, "the MCP server has no protected resource metadata (RFC 9728): it was taken for its own authorization server")
	}
	return found
}
