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

// request returns the token request of a config or of its role r. r is nil for the config itself.
func (c *config) request(r *role) (*grant.Request, error) {
	q := c.parameters(r)
	q.AuthMethod = c.authMethod()
	q.CACert = c.CACert
	q.ExtraHeaders = c.ExtraHeaders
	q.Timeout = c.RequestTimeout
	if c.TokenURL == "" && c.Discovered != nil {
		q.Control = guard(c.Discovered.Policy.Or(c.AllowPrivateAddresses))
		// If the operator named this server, the request uses the same proxy as discovery.
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

// parameters returns the parts of the token request that decide which token is issued. r is nil for the config
// itself.
func (c *config) parameters(r *role) *grant.Request {
	q := &grant.Request{TokenURL: c.tokenURL(), Grant: c.grantType(), ClientID: c.clientID(), Parameters: c.defaultParameters()}
	c.override(&q.Parameters)
	if r != nil {
		r.override(&q.Parameters)
	}
	return q
}

// guard returns p's check of the address before each connection. Its refusals have the type that grant returns
// unchanged.
func guard(p discovery.Policy) func(network, address string, c syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		if err := p.Control(network, address, c); err != nil {
			return &grant.UnavailableError{Reason: err.Error()}
		}
		return nil
	}
}

// terms returns the engine's view of a config or of its role r. r is nil for the config itself.
func (c *config) terms(r *role) *tokens.Terms {
	q := c.parameters(r)
	t := &tokens.Terms{
		Shape:       c.shape(q),
		Client:      fingerprint(append([]string{q.TokenURL, q.ClientID}, c.assertedAs(q)...)),
		DefaultTTL:  c.DefaultTTL,
		MaxTTL:      c.MaxTTL,
		IdleTimeout: c.IdleTimeout,
		// Keys and certificates are parsed only for a fetch: terms are also made just to compare shapes.
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

// shape returns the fingerprint of the parameters that decide which token is issued. It excludes credentials,
// transport and lifetimes, since a token stays valid when they change. Empty lists count as absent, because storage
// omits them.
func (c *config) shape(q *grant.Request) string {
	return fingerprint(struct {
		Incarnation, TokenURL, ClientID string
		grant.Parameters
		AssertedAs []string `json:",omitempty"`
	}{c.Incarnation, q.TokenURL, q.ClientID, q.Parameters, c.assertedAs(q)})
}

// assertedAs returns the grant, issuer and subject of the assertions if they identify the client to the authorization
// server; nil if client_id alone does.
func (c *config) assertedAs(q *grant.Request) []string {
	if q.ClientID != "" && q.Grant == grant.ClientCredentials {
		return nil
	}
	return []string{string(q.Grant), c.issuerURL(), c.subject()}
}
