package mcpoauth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// discoveredTable defines the read-only fields of a config: the findings of discovery.
var discoveredTable = fieldTable[config]{
	discoveredField("discovered_issuer", framework.TypeString, "The discovered authorization server.", func(c *config) any {
		if c.Discovered == nil {
			return nil
		}
		return c.Discovered.Issuer
	}),
	discoveredField("discovered_token_url", framework.TypeString, "The discovered token endpoint.", func(c *config) any {
		if c.Discovered == nil {
			return nil
		}
		return c.Discovered.TokenURL
	}),
	discoveredField("discovered_scopes", framework.TypeStringSlice, "The scopes named by the MCP server: the default of scopes.", func(c *config) any {
		if c.Discovered == nil && c.Published == nil {
			return nil
		}
		scopes, _ := c.publishedDefaults()
		return list(scopes)
	}),
	discoveredField("discovered_resource", framework.TypeString, "The resource identifier published by the MCP server: the default of resource.", func(c *config) any {
		if c.Discovered == nil && c.Published == nil {
			return nil
		}
		_, resource := c.publishedDefaults()
		return resource
	}),
	discoveredField("discovered_at", framework.TypeTime, "When the other discovered_ fields were found (RFC 3339, UTC).", func(c *config) any {
		switch {
		case c.Discovered != nil:
			return rfc3339(c.Discovered.At)
		case c.Published != nil:
			return rfc3339(c.Published.At)
		default:
			return nil
		}
	}),
}

// discoveredField defines a read-only field of a config.
func discoveredField(name string, fieldType framework.FieldType, description string, value func(*config) any) field[config] {
	return field[config]{name: name, schema: framework.FieldSchema{Type: fieldType, Description: description}, value: value}
}

// configFields returns the schemas of the fields of a config's write.
func configFields() map[string]*framework.FieldSchema { return configTable.written() }

// configResponseFields returns the schemas of the fields of a config's read.
func configResponseFields() map[string]*framework.FieldSchema {
	return slices.Concat(configTable, discoveredTable).read()
}

// response returns the fields of a config's read.
func (c *config) response() map[string]any {
	return slices.Concat(configTable, discoveredTable).response(c)
}

// refuseDiscovered returns an error if the request changes a discovered field. It accepts unchanged values, so that a
// read can be written back. It checks discovered_at only if withTime is set.
func (c *config) refuseDiscovered(d *framework.FieldData, withTime bool) error {
	for _, f := range discoveredTable {
		given, ok := d.Raw[f.name]
		if !ok || f.name == "discovered_at" && !withTime || asText(given) == asText(f.value(c)) {
			continue
		}
		return badRequest("%s is read-only: leave it out, or write issuer, token_url, scopes or resource", f.name)
	}
	return nil
}

// asText returns a value as the vault command writes it: a list with commas, nil as "".
func asText(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case []string:
		return strings.Join(value, ",")
	case []any:
		items := make([]string, len(value))
		for i, item := range value {
			items[i] = fmt.Sprint(item)
		}
		return strings.Join(items, ",")
	default:
		return fmt.Sprint(value)
	}
}
