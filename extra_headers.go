package mcpoauth

import (
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// headerNames describes extra_headers as a config's read gives it.
func headerNames() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"extra_headers": {Type: framework.TypeStringSlice, Description: "The names of the further headers of the token request."},
	}
}

// setHeaders sets the further headers of the token request. One without a value keeps the one that it has:
// a read gives the names alone, and can be written back.
func (c *config) setHeaders(given map[string]any) {
	headers := map[string]string{}
	for name, value := range given {
		text, isText := value.(string)
		if kept, ok := c.ExtraHeaders[name]; !isText && ok {
			text = kept
		} else if !isText {
			name = "" // is refused without being shown: it may be a value that was written without its name
		}
		headers[name] = text
	}
	c.ExtraHeaders = headers
	if len(headers) == 0 {
		c.ExtraHeaders = nil
	}
}

// validHeaders checks the further headers. Its errors hold no value.
func (c *config) validHeaders() error {
	for _, name := range slices.Sorted(maps.Keys(c.ExtraHeaders)) {
		if err := grant.CheckHeader(name, c.ExtraHeaders[name]); err != nil {
			return badRequest("extra_headers: %v", err)
		}
	}
	return nil
}

// suppliesHeaders reports whether the request holds the values of all further headers that the config now has.
func (c *config) suppliesHeaders(d *framework.FieldData) bool {
	if len(c.ExtraHeaders) == 0 {
		return true
	}
	headers, ok := d.GetOk("extra_headers")
	if !ok {
		return false
	}
	for _, value := range headers.(map[string]any) {
		if _, isText := value.(string); !isText {
			return false
		}
	}
	return true
}
