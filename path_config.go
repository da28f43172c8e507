package mcpoauth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
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
				readDetails: "Returns every field except for secrets, and the findings of discovery.", response: configResponseFields(),
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

// writeConfig creates or updates a config. If it fails, nothing has changed.
func (b *backend) writeConfig(ctx context.Context, name tokens.Name, d *framework.FieldData, exists bool) (*logical.Response, error) {
	old, err := b.store.config(ctx, name.Server)
	if err != nil {
		return nil, err
	}
	if exists != (old != nil) {
		return nil, tokens.ErrConflict
	}
	next := newConfig()
	if old != nil {
		next = old.clone()
		if err := old.refuseDiscovered(d, true); err != nil {
			return nil, err
		}
	}
	configTable.update(next, d)
	writtenFor, err := b.store.writtenFor(ctx, name.Server, old, next)
	if err != nil {
		return nil, err
	}
	var mount settings
	if next.publishes() {
		if mount, err = b.store.settings(ctx); err != nil {
			return nil, err
		}
	}
	_, givenIdentity := d.GetOk("identity")
	if err := next.pinPublicURL(old, givenIdentity, mount); err != nil {
		return nil, err
	}
	if err := next.validate(); err != nil {
		return nil, err
	}
	madeKey, err := next.updateKeys(d, writtenFor)
	if err != nil {
		return nil, err
	}
	if err := next.validCredentials(); err != nil {
		return nil, err
	}
	if err := next.validExpiry(old); err != nil {
		return nil, err
	}
	field, trusted := next.suppliesCredentials(d, madeKey)
	trusted = trusted || old == nil
	if !trusted && !next.sameRoute(writtenFor) {
		return nil, badRequest("a write that changes where or how the credentials travel (server_url or issuer that discovery starts from, token_url, assertion_audience, ca_cert, allow_insecure_http, allow_private_addresses) must supply %s too: stored credentials are sent only where they were written for", field)
	}
	verify := d.Get("verify").(bool)
	notes, err := next.resolve(ctx, old, d.Get("rediscover").(bool), verify, trusted)
	if err != nil {
		return nil, err
	}
	if old == nil {
		if err := next.refuseDiscovered(d, false); err != nil {
			return nil, err
		}
	}
	if !trusted {
		if err := next.sameEndpoint(old, field); err != nil {
			return nil, err
		}
	}
	if err := next.fitsServer(); err != nil {
		return nil, err
	}
	next.assignPublicID(name.Server, old)
	now := time.Now()
	if old == nil || !next.sameCredentials(old) || !next.sameRoute(writtenFor) {
		next.writeCredentials(now)
	}
	if err := validSize(next); err != nil {
		return nil, err
	}

	moved := next.movedNote(name.Server, old, mount)
	// The authorization server cannot know a key or URL made just now.
	unknown := madeKey || moved != "" && next.KeyType != ""

	write := verifiedWrite{name: name, terms: next.terms(nil), after: b.store.termsUnder(next), verify: verify && !unknown}
	write.refresh = old != nil && (!next.sameCredentials(old) || !next.sameRoute(old) || !next.Discovered.same(old.Discovered))
	failing := b.engine.Failing(name)
	write.fetch = old == nil || write.refresh || failing ||
		write.terms.Shape != old.terms(nil).Shape || next.RequestTimeout != old.RequestTimeout
	if err := b.fetchUnproven(ctx, &write, next); err != nil {
		return nil, err
	}
	notes = append(notes, next.certificateWarning(now), oddResources(next.Resource), moved)
	notes = append(notes, next.identityWarnings()...)
	// A write clears the backoff: the operator may have removed the cause of the failure.
	if old != nil && next.same(old) && !failing && !(write.verify && write.fetch) {
		return warn(notes...), nil
	}
	next.Revision = newID()
	if write.verify && write.fetch {
		next.CredentialsProof = next.proof(now) // it is stored if the request succeeds
	}
	write.store = func(ctx context.Context) error {
		if err := b.unchanged(ctx, name.Server, old); err != nil {
			return err
		}
		return b.putConfig(ctx, name.Server, next)
	}
	granted, err := b.carryOut(ctx, write)
	if old == nil {
		if left, err := b.store.rolesAndTokens(ctx, name.Server); err != nil || len(left) > 0 {
			b.sweepSoon(name.Server) // left by an interrupted delete
		}
	}
	if err != nil {
		return nil, next.withFindings(b.withRoleHint(ctx, name.Server, next, err))
	}
	if madeKey && next.Identity == identityStatic {
		notes = append(notes, fmt.Sprintf("a signing key was made, and no token was requested, because the authorization server cannot know the key yet: register the public key from keys/%s there, then write refresh/%s", name.Server, name.Server))
	} else if unknown {
		notes = append(notes, fmt.Sprintf("no token was requested, because the authorization server cannot know the new key or URL yet: enter there the values of keys/%s, then write refresh/%s", name.Server, name.Server))
	}
	if granted != nil {
		notes = append(notes, next.tokenWarnings(nil, granted.AccessToken, granted.Scope, granted.ExpiresIn)...)
	}
	return warn(notes...), nil
}

