// Package discovery finds the token endpoint for an MCP server, as MCP's authorization specification prescribes. It
// goes from the server's URL over its protected resource metadata (RFC 9728) to the metadata of its authorization
// server (RFC 8414, OpenID Connect Discovery). It can also start from an issuer.
//
// It never sends credentials, but its result decides which server gets them. So a document must name the resource or
// the issuer for which it was fetched. A Policy limits the URLs in documents: the owner of an MCP server must not be
// able to make Vault call its neighbours.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// Do searches for the token endpoint. Its errors are *Error, or name the invalid field of the request.
func (r *Request) Do(ctx context.Context) (*Result, error) {
	return r.do(ctx, network{proxy: http.ProxyFromEnvironment})
}

func (r *Request) do(ctx context.Context, over network) (*Result, error) {
	if r.Issuer == "" {
		s, u, err := r.begin(over, "server_url", r.ServerURL)
		if err != nil {
			return nil, err
		}
		return s.fromServer(ctx, u)
	}
	s, _, err := r.begin(over, "issuer", r.Issuer)
	if err != nil {
		return nil, err
	}
	if found := s.server(ctx, r.Issuer, Policy{}); found != nil {
		return found, nil
	}
	return nil, s.notFound(ctx)
}

// lookTime bounds Look, which only finds defaults: a write waits for it.
const lookTime = 5 * time.Second

// Look fetches the challenge and the metadata of the MCP server at ServerURL, within 5 s in all and 3 s for each
// request. Issuer is not used. If the metadata can't be fetched, Look returns the challenge's scopes, if any, and
// an error like Do's.
func (r *Request) Look(ctx context.Context) (Published, error) {
	return r.look(ctx, network{proxy: http.ProxyFromEnvironment})
}

func (r *Request) look(ctx context.Context, over network) (Published, error) {
	short := *r
	short.Timeout = min(r.Timeout, lookTime*3/5)
	s, u, err := short.begin(over, "server_url", r.ServerURL)
	if err != nil {
		return Published{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	said, reached := s.challenge(ctx, u)
	if reached {
		if m, _ := s.resource(ctx, u, said, false); m != nil {
			return published(m, said), nil
		}
	}
	return Published{Scopes: said.scopes}, &Error{Attempts: s.attempts, Ended: reach.Ended(ctx), NoMetadata: true}
}

// begin makes a search from the operator's URL.
func (r *Request) begin(over network, field, raw string) (*search, *url.URL, error) {
	if name, value := MetadataOf(raw); name != "" {
		return nil, nil, fmt.Errorf("%s is the URL of a metadata document: write %s=%s", field, name, value)
	}
	u, reason := parseURL(raw)
	if reason == "" && field == "issuer" {
		_, reason = parseIssuer(raw)
	}
	if reason != "" {
		return nil, nil, fmt.Errorf("%s %s", field, reason)
	}
	roots, ok := rootsOf(r.CACert)
	if !ok {
		return nil, nil, errors.New("ca_cert holds no certificate in PEM form")
	}
	// The operator's own URL may be at a private address, but not at an address that every policy refuses.
	return &search{Request: r, network: over, origin: origin(u), own: Policy{Loopback: true, Private: true}, roots: roots}, u, nil
}
