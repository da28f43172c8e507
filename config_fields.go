package mcpoauth

import (
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// configFields are the fields of config/<server>, in the words of RFC 6749 and 8707.
func configFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"server": serverField(),
		"server_url": {
			Type:        framework.TypeString,
			Description: "URL of the MCP server, as its clients call it. It is the default of resource.",
		},
		"token_url": {
			Type:        framework.TypeString,
			Description: "URL of the authorization server's token endpoint (RFC 6749 section 3.2). http is for loopback only, unless allow_insecure_http is set.",
		},
		"client_id": {
			Type:        framework.TypeString,
			Description: "The client's identifier at the authorization server.",
		},
		"token_endpoint_auth_method": {
			Type:          framework.TypeString,
			AllowedValues: []any{string(grant.ClientSecretBasic), string(grant.ClientSecretPost)},
			Description:   "How the client authenticates: client_secret_basic (in the Authorization header) or client_secret_post (in the body). Default: client_secret_basic.",
		},
		"client_secret": {
			Type:         framework.TypeString,
			Description:  "The client's secret. It is stored, sent to the token endpoint, and never returned.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"scopes":   scopesField("The scopes to ask for (RFC 6749 section 3.3), as a list or separated by commas or spaces. Default: none, which leaves it to the authorization server."),
		"resource": resourceField("The resource indicators to send (RFC 8707): absolute URIs without a fragment, as a list or separated by commas. Default: server_url."),
		"omit_resource": {
			Type:        framework.TypeBool,
			Description: "Send no resource indicator, for authorization servers that refuse one.",
		},
		"audience": audienceField("The audience parameter that some authorization servers want. Default: not sent."),
		"extra_params": {
			Type:        framework.TypeKVPairs,
			Description: "Further parameters of the token request, as name=value pairs. They are shown on read, so they are no place for secrets. Names that the plugin sends itself are refused.",
		},
		"default_ttl": {
			Type:        framework.TypeDurationSecond,
			Default:     int64(defaultDefaultTTL / time.Second),
			Description: "Lifetime of a token when the authorization server does not tell (no expires_in). Default: 5m.",
		},
		"max_ttl": {
			Type:        framework.TypeDurationSecond,
			Description: "Longest time for which a token is used, whatever the authorization server says. It holds from the next token on. 0, the default, is no limit.",
		},
		"idle_timeout": {
			Type:        framework.TypeDurationSecond,
			Default:     int64(defaultIdleTimeout / time.Second),
			Description: "Stop refreshing a token that nobody has read for so long, or for its lifetime where that is longer. 0 never stops. Default: 24h.",
		},
		"ca_cert": {
			Type:         framework.TypeString,
			Description:  "PEM certificates of the authorities to trust for the token endpoint, in place of the system's.",
			DisplayAttrs: &framework.DisplayAttributes{EditType: "file"},
		},
		"request_timeout": {
			Type:        framework.TypeDurationSecond,
			Default:     int64(defaultRequestTimeout / time.Second),
			Description: "How long one token request may take, 1s to 30s. Default: 10s.",
		},
		"allow_insecure_http": {
			Type:        framework.TypeBool,
			Description: "Allow http URLs to hosts other than loopback. The client secret then crosses the network in the clear.",
		},
		"verify": verifyField(),
	}
}

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

func verifyField() *framework.FieldSchema {
	return &framework.FieldSchema{
		Type:        framework.TypeBool,
		Default:     true,
		Description: "Obtain a token with the new settings before they are stored, and store nothing if that fails. false stores without contacting anybody. Not stored itself. Default: true.",
	}
}

// update sets the fields that the request holds, and leaves the others.
func (c *config) update(d *framework.FieldData) {
	set(d, "server_url", &c.ServerURL)
	set(d, "token_url", &c.TokenURL)
	set(d, "client_id", &c.ClientID)
	if method, ok := d.GetOk("token_endpoint_auth_method"); ok {
		c.AuthMethod = grant.AuthMethod(method.(string))
	}
	set(d, "client_secret", &c.ClientSecret)
	setScopes(d, &c.Scopes)
	set(d, "resource", &c.Resource)
	set(d, "omit_resource", &c.OmitResource)
	set(d, "audience", &c.Audience)
	set(d, "extra_params", &c.ExtraParams)
	setSeconds(d, "default_ttl", &c.DefaultTTL)
	setSeconds(d, "max_ttl", &c.MaxTTL)
	setSeconds(d, "idle_timeout", &c.IdleTimeout)
	set(d, "ca_cert", &c.CACert)
	setSeconds(d, "request_timeout", &c.RequestTimeout)
	set(d, "allow_insecure_http", &c.AllowInsecureHTTP)
}

// response is the config as it is read: in the form in which it can be written back,
// without the secret.
func (c *config) response() map[string]any {
	return map[string]any{
		"server_url":                 c.ServerURL,
		"token_url":                  c.TokenURL,
		"client_id":                  c.ClientID,
		"token_endpoint_auth_method": string(c.AuthMethod),
		"scopes":                     list(c.Scopes),
		"resource":                   list(c.Resource),
		"omit_resource":              c.OmitResource,
		"audience":                   c.Audience,
		"extra_params":               pairs(c.ExtraParams),
		"default_ttl":                seconds(c.DefaultTTL),
		"max_ttl":                    seconds(c.MaxTTL),
		"idle_timeout":               seconds(c.IdleTimeout),
		"ca_cert":                    c.CACert,
		"request_timeout":            seconds(c.RequestTimeout),
		"allow_insecure_http":        c.AllowInsecureHTTP,
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

func setSeconds(d *framework.FieldData, field string, to *time.Duration) {
	if value, ok := d.GetOk(field); ok {
		*to = time.Duration(value.(int)) * time.Second
	}
}

// setScopes takes scopes separated by commas, spaces or both: a scope holds no space
// (RFC 6749 section 3.3). One that holds a comma is written in a list.
func setScopes(d *framework.FieldData, to *[]string) {
	value, ok := d.GetOk("scopes")
	if !ok {
		return
	}
	var scopes []string
	seen := map[string]bool{}
	for _, item := range value.([]string) {
		for scope := range strings.FieldsSeq(item) {
			if !seen[scope] {
				seen[scope] = true
				scopes = append(scopes, scope)
			}
		}
	}
	*to = scopes
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
