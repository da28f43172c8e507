package tokens

import (
	"context"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Name is the key of a token: a server, or one of its roles.
type Name struct {
	// Server is the operator's short name of the MCP server.
	Server string
	// Role is the name of the role; empty for the server's own token.
	Role string
}

// String returns the name as the API's paths spell it: "server" or "server/role".
func (n Name) String() string {
	if n.Role == "" {
		return n.Server
	}
	return n.Server + "/" + n.Role
}

// Terms are the settings for a name's token, from its configuration.
type Terms struct {
	// Shape is the fingerprint of the settings that determine the token. A held token of another shape is dropped.
	Shape string
	// Host is the authorization server's host. Fetches are bounded per host.
	Host string
	// Client identifies the token endpoint and the client: the same for a server and its roles. Names of one client
	// share its backoff window.
	Client string
	// DefaultTTL is the lifetime if the authorization server does not send one; > 0.
	DefaultTTL time.Duration
	// MaxTTL caps the lifetime; 0 means unlimited.
	MaxTTL time.Duration
	// IdleTimeout is how long after its last read a token is still refreshed, or the token's lifetime if that is
	// longer; 0 means forever.
	IdleTimeout time.Duration
	// Fetch calls the authorization server once, with its own timeout. Its errors are *grant.RefusedError,
	// *grant.UnavailableError or the context's.
	Fetch func(context.Context) (*grant.Token, error)
}
