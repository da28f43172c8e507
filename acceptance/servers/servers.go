// Package servers fetches, starts and administers authorization servers of other makers, for tests of the plugin
// and of the recipes in docs/providers.md.
package servers

import (
	"context"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A Kind is an authorization server that can be run here.
type Kind struct {
	Name    string // of the test
	Version string
	Section string // heading of its recipe in docs/providers.md; "" if another kind has the recipe

	// Start starts one on free ports of loopback. It stops with the bed.
	Start func(ctx context.Context, b *bed.Bed) (Server, error)

	// Methods are its client authentication methods (RFC 7591, RFC 8414, RFC 8705).
	Methods []string
	// Secrets are client secrets that it accepts, beyond letters and digits. Default: Printable.
	Secrets []string
	// Algorithms are its algorithms of client assertions (RFC 7518) that the plugin can sign with.
	Algorithms []string

	// ByResource is set if the resource parameter decides the audience (RFC 8707), not the client's registration.
	ByResource bool

	// Fields returns a client's config fields that discovery does not find, such as assertion_audience. Default:
	// none.
	Fields func(c Client) map[string]any

	// Refusals are faults that the plugin reports in the server's words.
	Refusals []Refusal
}

// A Refusal is a fault, at the server or in the config, with the operator's error.
type Refusal struct {
	Name   string
	Client func(*Client)  // the administrator's change; nil: none
	Fields map[string]any // of the config
	Says   string         // a part of the plugin's error
}

// Kinds are the servers here, except oidc-provider of the other acceptance tests.
var Kinds = []Kind{keycloak, keycloakWithResourceIndicators, spring, hydra, authlib}

// A Client is a registered client.
type Client struct {
	ID        string   `json:"id"`
	Secret    string   `json:"secret"`
	Method    string   `json:"method"`    // client authentication method; Kind.Methods, or at Keycloak federated-jwt
	JWKSURI   string   `json:"jwksURI"`   // for private_key_jwt
	Algorithm string   `json:"algorithm"` // of its assertions, for servers that take one of a client; Kind.Algorithms
	Subject   string   `json:"subject"`   // distinguished name of its certificate (RFC 4514), for tls_client_auth
	Audience  string   `json:"audience"`  // of its tokens: the MCP server's URL
	Scopes    []string `json:"scopes"`

	Disabled    bool `json:"-"`           // for servers that can disable one
	Off         bool `json:"off"`         // without the client credentials grant
	BoundTokens bool `json:"boundTokens"` // tokens are bound to the client certificate (RFC 8705 section 3)

	// Attributes are further settings, in the server's own words.
	Attributes map[string]string `json:"-"`
}

// A Server is a running authorization server, and its administrator.
type Server interface {
	// Issuer returns the server for MCP servers: with TLS for tls_client_auth, else without.
	Issuer(method string) bed.Issuer

	// CA returns the CA of its certificate and of client certificates; nil without tls_client_auth.
	CA() *bed.CA

	// SetClient creates a client or replaces it. Its tokens live for 30 s.
	SetClient(ctx context.Context, c Client) error

	// Restart stops the server and starts it again at the same addresses.
	Restart(ctx context.Context) error

	// NewSigningKey makes the server sign with another key. Older tokens stay valid.
	NewSigningKey(ctx context.Context) error

	// Recipe returns the placeholders of the server's section of docs/providers.md.
	Recipe() Recipe
}

// A Recipe is a page's preconditions.
type Recipe struct {
	Commands map[string]string // scripts of the commands of the server's own, by name; their arguments are "$@"
	Own      map[string]string // values of the page's placeholders

	// Issuer is the server's issuer in a page without commands for the client: the test creates mcp-broker. Empty:
	// the page has commands.
	Issuer string
}

// Printable are the characters of secrets (RFC 6749 appendix A.2) beyond letters and digits.
const Printable = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// Scopes are known to every server and assigned to its clients.
var Scopes = []string{"files:read", "files:write"}

// Lifetime of the tokens, in seconds.
const Lifetime = 30
