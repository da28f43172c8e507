package mcpoauth

import (
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// setHeaders returns the extra headers after a write; nil if given is empty. A name without a value keeps its stored
// value: a read returns names only, and can be written back.
func setHeaders(stored map[string]string, given map[string]any) map[string]string {
	if len(given) == 0 {
		return nil
	}
	headers := map[string]string{}
	for name, value := range given {
		text, isText := value.(string)
		if kept, ok := stored[name]; !isText && ok {
			text = kept
		} else if !isText {
			name = "" // refused without quoting it: it may be a value written without its name
		}
		headers[name] = text
	}
	return headers
}

// validHeaders checks the extra headers. Errors contain only names.
func validHeaders(headers map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if err := grant.CheckHeader(name, headers[name]); err != nil {
			return badRequest("extra_headers: %v", err)
		}
	}
	return nil
}

// suppliesHeaders reports whether the request gives the values of all extra headers.
func suppliesHeaders(d *framework.FieldData) bool {
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
