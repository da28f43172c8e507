package mcpoauth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

func (b *backend) settingsPaths() []*framework.Path {
	return []*framework.Path{{
		Pattern:         settingsKey + "$",
		Fields:          settingsTable.written(),
		HelpSynopsis:    "Read or change the mount's URL, as authorization servers see it.",
		HelpDescription: strings.TrimSpace(settingsHelp),
		DisplayAttrs:    display("settings"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:    b.serveOperator(b.readSettings),
				Summary:     "Read the mount's settings.",
				Description: "Unset fields are empty.",
				Responses:   responses(http.StatusOK, "The settings", settingsTable.read()),
			},
			logical.UpdateOperation: forwarded(b.serveWrite(b.writeSettings),
				"Change the mount's settings.", "An update changes only the fields that it gives.", stored()),
		},
	}}
}

func (b *backend) readSettings(ctx context.Context, _ tokens.Name, _ *framework.FieldData) (*logical.Response, error) {
	stored, err := b.store.settings(ctx)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: settingsTable.response(&stored)}, nil
}

func (b *backend) writeSettings(ctx context.Context, _ tokens.Name, d *framework.FieldData) (*logical.Response, error) {
	stored, err := b.store.settings(ctx)
	if err != nil {
		return nil, err
	}
	settingsTable.update(&stored, d)
	if stored.PublicURL, err = canonicalPublicURL(stored.PublicURL); err != nil {
		return nil, err
	}
	if err := b.store.putSettings(ctx, stored); err != nil {
		return nil, err
	}
	return warn(portWarning(stored.PublicURL), elsewhereWarning(b.keySets.identitiesElsewhere(stored.PublicURL))), nil
}

// elsewhereWarning returns a warning with the servers whose identity stays at an earlier public URL; "" if servers is
// empty.
func elsewhereWarning(servers []string) string {
	const most = 10
	if len(servers) == 0 {
		return ""
	}
	names, more := servers, ""
	if len(names) > most {
		names, more = names[:most], fmt.Sprintf(" and %d more", len(servers)-most)
	}
	return fmt.Sprintf("the identities of %s%s keep the URL that authorization servers trust: write identity again to each config that should use the new one", strings.Join(names, ", "), more)
}

// canonicalPublicURL checks the mount's URL and returns it in canonical form, because authorization servers compare
// URLs built on it as texts: scheme and host in lower case, without a trailing slash.
func canonicalPublicURL(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	if err := validEndpoint("public_url", raw, false); err != nil {
		return "", err
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", badRequest("public_url is not a URL")
	}
	trimmed := strings.TrimRight(u.EscapedPath(), "/")
	switch {
	case strings.Contains(raw, "?"):
		return "", badRequest("public_url must not hold a query (?...)")
	case trimmed == "" || path.Clean(trimmed) != trimmed:
		return "", badRequest("public_url must end in the path of the mount, as in https://vault.example.com/v1/mcp-oauth, without empty, \".\" or \"..\" segments")
	}
	return strings.ToLower(u.Scheme) + "://" + strings.ToLower(u.Host) + trimmed, nil
}

const settingsHelp = `
Settings of the mount, for operators.

  vault write mcp-oauth/settings public_url=https://vault.example.com/v1/mcp-oauth
  vault read mcp-oauth/settings

public_url is the mount's URL as authorization servers see it. In a namespace it has the
namespace's path: https://vault.example.com/v1/team-a/mcp-oauth. The URLs that keys/
shows begin with it. The plugin never takes it from a request.
`
