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

// handler is an operation on the name in the request's path; empty for a path without a name.
type handler func(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error)

// serve adapts a handler to the framework: it checks the name first and maps an error to a response last.
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

// existence adapts an existence check to the framework. A malformed name does not exist: the write that follows
// returns the error.
func existence(exists func(context.Context, tokens.Name) (bool, error)) framework.ExistenceFunc {
	return func(ctx context.Context, _ *logical.Request, d *framework.FieldData) (bool, error) {
		if name, err := nameOf(d); err == nil {
			return exists(ctx, name)
		}
		return false, nil
	}
}

// serveOperator is serve for operators. They get the same answer from every node: a passive node may not have seen
// their latest write and doesn't know the failures, so it has Vault forward the request. The handler's context has
// the deadline of a write's budget: hanging storage must not hold a request for long.
func (b *backend) serveOperator(h handler) framework.OperationFunc {
	return serve(func(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error) {
		if b.system.passive() {
			return nil, tokens.ErrReadOnly
		}
		ctx, cancel := budgeted(ctx)
		defer cancel()
		resp, err := h(ctx, name, d)
		if err != nil && errors.Is(context.Cause(ctx), errWriteBudget) && statusOf(err) == http.StatusBadGateway {
			err = &requestError{status: http.StatusGatewayTimeout, text: err.Error()} // the budget ended, the server did not fail
		}
		return resp, err
	})
}

// serveWrite is serveOperator for writes of configs, roles and keys: it checks field names and limits first. The
// framework forwards these writes from a performance standby, but not from a DR secondary.
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

// A saver creates or updates the config or role of its path. exists is the result of Vault's existence check, which
// decided whether the caller needed the create or the update capability. If storage has changed since, the saver
// returns tokens.ErrConflict.
type saver func(ctx context.Context, name tokens.Name, d *framework.FieldData, exists bool) (*logical.Response, error)

// serveSave is serveWrite for a saver.
func (b *backend) serveSave(save saver, exists bool) framework.OperationFunc {
	return b.serveWrite(func(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error) {
		return save(ctx, name, d, exists)
	})
}

// onlyKnown returns an error for a field unknown to the path. The framework would ignore it: a refresh with a
// misspelt token_id would replace any token. The discovered fields of a config's read may be written back: see
// refuseDiscovered.
func onlyKnown(d *framework.FieldData) error {
	_, ofConfig := d.Schema["server_url"]
	for _, field := range slices.Sorted(maps.Keys(d.Raw)) {
		if d.Schema[field] == nil && !(ofConfig && discoveredTable.has(field)) {
			return unknownField(field, d.Schema)
		}
	}
	return nil
}

// limits holds the limits of the variable-length fields of all paths.
var limits = func() map[string]limit {
	all := configTable.limits()
	maps.Copy(all, roleTable.limits())
	maps.Copy(all, settingsTable.limits())
	return all
}()

// withinLimits checks the length of the request's fields before they are used. The framework has checked their types.
func withinLimits(d *framework.FieldData) error {
	var bounded []string
	for field := range d.Raw {
		if _, known := d.Schema[field]; known && limits[field] != (limit{}) {
			bounded = append(bounded, field)
		}
	}
	slices.Sort(bounded) // for a stable error
	for _, field := range bounded {
		if err := limits[field].check(field, d.Get(field)); err != nil {
			return err
		}
	}
	return nil
}

// nameOf returns the name in a request's path.
func nameOf(d *framework.FieldData) (tokens.Name, error) {
	// The framework took the names from the path, so they are strings.
	var name tokens.Name
	if _, ok := d.Schema["server"]; ok {
		name.Server, _ = d.Raw["server"].(string)
	}
	if _, ok := d.Schema["role"]; ok {
		name.Role, _ = d.Raw["role"].(string)
	}
	return name, validName(name)
}

// serverAndRolePaths returns two paths made from one: for a server and for its roles. A single path with an optional
// part would make a worse OpenAPI document and help.
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

// responses describes an operation with one response.
func responses(status int, description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{status: {{Description: description, Fields: fields}}}
}

// warn returns a response with the non-empty warnings; nil, which is a 204, if all are empty.
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
