package mcpoauth

import (
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// completeOpenAPI replaces each reference to a schema by the schema, because Vault drops the references in the
// document of an external plugin. It also adds the body of metrics, which is text: the framework describes JSON
// bodies only.
func completeOpenAPI(doc *framework.OASDocument) {
	for path, item := range doc.Paths {
		for _, op := range []*framework.OASOperation{item.Get, item.Post, item.Delete} {
			if op == nil {
				continue
			}
			if op.RequestBody != nil {
				inline(op.RequestBody.Content, doc.Components.Schemas)
			}
			for _, response := range op.Responses {
				inline(response.Content, doc.Components.Schemas)
				if path == "/"+metricsPath {
					response.Content = framework.OASContent{metricsMediaType: {Schema: &framework.OASSchema{Type: "string"}}}
				}
			}
		}
	}
}

func inline(content framework.OASContent, schemas map[string]*framework.OASSchema) {
	for _, body := range content {
		if schema, ok := schemas[strings.TrimPrefix(body.Schema.Ref, "#/components/schemas/")]; ok {
			body.Schema = schema
		}
	}
}
