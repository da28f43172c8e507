package mcpoauth

import (
	"context"
	"net/url"
	"slices"
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
	q.Timeout = c.RequestTimeout
	if c.TokenURL == "" && c.Discovered != nil {
		q.Control = guard(c.Discovered.Policy.Or(c.AllowPrivateAddresses))
	}
	switch q.AuthMethod {
	case grant.PrivateKeyJWT:
		assertion, err := c.assertion(time.Now())
		if err != nil {
			return nil, err
		}
		q.Assertion = assertion
	case grant.TLSClientAuth:
		certificate, err := grant.ParseClientCertificate(c.ClientCertificate, c.ClientCertificateKey)
		if err != nil {
			return nil, err
		}
		q.Certificate = certificate
	default:
		q.ClientSecret = c.ClientSecret
	}
	return q, nil
}

// parameters are the parts of the token request that make the token what it is.
func (c *config) parameters(r *role) *grant.Request {
	q := &grant.Request{
		TokenURL:    c.tokenURL(),
		ClientID:    c.ClientID,
		Scopes:      c.scopes(),
		Resources:   c.resources(),
		Audience:    c.Audience,
		ExtraParams: c.ExtraParams,
	}
	if r == nil {
		return q
	}
	if len(r.Scopes) > 0 {
		q.Scopes = r.Scopes
	}
	switch {
	case r.OmitResource:
		q.Resources = nil
	case len(r.Resource) > 0:
		q.Resources = r.Resource
	}
	if r.Audience != "" {
		q.Audience = r.Audience
	}
	if len(r.ExtraParams) > 0 {
		q.ExtraParams = r.ExtraParams
	}
	return q
}

// assertion is what client assertions are made of at now.
func (c *config) assertion(now time.Time) (*grant.Assertion, error) {
	active := c.Keys.activeAt(now)
	if active < 0 {
		return nil, badRequest("private_key is missing: write one, or key_type for a key that the plugin makes")
	}
	key, err := c.key(c.Keys[active])
	if err != nil {
		return nil, err
	}
	a := &grant.Assertion{Key: key, Audience: c.assertionAudience()}
	if c.Certificate != "" {
		if a.Certificate, err = grant.ParseCertificate(c.Certificate, key); err != nil {
			return nil, err
		}
	}
	return a, nil
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

// scopes are the scopes to ask for: the operator's, or those that discovery found.
func (c *config) scopes() []string {
	if len(c.Scopes) == 0 && c.TokenURL == "" && c.Discovered != nil {
		return c.Discovered.Scopes
	}
	return c.Scopes
}

// resources are the resource indicators of the config itself (RFC 8707): what the
// operator wrote, or the MCP server's URL, in its own spelling where that is known.
func (c *config) resources() []string {
	switch {
	case c.OmitResource:
		return nil
	case len(c.Resource) > 0:
		return c.Resource
	case c.TokenURL == "" && c.Discovered != nil && c.Discovered.Resource != "":
		return []string{c.Discovered.Resource}
	case c.ServerURL != "":
		return []string{canonicalResource(c.ServerURL)}
	default:
		return nil
	}
}

// terms are what the engine needs of a config or one of its roles.
func (c *config) terms(r *role) *tokens.Terms {
	q := c.parameters(r)
	t := &tokens.Terms{
		Shape:       c.shape(q),
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
		Incarnation string
		TokenURL    string
		ClientID    string
		Scopes      []string `json:",omitempty"`
		Resources   []string `json:",omitempty"`
		Audience    string
		ExtraParams map[string]string `json:",omitempty"`
	}{c.Incarnation, q.TokenURL, q.ClientID, q.Scopes, q.Resources, q.Audience, q.ExtraParams})
}

// authMethod is the client authentication method in effect: the operator's, or that of
// the credentials. For a secret it is the first of basic and post that the metadata
// names, and basic where it names none (RFC 8414 section 2).
func (c *config) authMethod() grant.AuthMethod {
	switch {
	case c.AuthMethod != "":
		return c.AuthMethod
	case len(c.Keys) > 0:
		return grant.PrivateKeyJWT
	case c.ClientCertificate != "" || c.ClientCertificateKey != "":
		return grant.TLSClientAuth
	case c.serverNames(grant.ClientSecretPost) && !c.serverNames(grant.ClientSecretBasic):
		return grant.ClientSecretPost
	default:
		return grant.ClientSecretBasic
	}
}

// serverNames tells whether the authorization server's metadata names the method.
func (c *config) serverNames(method grant.AuthMethod) bool {
	return c.Discovered != nil && slices.Contains(c.Discovered.AuthMethods, string(method))
}

// supportedAlgs are the signing algorithms that the metadata names; none where there is
// no metadata.
func (c *config) supportedAlgs() []string {
	if c.Discovered == nil {
		return nil
	}
	return c.Discovered.SigningAlgs
}

// tokenURL is the token endpoint in effect.
func (c *config) tokenURL() string {
	switch {
	case c.TokenURL != "":
		return c.TokenURL
	case c.Discovered == nil:
		return ""
	case c.authMethod() == grant.TLSClientAuth && c.Discovered.MTLSTokenURL != "":
		return c.Discovered.MTLSTokenURL // RFC 8705 section 5
	default:
		return c.Discovered.TokenURL
	}
}

// issuer is the authorization server's identifier; empty where it is not known.
func (c *config) issuer() string {
	if c.Issuer == "" && c.TokenURL == "" && c.Discovered != nil {
		return c.Discovered.Issuer
	}
	return c.Issuer
}

// The names that assertion_audience has for what the config knows by itself.
const (
	audienceIssuer        = "issuer"
	audienceTokenEndpoint = "token_endpoint"
)

// assertionAudience is the aud of client assertions; empty where it is the issuer and
// that is not known.
func (c *config) assertionAudience() string {
	switch c.AssertionAudience {
	case audienceIssuer:
		return c.issuer()
	case audienceTokenEndpoint:
		return c.tokenURL()
	case "":
		if issuer := c.issuer(); issuer != "" {
			return issuer
		}
		return c.tokenURL()
	default:
		return c.AssertionAudience
	}
}
