package mcpoauth

import (
	"context"
	"net/url"
	"syscall"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// request is the token request of a config, or of one of its roles.
func (c *config) request(r *role) (*grant.Request, error) {
	q := c.parameters(r)
	q.AuthMethod = c.authMethod()
	q.CACert = c.CACert
	q.ExtraHeaders = c.ExtraHeaders
	q.Timeout = c.RequestTimeout
	if c.TokenURL == "" && c.Discovered != nil {
		q.Control = guard(c.Discovered.Policy.Or(c.AllowPrivateAddresses))
		// The operator named that server, and discovery was led through the proxy to it.
		q.Proxied = discovery.SameOrigin(q.TokenURL, c.discoverySource())
	}
	if q.AuthMethod == grant.PrivateKeyJWT || q.Grant == grant.JWTBearer {
		assertion, err := c.assertion(time.Now())
		if err != nil {
			return nil, err
		}
		q.Assertion = assertion
	}
	switch q.AuthMethod {
	case grant.PrivateKeyJWT, grant.None:
	case grant.TLSClientAuth, grant.SelfSignedTLSClientAuth:
		certificate, err := grant.ParseClientCertificate(c.ClientCertificate, c.ClientCertificateKey)
		if err != nil {
			return nil, err
		}
		q.Certificate = certificate
	default:
		q.ClientSecret, q.RawBasicAuth = c.ClientSecret, c.RawBasicAuth
	}
	return q, nil
}

// parameters returns the parts of the token request that decide which token it gets. r is nil for the config itself.
func (c *config) parameters(r *role) *grant.Request {
	q := &grant.Request{TokenURL: c.tokenURL(), Grant: c.grantType(), ClientID: c.clientID(), Parameters: c.defaultParameters()}
	c.override(&q.Parameters)
	if r != nil {
		r.override(&q.Parameters)
	}
	return q
}

// guard makes a policy's refusal of an address one that the request reports as it is.
func guard(p discovery.Policy) func(network, address string, c syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		if err := p.Control(network, address, c); err != nil {
			return &grant.UnavailableError{Reason: err.Error()}
		}
		return nil
	}
}

// terms are what the engine needs of a config or one of its roles.
func (c *config) terms(r *role) *tokens.Terms {
	q := c.parameters(r)
	t := &tokens.Terms{
		Shape:       c.shape(q),
		Client:      fingerprint(append([]string{q.TokenURL, q.ClientID}, c.assertedAs(q)...)),
		DefaultTTL:  c.DefaultTTL,
		MaxTTL:      c.MaxTTL,
		IdleTimeout: c.IdleTimeout,
		// Keys and certificates are parsed for a fetch, and not to look whether a
		// token's shape is still right.
		Fetch: func(ctx context.Context) (*grant.Token, error) {
			q, err := c.request(r)
			if err != nil {
				return nil, &grant.UnavailableError{Reason: err.Error()}
			}
			return q.Do(ctx)
		},
	}
	if u, err := url.Parse(q.TokenURL); err == nil {
		t.Host = u.Host
	}
	return t
}

// shape is the fingerprint of what makes a token the token it is. Credentials,
// transport and lifetimes are not in it: a token outlives their change. An empty list
// counts as none: that is what storage makes of it.
func (c *config) shape(q *grant.Request) string {
	return fingerprint(struct {
		Incarnation, TokenURL, ClientID string
		grant.Parameters
		AssertedAs []string `json:",omitempty"`
	}{c.Incarnation, q.TokenURL, q.ClientID, q.Parameters, c.assertedAs(q)})
}

// assertedAs is who the authorization server knows the client as if that is not said by its client_id, or not by
// that alone: grant, issuer and subject of the assertions. It is nil if client_id says it.
func (c *config) assertedAs(q *grant.Request) []string {
	if q.ClientID != "" && q.Grant == grant.ClientCredentials {
		return nil
	}
	return []string{string(q.Grant), c.issuerURL(), c.subject()}
}
