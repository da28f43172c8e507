package mcpoauth

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

func (b *backend) statusPaths() []*framework.Path {
	list := &framework.Path{
		Pattern:         "status/?$",
		HelpSynopsis:    "List the servers with the state of their tokens.",
		HelpDescription: strings.TrimSpace(statusHelp),
		DisplayAttrs:    display("statuses"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback:    b.serveOperator(b.listStatus),
				Summary:     "List the servers with the state of their tokens.",
				Description: "No server is contacted.",
				Responses:   statusList("<server>, and <server>/ with the state of its worst role, if it has roles."),
			},
		},
	}
	one := b.serverAndRolePaths("status/", &framework.Path{
		HelpSynopsis:    "Read the health of an MCP server's token.",
		HelpDescription: strings.TrimSpace(statusHelp),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:    b.serveOperator(b.readStatus),
				Summary:     "Read the health of a token; never a token or a secret.",
				Description: "No server is contacted.",
				Responses:   responses(http.StatusOK, "The health of the token", statusFields()),
			},
		},
	}, display("status"))
	ofServer := one[0]
	ofServer.Pattern = strings.TrimSuffix(ofServer.Pattern, "$") + "/?$"
	ofServer.Operations = maps.Clone(ofServer.Operations)
	ofServer.Operations[logical.ListOperation] = &framework.PathOperation{
		Callback:     b.serveOperator(b.listRoleStatus),
		Summary:      "List a server's roles with the state of their tokens.",
		Description:  "No server is contacted.",
		DisplayAttrs: displayVerb("list", "role-statuses"),
		Responses:    statusList("Names of the roles."),
	}
	return append([]*framework.Path{list}, one...)
}

// statusList describes the response of a list with states.
func statusList(names string) map[int][]framework.Response {
	return responses(http.StatusOK, "The names with their state", map[string]*framework.FieldSchema{
		"keys":     textsSchema(names),
		"key_info": {Type: framework.TypeMap, Description: "By name: state and, if the last request failed, error."},
	})
}

func statusFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"state":                         choiceSchema("ok: a valid token is held, and the last request succeeded; failing: the last request failed, and the held token is still valid; down: the last request failed, and no valid token is held; idle: no broker reads the token, so it may expire; empty: no token is held yet, and the next read gets one.", tokens.States()),
		"token_id":                      textSchema("The token_id of the held token, if it is valid."),
		"expires_at":                    timeSchema("When the held token expires"),
		"last_vault_rotation":           timeSchema("When the held token was obtained"),
		"next_rotation":                 timeSchema("When the held token is due to be refreshed"),
		"scope":                         textSchema("The granted scopes, space-delimited."),
		"last_read":                     timeSchema("When the token was last read; loading it from storage and a write that obtained it count as reads"),
		"refreshing":                    boolSchema("Whether a request to the authorization server is under way."),
		"unsaved":                       boolSchema("Whether the held token is not stored yet: a restart would lose it."),
		"last_error":                    textSchema("Why the last request failed, as in the error of a read."),
		"last_error_code":               textSchema("The OAuth error code (RFC 6749 section 5.2) of the last request, if the response had one."),
		"last_error_at":                 timeSchema("When the last request failed"),
		"failing_since":                 timeSchema("When the first of the consecutive failures occurred"),
		"consecutive_failures":          {Type: framework.TypeInt, Description: "Number of requests that failed in a row."},
		"next_attempt":                  timeSchema("When the next attempt is permitted"),
		"credentials_verified":          boolSchema("Whether a token request with the config's credentials has succeeded since they were written: for a verified write, refresh/, a read or a refresh. If not, write refresh/ to try them."),
		"credentials_written_at":        timeSchema("When the credentials in use were written, or the key of a rotation became active"),
		"token_url":                     textSchema("The token endpoint in effect."),
		"token_endpoint_auth_method":    textSchema("How the client authenticates there."),
		"credentials_kind":              textSchema("The kind of credentials: client_secret, private_key, generated_key or client_certificate."),
		"scopes":                        textsSchema("The requested scopes."),
		"resource":                      textsSchema("The requested resource indicators."),
		"client_certificate_expires_at": timeSchema("When the client certificate of tls_client_auth expires"),
		"warnings":                      textsSchema("Warnings of discovery and about the held token, such as scopes that were not granted."),
	}
}

// readStatus reads only memory and storage.
func (b *backend) readStatus(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	c, r, err := b.store.effective(ctx, name)
	if err != nil {
		return nil, err
	}
	status, err := b.engine.Status(ctx, name)
	if err != nil {
		return nil, err
	}
	verified, err := b.store.verified(ctx, name.Server, c)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	data := map[string]any{
		"state":                string(status.State),
		"refreshing":           status.Refreshing,
		"unsaved":              status.Unsaved,
		"credentials_verified": verified,
	}
	if since := c.credentialsSince(now); !since.IsZero() {
		data["credentials_written_at"] = rfc3339(since)
	}
	maps.Copy(data, c.inEffect(r))
	notes := append([]string{}, c.findings()...)
	notes = append(notes, c.identityWarnings()...)
	if warning := c.certificateWarning(now); warning != "" {
		notes = append(notes, warning)
	}
	if end, ok := c.certificateEnd(); ok {
		data["client_certificate_expires_at"] = rfc3339(end)
	}
	if !status.LastRead.IsZero() {
		data["last_read"] = rfc3339(status.LastRead)
	}
	if t := status.Token; t != nil {
		data["token_id"] = t.ID()
		data["expires_at"] = rfc3339(t.Expires)
		data["last_vault_rotation"] = rfc3339(t.Issued)
		data["next_rotation"] = rfc3339(t.RefreshAt)
		data["scope"] = t.Scope
		notes = append(notes, c.tokenWarnings(r, t.AccessToken, t.Scope, t.Lifetime())...)
	}
	data["warnings"] = notes
	if f := status.Failure; f != nil {
		data["last_error"] = f.Err.Error()
		data["last_error_at"] = rfc3339(f.At)
		data["failing_since"] = rfc3339(f.Since)
		data["consecutive_failures"] = f.Count
		data["next_attempt"] = rfc3339(f.NextAttempt)
		if refused, ok := errors.AsType[*grant.RefusedError](f.Err); ok && refused.Code != "" {
			data["last_error_code"] = refused.Code
		}
	}
	return &logical.Response{Data: data}, nil
}

