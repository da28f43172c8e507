// Package servers fetches, starts and administers authorization servers of other makers, for the tests of what the
// plugin gets from them and of the recipes in docs/providers.md.
package servers

import (
	"context"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A Kind is an authorization server that can be run here, and what it can do.
type Kind struct {
	Name    string // of the test
	Version string
	Section string // heading of its recipe in docs/providers.md; "" if another kind has the recipe

	// Start starts one on free ports of loopback. It stops with the bed.
	Start func(ctx context.Context, b *bed.Bed) (Server, error)

	// Methods are its client authentication methods, by their names in RFC 7591, RFC 8414 and RFC 8705.
	Methods []string
	// Secrets are client secrets that it takes, beyond letters and digits. Default: Printable.
	Secrets []string
	// Algorithms are those of client assertions that it takes (RFC 7518), of those that the plugin signs with.
	Algorithms []string

	// ByResource is set if the resource parameter decides the audience (RFC 8707), and not the client's registration.
	ByResource bool

	// Fields are those of a client's config beyond what discovery finds, such as assertion_audience. Default: none.
	Fields func(c Client) map[string]any

	// Refusals are the faults whose refusal the plugin reports in the server's own words.
	Refusals []Refusal
}

// A Refusal is a fault, at the server or in the config, and what the operator reads of it.
type Refusal struct {
	Name   string
	Client func(*Client)  // what the administrator did at the server; nil: nothing
	Fields map[string]any // of the config
	Says   string         // a part of the plugin's error
}

// Kinds are all that can be run here, but oidc-provider, which all other acceptance tests run on.
var Kinds = []Kind{keycloak, keycloakWithResourceIndicators, spring, hydra, authlib}

// A Client is a client as the server's administrator registers it.
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
	// Issuer is the server as MCP servers know it: with TLS for tls_client_auth, else without.
	Issuer(method string) bed.Issuer

	// CA is the authority of its certificate and of the client certificates that it takes; nil without tls_client_auth.
	CA() *bed.CA

	// SetClient creates a client or replaces it. Its tokens live for 30 s.
	SetClient(ctx context.Context, c Client) error

	// Restart stops the server and starts it again at the same addresses.
	Restart(ctx context.Context) error

	// NewSigningKey makes the server sign tokens with another key from now on. Tokens signed before stay valid.
	NewSigningKey(ctx context.Context) error

	// Recipe returns what a reader of the server's section of docs/providers.md has.
	Recipe() Recipe
}

// A Recipe is what a page takes for granted.
type Recipe struct {
	Commands map[string]string // scripts of the commands of the server's own, by name; their arguments are "$@"
	Own      map[string]string // what stands in the page for the reader's own, to what it is here

	// Issuer is the server's issuer in a page that says in words what is to be created there: the test creates the
	// client mcp-broker, as each config needs it. Empty: the page has commands that do.
	Issuer string
}

// Printable are the characters of secrets (RFC 6749 appendix A.2) beyond letters and digits.
const Printable = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// Scopes are those that every server here knows and assigns to its clients.
var Scopes = []string{"files:read", "files:write"}

// Lifetime of the tokens, in seconds.
const Lifetime = 30
