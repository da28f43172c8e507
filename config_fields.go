package mcpoauth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// configFields are the fields of config/<server>, in the words of RFC 6749 and 8707.
func configFields() map[string]*framework.FieldSchema {
	return described(map[string]*framework.FieldSchema{
		"server": serverField(),
		"server_url": {
			Type:        framework.TypeString,
			Description: "URL of the MCP server, as its clients call it. Without issuer and token_url the authorization server is discovered from here (RFC 9728), and with them the defaults of scopes and resource.",
		},
		"issuer": {
			Type:        framework.TypeString,
			Description: "The authorization server's issuer identifier: its metadata is looked for there (RFC 8414), and no server that server_url names.",
		},
		"token_url": {
			Type:        framework.TypeString,
			Description: "URL of the authorization server's token endpoint (RFC 6749 section 3.2): no server is discovered then. http is for loopback only, unless allow_insecure_http is set.",
		},
		"client_id": {
			Type:        framework.TypeString,
			Description: "The client's identifier at the authorization server.",
		},
		"token_endpoint_auth_method": {
			Type:          framework.TypeString,
			AllowedValues: []any{"", string(grant.ClientSecretBasic), string(grant.ClientSecretPost), string(grant.PrivateKeyJWT), string(grant.TLSClientAuth), string(grant.SelfSignedTLSClientAuth)},
			Description:   "How the client authenticates: client_secret_basic (in the Authorization header), client_secret_post (in the body), private_key_jwt (RFC 7523), tls_client_auth or self_signed_tls_client_auth (RFC 8705). Default: by the credentials and the authorization server's metadata, else client_secret_basic.",
		},
		"client_secret": {
			Type:         framework.TypeString,
			Description:  "The client's secret. It is stored, sent to the token endpoint, and never returned.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"raw_basic_auth": {
			Type:        framework.TypeBool,
			Description: "Send client_id and client_secret of client_secret_basic as they are, for authorization servers that don't decode the form encoding of RFC 6749 section 2.3.1. Default: false.",
		},
		"private_key": {
			Type:         framework.TypeString,
			Description:  "The client's signing key for private_key_jwt, in PEM form (PKCS#8, PKCS#1 or SEC 1) or as a JWK; RSA of at least 2048 bits, P-256, P-384 or Ed25519. It is stored and never returned. Empty removes the signing key, the plugin's own too.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true, EditType: "file"},
		},
		"key_type": {
			Type:          framework.TypeString,
			AllowedValues: []any{"", string(grant.RSA2048), string(grant.ECP256), string(grant.Ed25519)},
			Description:   "Have the plugin make a signing key of this type, which it never lets out: rsa-2048, ec-p256 or ed25519. Register the public key, at keys/<server>, with the authorization server. Default for private_key_jwt without private_key: rsa-2048.",
		},
		"key_id": {
			Type:        framework.TypeString,
			Description: "The kid of assertions, under which the authorization server knows private_key. Empty sends none. Default, as with thumbprint: the key's thumbprint (RFC 7638), or the kid of a private_key that is a JWK.",
		},
		"signing_alg": {
			Type:        framework.TypeString,
			Description: "The algorithm of client assertions: RS256, PS256, ES256, ES384, EdDSA or Ed25519. Default: that of a JWK, else the first that fits the key and the authorization server's metadata.",
		},
		"certificate": {
			Type:         framework.TypeString,
			Description:  "PEM certificate of private_key, for authorization servers that know the key by it (x5t#S256).",
			DisplayAttrs: &framework.DisplayAttributes{EditType: "file"},
		},
		"publish_jwks": {
			Type:        framework.TypeBool,
			Description: "Publish the public keys at jwks/<server>, for everybody, as a jwks_uri for the authorization server.",
		},
		"client_certificate": {
			Type:         framework.TypeString,
			Description:  "PEM client certificate for tls_client_auth or self_signed_tls_client_auth, followed by its chain where the authorization server needs one.",
			DisplayAttrs: &framework.DisplayAttributes{EditType: "file"},
		},
		"client_certificate_key": {
			Type:         framework.TypeString,
			Description:  "PEM private key of client_certificate. It is stored and never returned.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true, EditType: "file"},
		},
		"assertion_audience": {
			Type:        framework.TypeString,
			Description: "The aud of client assertions: issuer, token_endpoint, or a literal value. Default: the issuer where it is known, else the token endpoint.",
		},
		"assertion_type": {
			Type:          framework.TypeString,
			AllowedValues: []any{"", grant.TypeJWT, grant.TypeClientAuthentication},
			Description:   "The typ of client assertions: JWT, the default, or client-authentication+jwt (RFC 10070), which some authorization servers demand and others refuse.",
		},
		"assertion_claims": {
			Type:        framework.TypeMap,
			Description: "Further claims of client assertions, as name=value pairs or a JSON object. Those of RFC 7519 are refused.",
		},
		"scopes":   scopesField("The scopes to ask for (RFC 6749 section 3.3), as a list or separated by commas or spaces. Default: those that the MCP server at server_url names, else none."),
		"resource": resourceField("The resource indicators to send (RFC 8707): absolute URIs without a fragment, or what the authorization server calls the MCP server, with a warning; as a list or separated by commas. Default: what the MCP server at server_url publishes, else server_url."),
		"omit_resource": {
			Type:        framework.TypeBool,
			Description: "Send no resource indicator, for authorization servers that refuse one.",
		},
		"audience":     audienceField("The audience parameter that some authorization servers want. Default: not sent."),
		"extra_params": extraParamsField("Further parameters of the token request, as name=value pairs. They are shown on read, so they are no place for secrets. Names that the plugin sends itself are refused."),
		"extra_headers": {
			Type:         framework.TypeMap,
			Description:  "Further headers of the token request, as name=value pairs or a JSON object, such as the key that a gateway in front of the authorization server wants. Their values are secrets: a read gives the names, and a name alone in a write keeps its value. Authorization, Host and Content-... are the plugin's to send.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"default_ttl": {
			Type:        framework.TypeDurationSecond,
			Default:     int64(defaultDefaultTTL / time.Second),
			Description: "Lifetime of a token if neither the authorization server's answer nor the token, if it is a JWT, says. Default: 5m.",
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
			Description:  "PEM certificates of the authorities to trust for the token endpoint and in discovery, in place of the system's.",
			DisplayAttrs: &framework.DisplayAttributes{EditType: "file"},
		},
		"request_timeout": {
			Type:        framework.TypeDurationSecond,
			Default:     int64(defaultRequestTimeout / time.Second),
			Description: "How long one request to the authorization server may take, 1s to 25s. Default: 10s.",
		},
		"allow_insecure_http": {
			Type:        framework.TypeBool,
			Description: "Allow http URLs to hosts other than loopback. The client secret then crosses the network in the clear.",
		},
		"allow_private_addresses": {
			Type:        framework.TypeBool,
			Description: "Let discovered URLs lead to loopback and private addresses. Without it they must be public, unless server_url is loopback or private itself.",
		},
		"rediscover": {
			Type:        framework.TypeBool,
			Description: "Look for the authorization server again. Not stored itself. Default: false.",
		},
		"verify": verifyField(),
	})
}

