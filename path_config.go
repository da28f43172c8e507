package mcpoauth

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

func (b *backend) configPaths() []*framework.Path {
	return []*framework.Path{
		{
			Pattern:         "config/?$",
			HelpSynopsis:    "List the configured MCP servers.",
			HelpDescription: strings.TrimSpace(configsHelp),
			DisplayAttrs:    display("configs"),
			Operations:      b.listOperation(b.listConfigs, "List the names of the configured MCP servers.", "The state of their tokens is at status/.", "Names of the configured MCP servers."),
		},
		{
			Pattern:         "config/" + framework.GenericNameRegex("server") + "$",
			Fields:          configFields(),
			ExistenceCheck:  existence(b.configExists),
			HelpSynopsis:    "Configure the OAuth client of an MCP server.",
			HelpDescription: strings.TrimSpace(configHelp),
			DisplayAttrs:    display("config"),
			Operations: b.operations(storedOperations{
				save: b.writeConfig, saveSummary: "Configure an MCP server's OAuth client, or change it.",
				read: b.readConfig, readSummary: "Read an MCP server's OAuth client, without its secrets.",
				readDetails: "Returns every field except for secrets, and what discovery found.", response: configResponseFields(),
				delete: b.deleteConfig, deleteSummary: "Delete an MCP server's OAuth client with its roles and tokens.",
			}),
		},
	}
}

func (b *backend) configExists(ctx context.Context, name tokens.Name) (bool, error) {
	c, err := b.store.config(ctx, name.Server)
	return c != nil, err
}

func (b *backend) listConfigs(ctx context.Context, _ tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	names, err := b.store.servers(ctx)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

func (b *backend) readConfig(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	c, err := b.store.config(ctx, name.Server)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, tokens.ErrNotConfigured
	}
	return &logical.Response{Data: c.response()}, nil
}

func (b *backend) deleteConfig(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	err := b.engine.Change(ctx, name, tokens.Change{
		Terms: b.store.termsUnder(nil),
		Write: func(ctx context.Context) error {
			if err := b.store.deleteConfig(ctx, name.Server); err != nil {
				b.reloadKeySetAfterFailure(name.Server) // the config may be gone
				return err
			}
			return b.keySets.update(name.Server, nil)
		},
	})
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(sweepWait)
	defer timer.Stop()
	select {
	case <-b.sweepSoon(name.Server):
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil, nil
}

const configsHelp = `
Lists the names of the configured MCP servers, for operators. The state of their tokens is
at status/.

  vault list mcp-oauth/config
`

const configHelp = `
A config makes the plugin an OAuth client for one MCP server. It is for operators.

  tr -d '\n' < secret.txt | vault write mcp-oauth/config/weather \
      server_url=https://weather.example.com/mcp \
      client_id=vault client_secret=-

The authorization server is discovered from server_url (RFC 9728, RFC 8414), or from
issuer if it is given. With token_url it is not discovered. Unset scopes and resource
default to those published by the MCP server. What discovery found is stored, and a read
shows it; rediscover=true discovers again.

The client authenticates with client_secret, with a signing key (private_key, or key_type
for one that the plugin makes and never reveals), or with client_certificate and
client_certificate_key. With identity=issuer or identity=document it needs none of them,
because the authorization server trusts this mount: see keys/<server> and settings.

A write obtains a token with the new settings first. If that fails, the write fails with
the authorization server's error, nothing is stored, and the old config and token stay in
use. verify=false stores without contacting any server. If the plugin makes a key, the
write requests no token: register the public key from keys/<server> at the authorization
server, then write refresh/<server>. status/ shows whether the credentials are verified.

An update changes only the given fields; an empty value clears a field. A read returns
every field except for secrets. A write that changes where the stored credentials are
sent, or how the connection is protected, must supply them again.

Tokens stay in use when credentials are rotated. After a verified write the plugin replaces
them at once, in the background; after verify=false, when each is due for refresh.

Deleting a config deletes its roles, tokens and keys. It does not revoke tokens that
brokers have: they end when they expire.
`
