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
				Description: "The first read obtains the token, which is then replaced ahead of its expiry. Reading again is worth while after ttl seconds.",
				Responses:   responses(http.StatusOK, "The current access token", tokenFields()),
			},
		},
	}, display("token"))
}

// plainTokenRead returns the name in the path of a plain token read; ok is false for other requests. Almost all
// requests are plain token reads, and the framework's work for them (a regular expression, two maps, a conversion of
// each field) costs more than the rest of the read.
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
			Description:  "The value of the Authorization header: Bearer and the access token.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"expires_at":          timeSchema("When the token stops being valid"),
		"scope":               textSchema("The granted scopes, space-delimited: as the answer says, else the token if it is a JWT, else as asked for. Absent if empty."),
		"ttl":                 {Type: framework.TypeInt64, Description: "Seconds until reading again is worth while: until shortly after the next refresh. Just after one it exceeds rotation_period."},
		"rotation_period":     {Type: framework.TypeInt64, Description: "Seconds from one token to the next."},
		"last_vault_rotation": timeSchema("When the token was obtained"),
		"token_id":            textSchema("The first 16 hexadecimal digits of SHA-256(access_token): names the token at refresh/ and in logs without giving it away."),
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
Answers with the access token currently held, in access_token and, ready for the
header, in authorization. It is for brokers, needs the read capability and nothing
else, takes no parameter and makes no lease.

  vault read mcp-oauth/token/weather
  vault read -field=authorization mcp-oauth/token/weather/reader

The first read obtains the token; after that the engine refreshes it ahead of its
expiry, and a read neither waits for the authorization server nor calls it. An expired
token is never handed out.

Read again after ttl seconds; Vault Agent's templates do so by themselves. When an MCP
server rejects the token with a 401, write its token_id to refresh/<server> and read
again.

404: no such config or role. 400: the authorization server refused the client; the
error holds its code. 502: it could not be reached or gave no usable answer; the error
tells when it is tried again.
`