// discoveredFields are in a config's read alone.
func discoveredFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"discovered_issuer":    {Type: framework.TypeString, Description: "The authorization server that was discovered."},
		"discovered_token_url": {Type: framework.TypeString, Description: "The token endpoint that was discovered."},
		"discovered_scopes":    {Type: framework.TypeStringSlice, Description: "The scopes that the MCP server names, which are asked for where scopes is empty."},
		"discovered_resource":  {Type: framework.TypeString, Description: "The resource identifier that the MCP server publishes, which is sent where resource is empty."},
		"discovered_at":        {Type: framework.TypeTime, Description: "When that was (RFC 3339, UTC)."},
	}
}

// keepsDiscovered returns an error if the request holds a discovered field that is not as the config reads it.
// What a config's read gives may be written back, but these are not settings. when includes the time.
func (c *config) keepsDiscovered(d *framework.FieldData, when bool) error {
	read := c.response()
	for _, field := range slices.Sorted(maps.Keys(discoveredFields())) {
		given, ok := d.Raw[field]
		if !ok || field == "discovered_at" && !when || asText(given) == asText(read[field]) {
			continue
		}
		return badRequest("%s is what discovery found, and can't be written: leave it out, or write what you want to issuer, token_url, scopes or resource", field)
	}
	return nil
}

// asText is a value as the command line writes it: a list with commas, nothing as an empty text.
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