// movedNote returns the values to enter at the authorization server if the write has changed the URL of the public
// keys; "" otherwise.
func (c *config) movedNote(server string, old *config, mount settings) string {
	id := c.publicID(server)
	if id == "" || id == old.publicID(server) {
		return ""
	}
	var note string
	switch c.Identity {
	case identityIssuer:
		note = fmt.Sprintf("enter at the authorization server the issuer %s, the subject %s and the audience %s", c.issuerURL(), quote(c.subject()), quote(c.assertionAudience()))
	case identityDocument:
		note = fmt.Sprintf("the client's id at the authorization server is %s", c.documentURL())
	default:
		note = fmt.Sprintf("the public keys are at %s: register that URL as the client's jwks_uri", mount.url(jwksPrefix+id))
	}
	if old.publishes() {
		note += "; the earlier URL is gone, because it was trusted for other credentials or another destination"
	}
	return note
}

// withRoleHint adds a hint to a refusal if the scopes or the audience may be configured in roles instead: the config
// has roles, or no scopes.
func (b *backend) withRoleHint(ctx context.Context, server string, c *config, err error) error {
	if _, refused := errors.AsType[*grant.RefusedError](err); !refused || grant.ClientWide(err) {
		return err
	}
	if len(c.parameters(nil).Scopes) > 0 {
		if roles, listErr := b.store.roles(ctx, server); listErr != nil || len(roles) == 0 {
			return err
		}
	}
	return fmt.Errorf("%w; if the scopes or the audience live in this config's roles, write it with verify=false (and with token_url, if the authorization server has yet to be discovered)", err)
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
issuer if it is given; token_url names its endpoint. Unset scopes and resource default to
those published by the MCP server. The findings are pinned and shown on read;
rediscover=true looks again.

The client authenticates with client_secret, with a signing key (private_key, or key_type
for one that the plugin makes and never reveals), or with client_certificate and
client_certificate_key. With identity=issuer or identity=document it needs none of them:
the authorization server trusts this mount, see keys/<server> and settings.

A write obtains a token with the new settings first. If that fails, the write fails with
the authorization server's error, nothing is stored, and the old config and token stay in
use. verify=false stores without contacting any server. If the plugin makes a key, the
write requests no token: register the public key from keys/<server> at the authorization
server, then write refresh/<server>. status/ shows whether the credentials are verified.

An update changes only the given fields; an empty value clears a field. A read returns
every field except for secrets. A write that changes where or how the credentials travel
must supply them in the same request.

Tokens stay in use when credentials are rotated. After a verified write the plugin replaces
them in the background, with verify=false when each is due.

Deleting a config deletes its roles, tokens and keys. It does not revoke tokens that
brokers have: they end when they expire.
`
