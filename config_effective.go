package mcpoauth

import (
	"slices"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// tokenURL returns the token endpoint in effect.
func (c *config) tokenURL() string {
	switch {
	case c.TokenURL != "":
		return c.TokenURL
	case c.Discovered == nil:
		return ""
	case c.authMethod().Certificate() && c.Discovered.MTLSTokenURL != "":
		return c.Discovered.MTLSTokenURL // RFC 8705 section 5
	default:
		return c.Discovered.TokenURL
	}
}

// issuer returns the authorization server's identifier; empty if it is not known.
func (c *config) issuer() string {
	if c.TokenURL == "" && c.Discovered != nil {
		return c.Discovered.Issuer // in the server's spelling, for assertions
	}
	return c.Issuer
}

// authMethod returns the client authentication method in effect: the operator's, else one for the credentials. For a
// secret it is client_secret_post if the metadata names it without client_secret_basic, unless raw_basic_auth is set,
// and client_secret_basic otherwise (RFC 8414 section 2).
func (c *config) authMethod() grant.AuthMethod {
	switch {
	case c.AuthMethod != "":
		return c.AuthMethod
	case c.Grant == grant.JWTBearer && c.ClientSecret == "" && c.ClientCertificate == "":
		return grant.None
	case c.Grant != grant.JWTBearer && len(c.Keys) > 0:
		return grant.PrivateKeyJWT
	case c.ClientCertificate != "" || c.ClientCertificateKey != "":
		if c.serverNames(grant.SelfSignedTLSClientAuth) && !c.serverNames(grant.TLSClientAuth) {
			return grant.SelfSignedTLSClientAuth
		}
		return grant.TLSClientAuth
	case c.serverNames(grant.ClientSecretPost) && !c.serverNames(grant.ClientSecretBasic) && !c.RawBasicAuth:
		return grant.ClientSecretPost
	default:
		return grant.ClientSecretBasic
	}
}

// credentialsKind returns the kind of the credentials; an operator's are named after the field.
func (c *config) credentialsKind() string {
	switch {
	case len(c.Keys) > 0 && c.KeyType != "":
		return "generated_key"
	case len(c.Keys) > 0:
		return "private_key"
	case c.ClientCertificate != "":
		return "client_certificate"
	default:
		return "client_secret"
	}
}

// serverNames reports whether the authorization server's metadata names the method.
func (c *config) serverNames(method grant.AuthMethod) bool {
	return c.Discovered != nil && slices.Contains(c.Discovered.AuthMethods, string(method))
}

// publishedDefaults returns the scopes and the resource named by the MCP server, as far as they are known.
func (c *config) publishedDefaults() (scopes []string, resource string) {
	switch {
	case c.Published != nil:
		return c.Published.Scopes, c.Published.Resource
	case c.TokenURL == "" && c.Discovered != nil:
		return c.Discovered.Scopes, c.Discovered.Resource
	default:
		return nil, ""
	}
}

// defaultParameters returns the token parameters of a config without its own: the MCP server's scopes, and its
// resource or else its URL.
func (c *config) defaultParameters() grant.Parameters {
	scopes, resource := c.publishedDefaults()
	if resource == "" && c.ServerURL != "" {
		resource = canonicalResource(c.ServerURL)
	}
	p := grant.Parameters{Scopes: scopes}
	if resource != "" {
		p.Resources = []string{resource}
	}
	return p
}

// supportedAlgs returns the signing algorithms that the metadata names for client assertions; nil without metadata.
func (c *config) supportedAlgs() []string {
	if c.Discovered == nil || c.Grant == grant.JWTBearer {
		return nil
	}
	return c.Discovered.SigningAlgs
}
