package mcpoauth

import (
	"context"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/common/expfmt"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
)

const (
	metricsPath      = "metrics"
	metricsMediaType = "text/plain"
)

func (b *backend) metricsPaths() []*framework.Path {
	return []*framework.Path{{
		Pattern:         metricsPath + "$",
		HelpSynopsis:    "Read the mount's metrics, for Prometheus.",
		HelpDescription: strings.TrimSpace(metricsHelp),
		DisplayAttrs:    display("metrics"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:    serve(b.readMetrics),
				Summary:     "Read the mount's metrics, for Prometheus.",
				Description: "Reads memory only. Counts begin when the mount is set up in the plugin's process.",
				Responses: map[int][]framework.Response{http.StatusOK: {{
					Description: "The metrics in Prometheus's text format",
					MediaType:   metricsMediaType,
				}}},
			},
		},
	}}
}

// readMetrics returns the metrics in Prometheus's text format.
func (b *backend) readMetrics(context.Context, tokens.Name, *framework.FieldData) (*logical.Response, error) {
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	body, err := b.metrics.scrape(format)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPContentType: string(format),
		logical.HTTPRawBody:     body,
		logical.HTTPStatusCode:  http.StatusOK,
	}}, nil
}

const metricsHelp = `
Returns metrics in Prometheus's text format. Scrape /v1/<mount>/metrics with a Vault token
that may read this path.

  vault read -format=raw mcp-oauth/metrics

  path "mcp-oauth/metrics" { capabilities = ["read"] }

It contacts neither storage nor an authorization server. Counts begin when the mount is set
up in the plugin's process.

It has requests to authorization servers, reads of tokens, writes to refresh/, late
refreshes, storage failures and, for each token, its expiry and its failures.
`
