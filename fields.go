package mcpoauth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// secretFields are the fields that are never read back or quoted.
var secretFields = []string{"client_secret", "private_key", "client_certificate_key"}

func serverField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeString,
		Required:    true,
		Description: "The operator's short name of the MCP server.",
	}
}

func roleField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeString,
		Required:    true,
		Description: "Name of the role.",
	}
}

func scopesField(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeCommaStringSlice, Description: description}
}

func resourceField(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeCommaStringSlice, Description: description}
}

func audienceField(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Description: description}
}

func extraParamsField(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeKVPairs, Description: description}
}

func verifyField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeBool,
		Default:     true,
		Description: "Obtain a token with the new settings before they are stored, and store nothing if that fails. false stores without contacting anybody. Not stored itself. Default: true.",
	}
}

// set copies a field of the request, if it is given, to a value of the type that the
// field's schema decodes to.
func set[T any](d *framework.FieldData, field string, to *T) {
	if _, ok := d.Schema[field]; !ok {
		return
	}
	if value, ok := d.GetOk(field); ok {
		*to = value.(T)
	}
}

// setSeconds takes a duration as Vault's own fields do, in whole seconds: a fraction is
// rounded up, so that a limit of half a second does not become none. An empty value is
// the default.
func setSeconds(d *framework.FieldData, field string, to *time.Duration, byDefault time.Duration) {
	value, ok := d.GetOk(field)
	if !ok {
		return
	}
	if *to = time.Duration(value.(int)) * time.Second; d.Raw[field] == "" {
		*to = byDefault
	}
	if exact, err := time.ParseDuration(fmt.Sprint(d.Raw[field])); err == nil && exact > *to {
		*to += time.Second
	}
}

// setScopes takes scopes separated by commas, spaces or both: a scope holds no space
// (RFC 6749 section 3.3). One that holds a comma is written in a list.
func setScopes(d *framework.FieldData, to *[]string) {
	if value, ok := d.GetOk("scopes"); ok {
		*to = splitScopes(value.([]string))
	}
}

// splitScopes gives the scopes in a list whose items hold one or more, each scope once.
func splitScopes(items []string) []string {
	var scopes []string
	seen := map[string]bool{}
	for _, item := range items {
		for scope := range strings.FieldsSeq(item) {
			if !seen[scope] {
				seen[scope] = true
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes
}

// encoded keeps the values of a JSON object as they were written; nil for none.
func encoded(values map[string]any) map[string]json.RawMessage {
	if len(values) == 0 {
		return nil
	}
	all := make(map[string]json.RawMessage, len(values))
	for name, value := range values {
		data, err := json.Marshal(value)
		if err != nil {
			panic(err) // it came as JSON
		}
		all[name] = data
	}
	return all
}

// decoded gives the values back, never nil.
func decoded(values map[string]json.RawMessage) map[string]any {
	all := make(map[string]any, len(values))
	for name, value := range values {
		decoder := json.NewDecoder(bytes.NewReader(value))
		decoder.UseNumber() // a large integer is no float
		var v any
		if err := decoder.Decode(&v); err == nil {
			all[name] = v
		}
	}
	return all
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// list is never nil, so that an empty list reads as one.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func pairs(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
