// Package mcpoauth is a Vault secrets engine that gives brokers (MCP gateways and agents) the OAuth 2.0 access tokens
// of MCP servers. It holds each server's client credentials, obtains tokens with the client credentials grant (RFC
// 6749 section 4.4), refreshes them, and returns them at read-only paths.
package mcpoauth

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version"
)

// Factory makes the backend of one mount. It satisfies logical.Factory.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	// The framework keeps this system view, and asks it at every request.
	c := *conf
	system := newSystemView(conf.System)
	c.System = system
	b := newBackend(system, store{storage: conf.StorageView})
	if err := b.Setup(ctx, &c); err != nil {
		return nil, err
	}
	b.engine = tokens.New(tokens.Options{
		Store:    b.store,
		Passive:  system.passive,
		Log:      b.Logger(),
		Observer: b.metrics,
	})
	b.metrics.show(b.engine.Each, system.passive)
	return b, nil
}

func newBackend(system *systemView, s store) *backend {
	b := &backend{system: system, store: s, metrics: newMetrics(), keySets: newKeySets()}
	b.store.failed, b.store.proofs = b.metrics.storageFailed, &proofs{}
	b.Backend = &framework.Backend{
		Help:           strings.TrimSpace(backendHelp),
		BackendType:    logical.TypeLogical,
		RunningVersion: version.String(),
		PathsSpecial: &logical.Paths{
			SealWrapStorage: []string{configPrefix, tokenPrefix},
			LocalStorage:    []string{tokenPrefix, provedPrefix},
			Unauthenticated: unauthenticated,
		},
		Paths: framework.PathAppend(
			b.tokenPaths(), // first: the framework tries the patterns in order
			b.configPaths(),
			b.rolePaths(),
			b.refreshPaths(),
			b.statusPaths(),
			b.keysPaths(),
			b.publishedPaths(),
			b.metricsPaths(),
			b.settingsPaths(),
		),
		InitializeFunc: b.initialize,
		Invalidate:     b.invalidate,
		Clean:          b.clean,
	}
	return b
}

// initialize starts to load the stored tokens and published keys. It doesn't wait: the mount answers at once, and a
// read loads its own token.
func (b *backend) initialize(context.Context, *logical.InitializationRequest) error {
	b.engine.LoadAll()
	b.loadKeySets()
	b.sweepAll()
	return nil
}

// invalidate is called after a write by another node.
func (b *backend) invalidate(_ context.Context, key string) {
	for _, prefix := range []string{configPrefix, rolePrefix, tokenPrefix} {
		path, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		server, role, _ := strings.Cut(path, "/")
		name := tokens.Name{Server: server, Role: role}
		if prefix == tokenPrefix {
			b.engine.InvalidateToken(name)
			continue
		}
		b.engine.Invalidate(name)
		if prefix == configPrefix {
			b.reloadKeySet(server)
		}
	}
}

// clean stops the mount's background work. It must be quick: Vault's SDK holds a process-wide lock meanwhile.
func (b *backend) clean(context.Context) { b.engine.Close() }

// HandleRequest serves a request: plain token reads itself, all others through the framework with prepared data.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if name, ok := plainTokenRead(req); ok {
		return b.serveTokenRead(ctx, name)
	}
	if isPublic(req.Path) {
		req.Data = nil // an anonymous caller gets the same 404 for every name
	}
	if err := b.prepare(req); err != nil {
		return fail(tokens.Name{}, err)
	}
	resp, err := b.Backend.HandleRequest(ctx, req)
	if errors.Is(err, logical.ErrUnsupportedPath) {
		if isPublic(req.Path) {
			return nil, notPublished()
		}
		if faulty := faultyName(req.Path); faulty != nil {
			return fail(tokens.Name{}, faulty)
		}
	}
	if errors.Is(err, logical.ErrUnsupportedOperation) && req.Operation == logical.PatchOperation {
		if path := b.Route(req.Path); path != nil && path.ExistenceCheck != nil {
			return fail(tokens.Name{}, &requestError{http.StatusMethodNotAllowed, "this path does not support vault patch: use vault write, which changes only the given fields"})
		}
	}
	if resp != nil && req.Operation == logical.HelpOperation {
		if doc, ok := resp.Data["openapi"].(*framework.OASDocument); ok {
			completeOpenAPI(doc)
		}
	}
	return resp, err
}

// HandleExistenceCheck prepares the data as HandleRequest does. Vault calls it before a write.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checked, exists bool, err error) {
	if err := b.prepare(req); err != nil {
		return true, false, nil //nolint:nilerr // HandleRequest returns the error
	}
	checked, exists, err = b.Backend.HandleExistenceCheck(ctx, req)
	if errors.Is(err, logical.ErrUnsupportedPath) && faultyName(req.Path) != nil {
		return false, false, nil //nolint:nilerr // HandleRequest returns the error
	}
	return checked, exists, err
}

// prepare converts the request's data for the framework. It removes null fields: some clients write whole objects,
// with null for unset fields. A null token_id stays: Vault's required_parameters accept it, and a refresh without
// token_id would replace any token. prepare removes an empty verify, which means the default. It refuses secrets of
// the wrong type, because the framework's error would quote them.
func (b *backend) prepare(req *logical.Request) error {
	for field, value := range req.Data {
		if value == nil && field != "token_id" {
			delete(req.Data, field)
		}
	}
	if req.Data["verify"] == "" {
		delete(req.Data, "verify")
	}
	for _, field := range secretFields {
		if value, given := req.Data[field]; given {
			if _, ok := value.(string); !ok {
				return badRequest("%s must be a string", field)
			}
		}
	}
	if err := sameNames(req); err != nil {
		return err
	}
	if path := b.Route(req.Path); path != nil {
		return prepareFields(req.Data, path.Fields)
	}
	return nil
}

const backendHelp = `
The mcp-oauth secrets engine gives brokers the OAuth 2.0 access tokens of MCP servers.

An operator writes each server's client credentials once, at config/<server>. The
engine obtains a token with the client credentials grant, replaces it before it expires,
and returns it at token/<server>. A broker needs the read capability there, and never sees
the client secret.

  tr -d '\n' < secret.txt | vault write mcp-oauth/config/weather \
      server_url=https://weather.example.com/mcp client_id=vault client_secret=-
  vault read mcp-oauth/token/weather

A role, role/<server>/<role>, is a variant of a config with other scopes, resource
or audience, and a token of its own at token/<server>/<role>.

If an MCP server refuses a token, the broker writes its token_id to refresh/<server>.
status/ shows failures and the next attempts; metrics is for Prometheus.
`
