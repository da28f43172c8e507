// Package servers fetches, starts and administers authorization servers of other makers, for tests of the plugin and
// of the recipes in docs/providers.md.
package servers

import (
	"context"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A Kind is an authorization server that can be run here.
type Kind struct {
	Name    string // name of the test
	Version string
	Section string // heading of its recipe in docs/providers.md; empty: another kind has the recipe

	// Start starts a server on free loopback ports. It stops with the bed.
	Start func(ctx context.Context, b *bed.Bed) (Server, error)

	// Methods are its client authentication methods (RFC 7591, RFC 8414, RFC 8705).
	Methods []string
	// Secrets are the supported characters of client secrets besides letters and digits. Default: Printable.
	Secrets []string
	// Algorithms are the server's algorithms of client assertions (RFC 7518) that the plugin supports.
	Algorithms []string

	// ByResource is set if the resource parameter decides the audience (RFC 8707), and not the client's registration.
	ByResource bool

	// Fields returns the config fields of a client that discovery does not find, such as assertion_audience. Default:
	// none.
	Fields func(c Client) map[string]any

	// Refusals are faults for which the plugin's error contains the server's words.
	Refusals []Refusal
}

// A Refusal is a fault at the server or in the config, with the operator's error.
type Refusal struct {
	Name   string
	Client func(*Client)  // the administrator's change; may be nil
	Fields map[string]any // of the config
	Says   string         // part of the plugin's error
}

// Kinds are the servers in this package. The other acceptance tests use oidc-provider.
var Kinds = []Kind{keycloak, keycloakWithResourceIndicators, spring, hydra, authlib}

// A Client is a registered client.
type Client struct {
	ID        string   `json:"id"`
	Secret    string   `json:"secret"`
	Method    string   `json:"method"`    // client authentication method: one of Kind.Methods, or federated-jwt for Keycloak
	JWKSURI   string   `json:"jwksURI"`   // for private_key_jwt
	Algorithm string   `json:"algorithm"` // of its assertions, if the server needs one per client; one of Kind.Algorithms
	Subject   string   `json:"subject"`   // distinguished name of its certificate (RFC 4514), for tls_client_auth
	Audience  string   `json:"audience"`  // of its tokens; the MCP server's URL
	Scopes    []string `json:"scopes"`

	Disabled    bool `json:"-"`           // if the server can disable clients
	Off         bool `json:"off"`         // not allowed the client credentials grant
	BoundTokens bool `json:"boundTokens"` // tokens are bound to the client certificate (RFC 8705 section 3)

	// Attributes are other settings, by the server's own names.
	Attributes map[string]string `json:"-"`
}

// A Server is a running authorization server with its administrator.
type Server interface {
	// Issuer returns the server's address for MCP servers: with TLS for tls_client_auth, otherwise without.
	Issuer(method string) bed.Issuer

	// CA returns the CA of the server's certificate and of client certificates, or nil if the server lacks
	// tls_client_auth.
	CA() *bed.CA

	// SetClient creates or replaces a client. Its tokens live for 30 s.
	SetClient(ctx context.Context, c Client) error

	// Restart stops the server and starts it at the same addresses.
	Restart(ctx context.Context) error

	// NewSigningKey makes the server sign with another key. Older tokens stay valid.
	NewSigningKey(ctx context.Context) error

	// Recipe returns the placeholders of the server's section of docs/providers.md.
	Recipe() Recipe
}

// A Recipe is the preconditions of a page.
type Recipe struct {
	Commands map[string]string // by name: scripts that replace the server's commands; their arguments are "$@"
	Own      map[string]string // values for the page's placeholders

	// Issuer is set if the page has no commands for the client. It is the server's issuer, and the test creates the
	// client mcp-broker.
	Issuer string
}

// Printable are the printable characters besides letters and digits, all allowed in secrets (RFC 6749 appendix A.2).
const Printable = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// Scopes are known to every server, and its clients may request them.
var Scopes = []string{"files:read", "files:write"}

// Lifetime of the tokens in seconds.
const Lifetime = 30
