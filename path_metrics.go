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
				Description: "Reads only memory. Counters start at 0 each time that Vault sets up the mount.",
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

The metrics count token requests, reads of tokens, writes to refresh/, late refreshes and
storage failures, and show each token's expiry and failures. A scrape reads only memory.
Counters start at 0 each time that Vault sets up the mount.
`
