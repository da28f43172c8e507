package mcpoauth

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

func (b *backend) refreshPaths() []*framework.Path {
	return b.serverAndRolePaths("refresh/", &framework.Path{
		HelpSynopsis:    "Replace an access token that the MCP server refused.",
		HelpDescription: strings.TrimSpace(refreshHelp),
		Fields: map[string]*framework.FieldSchema{
			"token_id": {
				Type:        framework.TypeString,
				Description: "The token_id of the refused token. If the plugin already holds another token, it fetches none. Without token_id, the held token is replaced.",
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:    serve(b.refreshToken),
				Summary:     "Replace the access token, if the plugin still holds the refused one.",
				Description: "Simultaneous requests share one new token. The response never contains a token.",
				// Only within the cluster: a performance secondary has its own tokens.
				ForwardPerformanceStandby: true,
				Responses: responses(http.StatusOK, "The held token", map[string]*framework.FieldSchema{
					"token_id":   textSchema("The token_id of the held token."),
					"refreshed":  boolSchema("Whether this request, or a simultaneous one, replaced the token. If not, a warning says why."),
					"expires_at": timeSchema("When the held token expires"),
				}),
			},
		},
	}, displayVerb("refresh", "token"))
}

var tokenIDPattern = regexp.MustCompile(`^[0-9a-f]{16}$`)

func (b *backend) refreshToken(ctx context.Context, name tokens.Name, d *framework.FieldData) (*logical.Response, error) {
	if err := onlyKnown(d); err != nil {
		return nil, err
	}
	rejected, given := d.GetOk("token_id")
	if given && !tokenIDPattern.MatchString(rejected.(string)) {
		return nil, badRequest("token_id must be the 16 hexadecimal digits from the token path, not the token itself; leave it out to replace any token")
	}
	id, _ := rejected.(string)
	t, refreshed, err := b.engine.Refresh(ctx, name, id)
	b.metrics.refreshed(refreshed, err)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{Data: map[string]any{
		"token_id":   t.ID(),
		"refreshed":  refreshed,
		"expires_at": rfc3339(t.Expires),
	}}
	if !refreshed {
		resp.AddWarning("refreshed=false: " + whyHeld(t, id, time.Now()))
	}
	return resp, nil
}

// whyHeld returns the reason why a token was not replaced. The engine keeps a token for 10 s; Issued is rounded down
// to a second, hence 11.
func whyHeld(t *tokens.Token, rejected string, now time.Time) string {
	switch {
	case rejected != "" && rejected != t.ID():
		return "another token is held already: read token/"
	case now.Sub(t.Issued) < 11*time.Second:
		return "the held token is less than 10 s old, too young to be replaced: if the MCP server refuses it too, look for another cause"
	default:
		return "the authorization server handed out the same token again: some do so until it expires"
	}
}

const refreshHelp = `
If an MCP server refuses a token with a 401, write its token_id, then read token/ again:

  vault write mcp-oauth/refresh/weather token_id=0123456789abcdef

If the plugin still holds that token, it obtains a new one, once for all brokers that report
it. A token younger than 10 seconds is not replaced. If refreshed is false, a warning says
why. The response never contains a token.

A policy that requires brokers to name the token:

  path "mcp-oauth/refresh/weather" {
    capabilities        = ["update"]
    required_parameters = ["token_id"]
  }
`
