package mcpoauth

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

// handler is an operation on the name in the request's path; an empty name if the
// path holds none.
type handler func(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error)

// serve makes a handler one of the framework's: the name is checked first, and an error
// becomes a response last.
func serve(h handler) framework.OperationFunc {
	return func(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		name, err := nameOf(d)
		if err != nil {
			return fail(name, err)
		}
		resp, err := h(ctx, name, d)
		if err != nil {
			return fail(name, err)
		}
		return resp, nil
	}
}

// existence makes an existence check one of the framework's. A name that is not allowed does not exist: the write
// that follows returns the error.
func existence(exists func(context.Context, tokens.Name) (bool, error)) framework.ExistenceFunc {
	return func(ctx context.Context, _ *logical.Request, d *framework.FieldData) (bool, error) {
		if name, err := nameOf(d); err == nil {
			return exists(ctx, name)
		}
		return false, nil
	}
}

// serveOperator is serve for operators, who are told the same at every node, and what they have just
// written. A passive node may not have heard of it yet, and knows of no failure: Vault forwards the request.
// The handler's context ends with the budget of a write: storage that hangs must not hold a request for long.
func (b *backend) serveOperator(h handler) framework.OperationFunc {
	return serve(func(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error) {
		if b.system.passive() {
			return nil, tokens.ErrReadOnly
		}
		ctx, cancel := budgeted(ctx)
		defer cancel()
		resp, err := h(ctx, name, d)
		if err != nil && errors.Is(context.Cause(ctx), errWriteBudget) && statusOf(err) == http.StatusBadGateway {
			err = &requestError{status: http.StatusGatewayTimeout, text: err.Error()} // the wait ended, not the server's answer
		}
		return resp, err
	})
}

// serveWrite is serveOperator for what writes configs, roles or keys, whose fields have limits. The
// framework has these writes forwarded from a performance standby, but not from a DR secondary.
func (b *backend) serveWrite(h handler) framework.OperationFunc {
	return b.serveOperator(func(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error) {
		if err := onlyKnown(d); err != nil {
			return nil, err
		}
		if err := withinLimits(d); err != nil {
			return nil, err
		}
		return h(ctx, name, d)
	})
}

// A saver creates or updates what its path names. exists is the result of Vault's existence check, which
// decided whether the caller needed the create or the update capability. If storage has changed since, the
// saver returns tokens.ErrConflict.
type saver func(ctx context.Context, name tokens.Name, d *framework.FieldData, exists bool) (*logical.Response, error)

// serveSave is serveWrite for a saver.
func (b *backend) serveSave(save saver, exists bool) framework.OperationFunc {
	return b.serveWrite(func(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error) {
		return save(ctx, name, d, exists)
	})
}

// onlyKnown checks that a request holds no field that its path does not have: dropped with a
// warning at most, a misspelt omit_resource or token_id would do what the caller did not ask for. What a config's read
// adds to its fields may be written back with them: see keepsDiscovered.
func onlyKnown(d *framework.FieldData) error {
	_, ofConfig := d.Schema["server_url"]
	for _, field := range slices.Sorted(maps.Keys(d.Raw)) {
		if d.Schema[field] == nil && !(ofConfig && discoveredTable.has(field)) {
			return unknownField(field, d.Schema)
		}
	}
	return nil
}

// limits are those of the variable-length fields of all paths.
var limits = func() map[string]limit {
	all := configTable.limits()
	maps.Copy(all, roleTable.limits())
	maps.Copy(all, settingsTable.limits())
	return all
}()

// withinLimits checks the fields that a request holds, before anything is made of them. The
// framework has seen to their types.
func withinLimits(d *framework.FieldData) error {
	var bounded []string
	for field := range d.Raw {
		if _, known := d.Schema[field]; known && limits[field] != (limit{}) {
			bounded = append(bounded, field)
		}
	}
	slices.Sort(bounded) // for the same answer each time
	for _, field := range bounded {
		if err := limits[field].check(field, d.Get(field)); err != nil {
			return err
		}
	}
	return nil
}

// nameOf is the name in a request's path.
func nameOf(d *framework.FieldData) (tokens.Name, error) {
	// The framework took them from the path, so they are strings, and need no conversion.
	var name tokens.Name
	if _, ok := d.Schema["server"]; ok {
		name.Server, _ = d.Raw["server"].(string)
	}
	if _, ok := d.Schema["role"]; ok {
		name.Role, _ = d.Raw["role"].(string)
	}
	return name, validName(name)
}

// serverAndRolePaths makes two paths of one: for a server's own token, and for those
// of its roles. Two, rather than one with an optional part, make a better OpenAPI
// document and help.
func (b *backend) serverAndRolePaths(prefix string, path *framework.Path, attrs *framework.DisplayAttributes) []*framework.Path {
	server, role := *path, *path
	server.Pattern = prefix + framework.GenericNameRegex("server") + "$"
	server.DisplayAttrs = attrs
	server.Fields = map[string]*framework.FieldSchema{"server": serverField()}
	role.Pattern = prefix + framework.GenericNameRegex("server") + "/" + framework.GenericNameRegex("role") + "$"
	roleAttrs := *attrs
	roleAttrs.OperationSuffix = "role-" + attrs.OperationSuffix
	role.DisplayAttrs = &roleAttrs
	role.Fields = map[string]*framework.FieldSchema{"server": serverField(), "role": roleField()}
	for field, schema := range path.Fields {
		server.Fields[field] = schema
		role.Fields[field] = schema
	}
	return []*framework.Path{&server, &role}
}

// responses describes an operation's only response for the OpenAPI document.
func responses(status int, description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{status: {{Description: description, Fields: fields}}}
}

// warn is a response that holds the non-empty warnings, or nil, which is a 204.
func warn(warnings ...string) *logical.Response {
	var resp *logical.Response
	for _, w := range warnings {
		if w == "" {
			continue
		}
		if resp == nil {
			resp = &logical.Response{}
		}
		resp.AddWarning(w)
	}
	return resp
}
