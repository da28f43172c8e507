package mcpoauth

import (
	"context"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

func (b *backend) tokenPaths() []*framework.Path {
	return b.serverAndRolePaths("token/", &framework.Path{
		HelpSynopsis:    "Read the current access token of an MCP server.",
		HelpDescription: strings.TrimSpace(tokenHelp),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:    serve(b.readToken),
				Summary:     "Read the current access token.",
				Description: "If no valid token is held, a read obtains one. The plugin refreshes it before it expires. Read again after ttl seconds.",
				Responses:   responses(http.StatusOK, "The current access token", tokenFields()),
			},
		},
	}, display("token"))
}

// plainTokenRead returns the name in the path of a plain token read; ok is false for other requests. Almost all
// requests are plain token reads. The framework's work for one (a regular expression, two maps, a conversion of each
// field) costs more than the rest of the read.
func plainTokenRead(req *logical.Request) (name tokens.Name, ok bool) {
	path, ok := strings.CutPrefix(req.Path, "token/")
	if !ok || req.Operation != logical.ReadOperation || len(req.Data) > 0 {
		return name, false
	}
	server, role, isRole := strings.Cut(path, "/")
	if !isName(server) || isRole && !isName(role) {
		return name, false
	}
	return tokens.Name{Server: server, Role: role}, true
}

// serveTokenRead serves a plain token read without the framework.
func (b *backend) serveTokenRead(ctx context.Context, name tokens.Name) (*logical.Response, error) {
	b.system.ReplicationState() // keeps passive current, as the framework does at each request
	if err := validName(name); err != nil {
		return fail(name, err)
	}
	resp, err := b.readToken(ctx, name, nil)
	if err != nil {
		return fail(name, err)
	}
	return resp, nil
}

func tokenFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"access_token": {
			Type:         framework.TypeString,
			Description:  "The access token.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"token_type": textSchema("Always Bearer (RFC 6750)."),
		"authorization": {
			Type:         framework.TypeString,
			Description:  "Bearer and the access token: the value of the Authorization header.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"expires_at":          timeSchema("When the token expires"),
		"scope":               textSchema("The granted scopes, separated by spaces: those of the response, else of the token (a JWT), else the requested ones. Absent if empty."),
		"ttl":                 {Type: framework.TypeInt64, Description: "Seconds to wait before the next read, which comes shortly after the next refresh. Just after a refresh, ttl exceeds rotation_period."},
		"rotation_period":     {Type: framework.TypeInt64, Description: "Seconds from one refresh to the next."},
		"last_vault_rotation": timeSchema("When the token was obtained"),
		"token_id":            textSchema("The first 16 hexadecimal digits of the token's SHA-256, which name it at refresh/ and in logs without revealing it."),
	}
}

// readToken returns the held token without a lease: each lease would cost two storage writes, each with a copy of the
// token.
func (b *backend) readToken(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	t, err := b.engine.Read(ctx, name)
	b.metrics.read(err)
	if err != nil {
		return nil, err
	}
	data := make(map[string]any, 9) // full size: a growing map is copied
	data["access_token"] = t.AccessToken
	data["token_type"] = "Bearer"
	data["authorization"] = t.Authorization()
	data["expires_at"] = t.ExpiresText()
	data["ttl"] = t.TTL
	data["rotation_period"] = t.RotationPeriod()
	data["last_vault_rotation"] = t.IssuedText()
	data["token_id"] = t.ID()
	if t.Scope != "" {
		data["scope"] = t.Scope
	}
	return &logical.Response{Data: data}, nil
}

const tokenHelp = `
Returns the current access token to a broker: in access_token, and in authorization with
Bearer, ready for the header. A read needs only the read capability, takes no parameters
and creates no lease.

  vault read mcp-oauth/token/weather
  vault read -field=authorization mcp-oauth/token/weather/reader

If no valid token is held, a read obtains one. While brokers read it, the plugin refreshes
it before it expires, and reads do not wait for the authorization server. They never return
an expired token.

Read again after ttl seconds; Vault Agent's templates do so by themselves. If an MCP server
refuses the token with a 401, write its token_id to refresh/<server> and read again.

404: the config or role does not exist. 400: the authorization server refused the request;
the error has its code. 502: it could not be reached or its response was unusable; the
error has the time of the next attempt. 504: the token request takes longer than 5 s; read
again.
`