// update sets the fields that the request holds, and leaves the others.
func (c *config) update(d *framework.FieldData) {
	set(d, "server_url", &c.ServerURL)
	set(d, "issuer", &c.Issuer)
	set(d, "token_url", &c.TokenURL)
	set(d, "client_id", &c.ClientID)
	if method, ok := d.GetOk("token_endpoint_auth_method"); ok {
		c.AuthMethod = grant.AuthMethod(method.(string))
	}
	set(d, "client_secret", &c.ClientSecret)
	set(d, "raw_basic_auth", &c.RawBasicAuth)
	if id, ok := d.GetOk("key_id"); ok {
		if c.KeyID = new(id.(string)); *c.KeyID == keyIDThumbprint {
			c.KeyID = nil
		}
	}
	set(d, "signing_alg", &c.SigningAlg)
	set(d, "certificate", &c.Certificate)
	set(d, "publish_jwks", &c.PublishJWKS)
	set(d, "client_certificate", &c.ClientCertificate)
	set(d, "client_certificate_key", &c.ClientCertificateKey)
	set(d, "assertion_audience", &c.AssertionAudience)
	set(d, "assertion_type", &c.AssertionType)
	if claims, ok := d.GetOk("assertion_claims"); ok {
		c.AssertionClaims = encoded(claims.(map[string]any))
	}
	setScopes(d, &c.Scopes)
	set(d, "resource", &c.Resource)
	set(d, "omit_resource", &c.OmitResource)
	set(d, "audience", &c.Audience)
	set(d, "extra_params", &c.ExtraParams)
	if headers, ok := d.GetOk("extra_headers"); ok {
		c.setHeaders(headers.(map[string]any))
	}
	setSeconds(d, "default_ttl", &c.DefaultTTL, defaultDefaultTTL)
	setSeconds(d, "max_ttl", &c.MaxTTL, 0)
	setSeconds(d, "idle_timeout", &c.IdleTimeout, defaultIdleTimeout)
	set(d, "ca_cert", &c.CACert)
	setSeconds(d, "request_timeout", &c.RequestTimeout, defaultRequestTimeout)
	set(d, "allow_insecure_http", &c.AllowInsecureHTTP)
	set(d, "allow_private_addresses", &c.AllowPrivateAddresses)
}

// response is the config as it is read: in the form in which it can be written back,
// without the secret.
func (c *config) response() map[string]any {
	data := map[string]any{
		"issuer":                     c.Issuer,
		"key_type":                   string(c.KeyType),
		"signing_alg":                c.SigningAlg,
		"certificate":                c.Certificate,
		"publish_jwks":               c.PublishJWKS,
		"client_certificate":         c.ClientCertificate,
		"assertion_audience":         c.AssertionAudience,
		"assertion_type":             c.AssertionType,
		"assertion_claims":           decoded(c.AssertionClaims),
		"allow_private_addresses":    c.AllowPrivateAddresses,
		"server_url":                 c.ServerURL,
		"token_url":                  c.TokenURL,
		"client_id":                  c.ClientID,
		"token_endpoint_auth_method": string(c.AuthMethod),
		"raw_basic_auth":             c.RawBasicAuth,
		"scopes":                     list(c.Scopes),
		"resource":                   list(c.Resource),
		"omit_resource":              c.OmitResource,
		"audience":                   c.Audience,
		"extra_params":               pairs(c.ExtraParams),
		"extra_headers":              list(slices.Sorted(maps.Keys(c.ExtraHeaders))),
		"default_ttl":                seconds(c.DefaultTTL),
		"max_ttl":                    seconds(c.MaxTTL),
		"idle_timeout":               seconds(c.IdleTimeout),
		"ca_cert":                    c.CACert,
		"request_timeout":            seconds(c.RequestTimeout),
		"allow_insecure_http":        c.AllowInsecureHTTP,
	}
	if c.KeyID != nil { // an empty one is not the default
		data["key_id"] = *c.KeyID
	}
	if found := c.Published; found != nil {
		data["discovered_at"] = rfc3339(found.At)
	}
	if found := c.Discovered; found != nil {
		data["discovered_issuer"] = found.Issuer
		data["discovered_token_url"] = found.TokenURL
		data["discovered_at"] = rfc3339(found.At)
	}
	if c.Discovered != nil || c.Published != nil {
		scopes, resource := c.named()
		data["discovered_scopes"] = list(scopes)
		data["discovered_resource"] = resource
	}
	return data
}