// inEffect returns the non-secret settings of the token requests of a config or its role r.
func (c *config) inEffect(r *role) map[string]any {
	q := c.parameters(r)
	return map[string]any{
		"token_url":                  q.TokenURL,
		"token_endpoint_auth_method": string(c.authMethod()),
		"credentials_kind":           c.credentialsKind(),
		"scopes":                     list(q.Scopes),
		"resource":                   list(q.Resources),
	}
}

// A brief is the health of a token, or of a server's roles, in a list.
type brief struct {
	state tokens.State
	err   string // "" after a success
}

// An overview is the response of a list of names. A list may have thousands: names with the same state and without an
// error share a map.
type overview struct {
	keys    []string
	info    map[string]any
	ofState map[tokens.State]map[string]any
}

func newOverview(names int) *overview {
	return &overview{make([]string, 0, names), make(map[string]any, names), map[tokens.State]map[string]any{}}
}

func (l *overview) add(key string, b brief) {
	l.keys = append(l.keys, key)
	if b.err != "" {
		l.info[key] = map[string]any{"state": string(b.state), "error": b.err}
		return
	}
	if l.ofState[b.state] == nil {
		l.ofState[b.state] = map[string]any{"state": string(b.state)}
	}
	l.info[key] = l.ofState[b.state]
}

func (l *overview) response() *logical.Response {
	return logical.ListResponseWithInfo(l.keys, l.info)
}

// worst returns the first brief with the worst state.
func worst(briefs []brief) brief {
	states := tokens.States()
	return slices.MaxFunc(briefs, func(x, y brief) int {
		return slices.Index(states, x.state) - slices.Index(states, y.state)
	})
}

// listStatus lists the servers and, as "<server>/", the roles of a server as one entry.
func (b *backend) listStatus(ctx context.Context, _ tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	servers, err := b.store.servers(ctx)
	if err != nil {
		return nil, err
	}
	// Most servers lack roles, and listing those of a server costs a round trip to Vault.
	withRoles, err := b.store.serversWithRoles(ctx)
	if err != nil {
		return nil, err
	}
	list := newOverview(len(servers))
	for _, server := range servers {
		names, briefs, err := b.briefs(ctx, tokens.Name{Server: server})
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			continue // deleted since it was listed
		}
		list.add(server, briefs[0])
		if !withRoles[server] {
			continue
		}
		roles, err := b.store.roles(ctx, server)
		if err != nil {
			return nil, err
		}
		if names, briefs, err = b.briefs(ctx, rolesOf(server, roles)...); err != nil {
			return nil, err
		}
		if len(names) > 0 {
			list.add(server+"/", worst(briefs))
		}
	}
	return list.response(), nil
}

// listRoleStatus lists a server's roles with their states.
func (b *backend) listRoleStatus(ctx context.Context, name tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	roles, err := b.store.rolesOf(ctx, name.Server)
	if err != nil {
		return nil, err
	}
	names, briefs, err := b.briefs(ctx, rolesOf(name.Server, roles)...)
	if err != nil {
		return nil, err
	}
	list := newOverview(len(names))
	for i, name := range names {
		list.add(name.Role, briefs[i])
	}
	return list.response(), nil
}

func rolesOf(server string, roles []string) []tokens.Name {
	names := make([]tokens.Name, len(roles))
	for i, role := range roles {
		names[i] = tokens.Name{Server: server, Role: role}
	}
	return names
}

// briefs returns the health of the configured names, in order.
func (b *backend) briefs(ctx context.Context, names ...tokens.Name) ([]tokens.Name, []brief, error) {
	configured := make([]tokens.Name, 0, len(names))
	briefs := make([]brief, 0, len(names))
	for _, name := range names {
		status, err := b.engine.Status(ctx, name)
		entry := brief{state: status.State}
		switch {
		case errors.Is(err, tokens.ErrNotConfigured):
			continue
		case errors.Is(err, tokens.ErrClosed) || ctx.Err() != nil:
			return nil, nil, err
		case err != nil: // one damaged entry must not hide the others
			entry = brief{state: tokens.StateDown, err: err.Error()}
		case status.Failure != nil:
			entry.err = status.Failure.Err.Error()
		}
		configured = append(configured, name)
		briefs = append(briefs, entry)
	}
	return configured, briefs, nil
}

const statusHelp = `
Shows the state of tokens, for operators and monitoring. It never returns a token or a
secret, and never contacts an authorization server.

  vault list -detailed mcp-oauth/status
  vault list -detailed mcp-oauth/status/weather
  vault read mcp-oauth/status/weather

A list of status/ has "weather" for the config's token and, if the config has roles,
"weather/" with the state of the worst role.

credentials_verified says whether a token request has succeeded since the credentials were
written; a token obtained with earlier ones may still be valid. If it is false, write
refresh/<server>, or the config again.

States: ok (a valid token is held, and the last request succeeded); failing (the last
request failed, and the held token is still valid); down (it failed, and no valid token is
held); idle (no broker reads the token, so it may expire; the next read gets a new one);
empty (no token is held yet; the next read gets one).
`
