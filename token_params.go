package mcpoauth

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// tokenParams are the fields of a config or a role for the parameters of a token request, as the operator wrote them.
// To add a parameter, add it here, to override and to tokenParamFields, and have grant.Parameters send it.
type tokenParams struct {
	Scopes       []string          `json:"scopes,omitempty"`
	Resource     []string          `json:"resource,omitempty"`
	OmitResource bool              `json:"omit_resource,omitempty"`
	Audience     string            `json:"audience,omitempty"`
	ExtraParams  map[string]string `json:"extra_params,omitempty"`
}

// clone returns a deep copy.
func (p tokenParams) clone() tokenParams {
	p.Scopes, p.Resource, p.ExtraParams = slices.Clone(p.Scopes), slices.Clone(p.Resource), maps.Clone(p.ExtraParams)
	return p
}

// override sets the non-empty parameters of p in q.
func (p tokenParams) override(q *grant.Parameters) {
	if len(p.Scopes) > 0 {
		q.Scopes = p.Scopes
	}
	switch {
	case p.OmitResource:
		q.Resources = nil
	case len(p.Resource) > 0:
		q.Resources = p.Resource
	}
	q.Audience = cmp.Or(p.Audience, q.Audience)
	if len(p.ExtraParams) > 0 {
		q.ExtraParams = p.ExtraParams
	}
}

// tokenParamFields defines the fields of tokenParams. defaults describes the meaning of an empty field, by its name.
func tokenParamFields[T any](at func(*T) *tokenParams, defaults map[string]string) fieldTable[T] {
	byDefault := func(name, description string) string {
		if defaults[name] == "" {
			return description
		}
		return description + " Default: " + defaults[name] + "."
	}
	return fieldTable[T]{
		{
			name: "scopes", limit: limit{bytes: 1 << 10, items: 100, words: true},
			schema: framework.FieldSchema{
				Type:        framework.TypeCommaStringSlice,
				Description: byDefault("scopes", "The scopes to request (RFC 6749 section 3.3), as a list or separated by commas or spaces."),
			},
			// A scope never contains a space. One with a comma must be written in a list.
			set:   func(to *T, d *framework.FieldData) { at(to).Scopes = splitScopes(d.Get("scopes").([]string)) },
			value: func(of *T) any { return list(at(of).Scopes) },
			check: func(of *T) error { return validScopes(at(of).Scopes) },
		},
		{
			name: "resource", limit: limit{bytes: maxURL, items: 100},
			schema: framework.FieldSchema{
				Type:        framework.TypeCommaStringSlice,
				Description: byDefault("resource", "The resource indicators to send (RFC 8707), as a list or separated by commas: absolute URIs without a fragment. Other names are accepted, with a warning."),
			},
			set:   func(to *T, d *framework.FieldData) { at(to).Resource = d.Get("resource").([]string) },
			value: func(of *T) any { return list(at(of).Resource) },
			check: func(of *T) error { return validResources(at(of).Resource) },
		},
		flagField("omit_resource", func(of *T) *bool { return &at(of).OmitResource },
			"Send no resource indicator, for authorization servers that refuse one.").checked(func(of *T) error {
			if p := at(of); p.OmitResource && len(p.Resource) > 0 {
				return badRequest("resource and omit_resource contradict each other: write resource=\"\" or omit_resource=false")
			}
			return nil
		}),
		textField("audience", func(of *T) *string { return &at(of).Audience }, maxURL,
			byDefault("audience", "The audience parameter, which some authorization servers need.")).printable(),
		{
			name: "extra_params", limit: limit{bytes: 4 << 10, items: 100, names: 256},
			schema: framework.FieldSchema{
				Type:        framework.TypeKVPairs,
				Description: byDefault("extra_params", "More parameters of the token request, as name=value pairs. A read returns them, so they must not be secrets. Parameters that the plugin sets itself are refused."),
			},
			set:   func(to *T, d *framework.FieldData) { at(to).ExtraParams = d.Get("extra_params").(map[string]string) },
			value: func(of *T) any { return pairs(at(of).ExtraParams) },
			check: func(of *T) error { return validExtraParams(at(of).ExtraParams) },
		},
	}
}

// splitScopes splits items at spaces and returns each scope once.
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

func validScopes(scopes []string) error {
	for _, scope := range scopes {
		if !isScope(scope) {
			return badRequest("scope %s is malformed: a scope is printable ASCII without spaces, quotes or backslashes (RFC 6749 section 3.3)", quote(scope))
		}
	}
	return nil
}

func validResources(resources []string) error {
	for _, resource := range resources {
		if resource == "" || !isPrintable(resource) { // a URL is not required: see oddResources
			return badRequest("resource %s must be printable characters", quote(resource))
		}
	}
	return nil
}

func validExtraParams(params map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case name == "" || !isVisible(name) || strings.Contains(name, " "):
			return badRequest("extra_params: the name %s is malformed: a parameter's name is printable ASCII without spaces", quote(name))
		case grant.IsReserved(name):
			return badRequest("extra_params must not hold %s: write its own field, or leave it out if the plugin sends it", name)
		case !isPrintable(params[name]):
			return badRequest("extra_params: the value of %s must be printable characters", quote(name))
		}
	}
	return nil
}
