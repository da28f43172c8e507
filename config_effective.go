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

// authMethod returns the client authentication method in effect: the operator's, else one that fits the credentials.
// A secret is sent by client_secret_basic, the default of RFC 8414 section 2. If the metadata names
// client_secret_post but not client_secret_basic, the secret is sent by client_secret_post, unless raw_basic_auth is
// set.
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

// credentialsKind returns the kind of the credentials. Credentials from the operator are named after their field.
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

// publishedDefaults returns the scopes and the resource named by the MCP server; empty if unknown.
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

// defaultParameters returns the token parameters before the config's own override them: the scopes and the resource
// published by the MCP server. The server's URL replaces a missing resource.
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
