package tokens

import (
	"context"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Name is what a token is kept under: a server, or one of its roles.
type Name struct {
	// Server is the operator's short name of the MCP server.
	Server string
	// Role is the name of the role; empty for the server's own token.
	Role string
}

// String is the name as the API's paths spell it: "server" or "server/role".
func (n Name) String() string {
	if n.Role == "" {
		return n.Server
	}
	return n.Server + "/" + n.Role
}

// Terms is what a name's token is obtained on, as the configuration has it now.
type Terms struct {
	// Shape is the fingerprint of what makes a token the token it is. A held
	// token of another shape is dropped.
	Shape string
	// Host is the authorization server's host; fetches are bounded per host.
	Host string
	// Client names the token endpoint and the client together: names of one client share the
	// backoff window of failures that concern it.
	Client string
	// DefaultTTL is the lifetime if the authorization server does not say; > 0.
	DefaultTTL time.Duration
	// MaxTTL caps the lifetime; 0 does not.
	MaxTTL time.Duration
	// IdleTimeout is how long after its last read a token is still refreshed, or
	// its lifetime if that is longer; 0 is for ever.
	IdleTimeout time.Duration
	// Fetch asks the authorization server once, within a timeout of its own. Its
	// errors are *grant.RefusedError, *grant.UnavailableError or the context's.
	Fetch func(context.Context) (*grant.Token, error)
}
