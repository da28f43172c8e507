package mcpoauth

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

func (b *backend) rolePaths() []*framework.Path {
	return []*framework.Path{
		{
			Pattern:         "role/?$",
			HelpSynopsis:    "List the MCP servers that have roles.",
			HelpDescription: strings.TrimSpace(rolesHelp),
			DisplayAttrs:    display("servers-with-roles"),
			Operations:      b.listOperation(b.listServersWithRoles, "List the MCP servers that have roles.", "The roles themselves are listed at role/<server>.", "<server>/ for each server that has roles."),
		},
		{
			Pattern:         "role/" + framework.GenericNameRegex("server") + "/?$",
			Fields:          map[string]*framework.FieldSchema{"server": serverField()},
			HelpSynopsis:    "List the roles of an MCP server.",
			HelpDescription: strings.TrimSpace(rolesHelp),
			DisplayAttrs:    display("roles"),
			Operations:      b.listOperation(b.listRoles, "List the names of an MCP server's roles.", "The state of their tokens is at status/.", "Names of the roles."),
		},
		{
			Pattern:         "role/" + framework.GenericNameRegex("server") + "/" + framework.GenericNameRegex("role") + "$",
			Fields:          roleTable.written(),
			ExistenceCheck:  existence(b.roleExists),
			HelpSynopsis:    "Configure a role: other scopes, resource or audience for an MCP server.",
			HelpDescription: strings.TrimSpace(roleHelp),
			DisplayAttrs:    display("role"),
			Operations: b.operations(storedOperations{
				save: b.writeRole, saveSummary: "Configure a role of an MCP server, or change it.",
				read: b.readRole, readSummary: "Read a role of an MCP server.",
				readDetails: "Fields that the role takes from the config are empty.", response: roleTable.read(),
				delete: b.deleteRole, deleteSummary: "Delete a role with its token.",
			}),
		},
	}
}

func (b *backend) roleExists(ctx context.Context, name tokens.Name) (bool, error) {
	_, r, err := b.store.configAndRole(ctx, name)
	return r != nil, err
}

// listServersWithRoles lists the servers with roles, each as "<server>/".
func (b *backend) listServersWithRoles(ctx context.Context, _ tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	servers, err := b.store.servers(ctx)
	if err != nil {
		return nil, err
	}
	withRoles, err := b.store.serversWithRoles(ctx) // may include deleted configs
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, server := range servers {
		if withRoles[server] {
			keys = append(keys, server+"/")
		}
	}
	return logical.ListResponse(keys), nil
}

func (b *backend) listRoles(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	names, err := b.store.rolesOf(ctx, name.Server)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

func (b *backend) readRole(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	_, r, err := b.store.configAndRole(ctx, name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, tokens.ErrNotConfigured
	}
	return &logical.Response{Data: roleTable.response(r)}, nil
}

func (b *backend) deleteRole(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	err := b.engine.Change(ctx, name, tokens.Change{
		Terms: b.store.termsUnder(nil), // only the role's own terms change
		Write: func(ctx context.Context) error { return b.store.deleteRole(ctx, name) },
	})
	if err != nil {
		return nil, err
	}
	return nil, nil
}

// writeRole creates or updates a role. If it fails, nothing has changed, unless storage failed: then
// the write may have taken effect, or take effect later.
func (b *backend) writeRole(ctx context.Context, name tokens.Name, d *framework.FieldData, exists bool) (*logical.Response, error) {
	c, old, err := b.store.configAndRole(ctx, name)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, notConfigured(tokens.Name{Server: name.Server})
	}
	if exists != (old != nil) {
		return nil, tokens.ErrConflict
	}
	next := &role{Incarnation: c.Incarnation}
	if old != nil {
		next = old.clone()
	}
	roleTable.update(next, d)
	if err := next.validate(); err != nil {
		return nil, err
	}
	if err := c.oneResource(next); err != nil {
		return nil, err
	}

	write := verifiedWrite{name: name, terms: b.store.proving(name.Server, c, c.terms(next)), verify: d.Get("verify").(bool)}
	write.after = func(context.Context, tokens.Name) (*tokens.Terms, error) { return write.terms, nil }
	failing := b.engine.Failing(name)
	write.fetch = old == nil || failing || write.terms.Shape != c.terms(old).Shape
	if err := b.fetchUnproven(ctx, &write, c); err != nil {
		return nil, err
	}
	if old != nil && next.same(old) && !failing && !(write.verify && write.fetch) {
		return warn(oddResources(next.Resource)), nil
	}
	next.Revision = newID()
	write.store = func(ctx context.Context) error {
		current, currentRole, err := b.store.configAndRole(ctx, name)
		if err != nil {
			return err
		}
		if current == nil || current.Revision != c.Revision || revisionOf(currentRole) != revisionOf(old) {
			return tokens.ErrConflict
		}
		return b.store.putRole(ctx, name, next)
	}
	granted, err := b.carryOut(ctx, write)
	if err != nil {
		return nil, c.withFindings(err)
	}
	notes := []string{oddResources(next.Resource)}
	if granted != nil {
		notes = append(notes, c.tokenWarnings(next, granted.AccessToken, granted.Scope, granted.ExpiresIn)...)
	}
	return warn(notes...), nil
}

// revisionOf returns the role's revision; "" for nil.
func revisionOf(r *role) string {
	if r == nil {
		return ""
	}
	return r.Revision
}

const rolesHelp = `
Lists the servers that have roles, or the roles of one server, for operators. The state of
their tokens is at status/.

  vault list mcp-oauth/role
  vault list mcp-oauth/role/weather
`

const roleHelp = `
A role is a variant of a config with other scopes, resource or audience, and a token
of its own, read at token/<server>/<role>. Unset fields take the config's values. A role
can request more than its config as well as less: only operators should write roles.

  vault write mcp-oauth/role/weather/reader scopes=forecast:read
  vault read mcp-oauth/token/weather/reader

A write first obtains a token, as for a config, unless verify=false. If each role is named
after its broker's entity id, one templated policy serves all brokers:

  path "mcp-oauth/token/+/{{identity.entity.id}}" { capabilities = ["read"] }
`
