package mcpoauth

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// Bounds on the durations of a config.
const (
	maxTimeout = 25 * time.Second // of a token request; a write ends earlier, after writeBudget
	maxTTL     = 365 * 24 * time.Hour

	minAssertionTTL = 10 * time.Second
	maxAssertionTTL = time.Hour
)

// keyIDThumbprint is the value of key_id that restores the default.
const keyIDThumbprint = "thumbprint"

// The default lifetimes and timeouts of a config.
const (
	defaultDefaultTTL     = 5 * time.Minute
	defaultIdleTimeout    = 24 * time.Hour
	defaultRequestTimeout = 10 * time.Second

	defaultAssertionTTL       = time.Minute
	defaultAssertionTTLBearer = 5 * time.Minute // some servers' tokens expire with the assertion
)

// config makes the plugin a client of one authorization server for one MCP server. It is stored in this form.
// configTable defines the fields written by operators.
type config struct {
	// Incarnation is drawn when the config is created, and copied to its roles and tokens. A new config of the same
	// name ignores the roles and tokens of a deleted one.
	Incarnation string `json:"incarnation"`
	// Revision is drawn at every write.
	Revision string `json:"revision"`

	ServerURL  string      `json:"server_url,omitempty"`
	Issuer     string      `json:"issuer,omitempty"`
	TokenURL   string      `json:"token_url,omitempty"`
	Discovered *discovered `json:"discovered,omitempty"` // nil if token_url names the endpoint
	Published  *published  `json:"published,omitempty"`  // nil unless Issuer or TokenURL is set and the MCP server was asked

	Identity   identity         `json:"identity,omitempty"`
	Grant      grant.Type       `json:"grant,omitempty"`                      // empty: the default
	ClientID   string           `json:"client_id"`                            // see clientID
	AuthMethod grant.AuthMethod `json:"token_endpoint_auth_method,omitempty"` // empty: the default

	// The credentials: one of a secret, signing keys and a client certificate.
	ClientSecret string        `json:"client_secret,omitempty"`
	RawBasicAuth bool          `json:"raw_basic_auth,omitempty"`
	KeyType      grant.KeyType `json:"key_type,omitempty"` // of plugin-made keys; empty for the operator's key
	Keys         keyRing       `json:"keys,omitempty"`
	KeyID        *string       `json:"key_id,omitempty"` // nil: the key's own; empty: assertions omit the kid
	SigningAlg   string        `json:"signing_alg,omitempty"`
	Certificate  string        `json:"certificate,omitempty"`
	PublishJWKS  bool          `json:"publish_jwks,omitempty"`
	PublicID     string        `json:"public_id,omitempty"` // see publicID
	// PublicURL is the mount's URL as it was when identity was last written; empty for identityStatic. A later change of
	// the settings does not change an identity that authorization servers trust.
	PublicURL            string `json:"public_url,omitempty"`
	ClientCertificate    string `json:"client_certificate,omitempty"`
	ClientCertificateKey string `json:"client_certificate_key,omitempty"`

	// CredentialsID is drawn when a write changes the secret, key, certificate or client_id, or their route. Empty in
	// entries of schema 1.
	CredentialsID string `json:"credentials_id,omitempty"`
	// CredentialsWrittenAt is when CredentialsID was drawn; zero in entries of schema 1.
	CredentialsWrittenAt time.Time `json:"credentials_written_at,omitzero"`
	// CredentialsProof is the proof of the last write that obtained a token; empty if the credentials have been
	// written since.
	CredentialsProof string `json:"credentials_proof,omitempty"`

	AssertionAudience string                     `json:"assertion_audience,omitempty"` // empty: the default
	AssertionType     string                     `json:"assertion_type,omitempty"`     // empty: the default
	AssertionSubject  string                     `json:"assertion_subject,omitempty"`  // empty: the default
	AssertionTTL      time.Duration              `json:"assertion_ttl,omitempty"`      // 0: the default
	AssertionClaims   map[string]json.RawMessage `json:"assertion_claims,omitempty"`

	tokenParams
	ExtraHeaders map[string]string `json:"extra_headers,omitempty"` // secret; names in canonical form

	DefaultTTL  time.Duration `json:"default_ttl"`
	MaxTTL      time.Duration `json:"max_ttl,omitempty"`
	IdleTimeout time.Duration `json:"idle_timeout"`

	CACert                string        `json:"ca_cert,omitempty"`
	RequestTimeout        time.Duration `json:"request_timeout"`
	AllowInsecureHTTP     bool          `json:"allow_insecure_http,omitempty"`
	AllowPrivateAddresses bool          `json:"allow_private_addresses,omitempty"`
}

// grantType returns the grant type in effect.
func (c *config) grantType() grant.Type { return cmp.Or(c.Grant, grant.ClientCredentials) }

// assertionTTL returns the lifetime of assertions in effect.
func (c *config) assertionTTL() time.Duration {
	return cmp.Or(c.AssertionTTL, c.defaultAssertionTTL())
}

func (c *config) defaultAssertionTTL() time.Duration {
	if c.Grant == grant.JWTBearer {
		return defaultAssertionTTLBearer
	}
	return defaultAssertionTTL
}

// configTable defines the fields of config/<server>, named after RFC 6749 and RFC 8707. A new field is added to
// config and to this table, and used; nothing else lists the fields.
var configTable = slices.Concat(fieldTable[config]{
	{name: "server", schema: *serverField()},
	textField("server_url", func(c *config) *string { return &c.ServerURL }, maxURL,
		"URL of the MCP server, as its clients call it. Its metadata (RFC 9728) gives the defaults of scopes and resource and, without issuer and token_url, the authorization server."),
	textField("issuer", func(c *config) *string { return &c.Issuer }, maxURL,
		"The authorization server's issuer identifier. Discovery then starts here (RFC 8414), not at server_url.").is(isRoute),
	textField("token_url", func(c *config) *string { return &c.TokenURL }, maxURL,
		"URL of the authorization server's token endpoint (RFC 6749 section 3.2). It turns discovery off. http is for loopback only, unless allow_insecure_http is set.").is(isRoute),
	choiceField("identity", func(c *config) *identity { return &c.Identity }, staticName, []identity{staticName, identityIssuer, identityDocument},
		"What the authorization server trusts. static: a client that is registered with credentials; issuer: this mount, as the issuer of assertions about the client; document: a client whose id is the URL of its description. issuer and document need public_url in settings, but no secret and no registered key. Default: static.").is(isCredential),
	choiceField("grant", func(c *config) *grant.Type { return &c.Grant }, grant.ClientCredentials, []grant.Type{grant.ClientCredentials, grant.JWTBearer},
		"The grant of token requests: client_credentials (RFC 6749 section 4.4) or, with identity=issuer and exactly one resource, jwt_bearer (RFC 7523 section 2.1). Default: client_credentials.").is(isCredential),
	textField("client_id", func(c *config) *string { return &c.ClientID }, 8<<10, // some authorization servers give out a JWT
		"The client's identifier at the authorization server. Required with identity=static. With identity=issuer it may be empty, if the server knows the client by the assertion. Refused with identity=document: the id is then the document's URL.").is(isCredential).printable(),
	choiceField("token_endpoint_auth_method", func(c *config) *grant.AuthMethod { return &c.AuthMethod }, "", []grant.AuthMethod{grant.ClientSecretBasic, grant.ClientSecretPost, grant.PrivateKeyJWT, grant.TLSClientAuth, grant.SelfSignedTLSClientAuth},
		"How the client authenticates: client_secret_basic (in the Authorization header), client_secret_post (in the body), private_key_jwt (RFC 7523), tls_client_auth or self_signed_tls_client_auth (RFC 8705). Default: by the credentials and the authorization server's metadata, else client_secret_basic."),
	textField("client_secret", func(c *config) *string { return &c.ClientSecret }, 8<<10,
		"The client's secret. It is stored, sent to the token endpoint, and never returned.").is(isSecret | isCredential),
	flagField("raw_basic_auth", func(c *config) *bool { return &c.RawBasicAuth },
		"Send client_id and client_secret of client_secret_basic as they are, for authorization servers that don't decode the form encoding of RFC 6749 section 2.3.1. Default: false.").is(isCredential),
	field[config]{name: "private_key", limit: limit{bytes: 64 << 10}, schema: framework.FieldSchema{
		Type:        framework.TypeString,
		Description: "The client's signing key for private_key_jwt, in PEM form (PKCS#8, PKCS#1 or SEC 1) or as a JWK; RSA of at least 2048 bits, P-256, P-384 or Ed25519. It is stored and never returned. An empty value removes the signing key, also one that the plugin made.",
	}}.is(isSecret | isFile),
	choiceField("key_type", func(c *config) *grant.KeyType { return &c.KeyType }, "", keyTypes,
		"Have the plugin make a signing key of this type, which it never reveals: rsa-2048, ec-p256 or ed25519. Register the public key, which keys/<server> returns, at the authorization server. Default: rsa-2048 for private_key_jwt without private_key, and with an identity.").handled(),
	{
		name: "key_id", limit: limit{bytes: 1 << 10}, traits: isCredential | needsKey,
		schema: framework.FieldSchema{
			Type:        framework.TypeString,
			Description: "The kid of assertions, under which the authorization server knows private_key. Empty sends none. Default: thumbprint: the key's (RFC 7638), or the kid of a JWK.",
		},
		set: func(c *config, d *framework.FieldData) {
			if c.KeyID = new(d.Get("key_id").(string)); *c.KeyID == keyIDThumbprint {
				c.KeyID = nil
			}
		},
		value: func(c *config) any {
			if c.KeyID == nil {
				return nil // nil is the default, an empty key_id is not
			}
			return *c.KeyID
		},
	},
	textField("signing_alg", func(c *config) *string { return &c.SigningAlg }, 0,
		"The algorithm of client assertions: RS256, PS256, ES256, ES384, EdDSA or Ed25519. Default: that of a JWK, else the first that fits the key and the authorization server's metadata.").is(isCredential | needsKey),
	textField("certificate", func(c *config) *string { return &c.Certificate }, 64<<10,
		"PEM certificate of private_key, for authorization servers that find the key by its thumbprint (x5t#S256).").is(isCredential | needsKey | isFile),
	flagField("publish_jwks", func(c *config) *bool { return &c.PublishJWKS },
		"Publish the public keys at jwks/<id>, where the authorization server fetches them without a Vault token (jwks_uri).").is(needsKey),
	textField("client_certificate", func(c *config) *string { return &c.ClientCertificate }, 64<<10,
		"PEM client certificate for tls_client_auth or self_signed_tls_client_auth, followed by its chain if the authorization server needs one.").is(isCredential | isFile),
	textField("client_certificate_key", func(c *config) *string { return &c.ClientCertificateKey }, 64<<10,
		"PEM private key of client_certificate. It is stored and never returned.").is(isSecret | isCredential | isFile),
	textField("assertion_audience", func(c *config) *string { return &c.AssertionAudience }, maxURL,
		"The aud of client assertions: issuer, token_endpoint, or a literal value. Default: the issuer if it is known, else the token endpoint; with grant=jwt_bearer the token endpoint.").is(isRoute | needsKey).printable(),
	choiceField("assertion_type", func(c *config) *string { return &c.AssertionType }, "", []string{grant.TypeJWT, grant.TypeClientAuthentication},
		"The typ of client assertions: JWT, or client-authentication+jwt (RFC 10070), which some authorization servers require and others refuse. Default: JWT.").is(isCredential | needsKey),
	textField("assertion_subject", func(c *config) *string { return &c.AssertionSubject }, 1<<10,
		"The sub of assertions with identity=issuer. Default: the server's name.").is(isCredential | needsKey).printable(),
	field[config]{
		name: "assertion_ttl", traits: isCredential,
		schema: framework.FieldSchema{
			Type:        framework.TypeDurationSecond,
			Description: "Lifetime of an assertion: 10s to 1h. Some authorization servers' tokens expire with the assertion. Default: 60; 300 with grant=jwt_bearer.",
		},
		set: func(c *config, d *framework.FieldData) {
			setSeconds(d, "assertion_ttl", &c.AssertionTTL, 0)
			if c.AssertionTTL == c.defaultAssertionTTL() {
				c.AssertionTTL = 0 // a default written back remains the default
			}
		},
		value:  func(c *config) any { return seconds(c.assertionTTL()) },
		readAs: &framework.FieldSchema{Type: framework.TypeInt64, Description: "Lifetime of an assertion, in seconds."},
	}.between(minAssertionTTL, maxAssertionTTL, ""),
	{
		name: "assertion_claims", limit: limit{bytes: 4 << 10, items: 100, names: 256}, traits: isCredential | needsKey,
		schema: framework.FieldSchema{
			Type:        framework.TypeMap,
			Description: "More claims of client assertions, as name=value pairs or a JSON object. The registered claims of RFC 7519 are refused.",
		},
		set: func(c *config, d *framework.FieldData) {
			c.AssertionClaims = encoded(d.Get("assertion_claims").(map[string]any))
		},
		value: func(c *config) any { return decoded(c.AssertionClaims) },
		check: func(c *config) error { return validClaims(c.AssertionClaims) },
	},
}, tokenParamFields(func(c *config) *tokenParams { return &c.tokenParams }, map[string]string{
	"scopes":   "those that the MCP server names, else none",
	"resource": "what the MCP server publishes, else server_url",
	"audience": "none",
}), fieldTable[config]{
	{
		name: "extra_headers", limit: limit{bytes: 8 << 10, items: 20, names: 256},
		schema: framework.FieldSchema{
			Type:         framework.TypeMap,
			Description:  "More headers of the token request, as name=value pairs or a JSON object, such as x-api-key for a gateway in front of the authorization server. Values are secrets: a read returns only names, and a name written without a value keeps the stored value. Refused: Authorization, Host, Content-..., Proxy-... and headers of the connection.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		set: func(c *config, d *framework.FieldData) {
			c.ExtraHeaders = setHeaders(c.ExtraHeaders, d.Get("extra_headers").(map[string]any))
		},
		value:  func(c *config) any { return list(slices.Sorted(maps.Keys(c.ExtraHeaders))) },
		readAs: &framework.FieldSchema{Type: framework.TypeStringSlice, Description: "The names of the extra headers of the token request."},
		check:  func(c *config) error { return validHeaders(c.ExtraHeaders) },
	},
	durationField("default_ttl", func(c *config) *time.Duration { return &c.DefaultTTL }, defaultDefaultTTL,
		"Lifetime of a token if neither the response nor the token (a JWT) states one.").between(time.Second, maxTTL, ""),
	durationField("max_ttl", func(c *config) *time.Duration { return &c.MaxTTL }, 0,
		"Longest lifetime of a token, whatever the authorization server states. A change applies to the next token. 0 is no limit.").between(time.Second, maxTTL, "for no cap"),
	durationField("idle_timeout", func(c *config) *time.Duration { return &c.IdleTimeout }, defaultIdleTimeout,
		"Stop refreshing a token that no broker has read for this time, or for its lifetime if that is longer. 0 is never.").between(time.Second, maxTTL, "to refresh for ever"),
	textField("ca_cert", func(c *config) *string { return &c.CACert }, 256<<10, // an operating system's whole bundle
		"PEM certificates of the authorities to trust for the token endpoint and in discovery. Default: the system's.").is(isRoute | isFile).checked(func(c *config) error {
		if c.CACert == "" {
			return nil
		}
		if _, err := grant.ParseCACert(c.CACert); err != nil {
			return badRequest("%v", err)
		}
		return nil
	}),
	durationField("request_timeout", func(c *config) *time.Duration { return &c.RequestTimeout }, defaultRequestTimeout,
		"Limit of one request to the authorization server or the MCP server, 1s to 25s.").between(time.Second, maxTimeout, ""),
	flagField("allow_insecure_http", func(c *config) *bool { return &c.AllowInsecureHTTP },
		"Permit http URLs to hosts other than loopback. Secrets and tokens then cross the network in the clear.").is(isRoute),
	flagField("allow_private_addresses", func(c *config) *bool { return &c.AllowPrivateAddresses },
		"Permit discovered URLs at loopback and private addresses. Without it, a discovered URL may be at such an address only if the server_url or issuer that discovery starts from is at an address of the same kind.").is(isRoute),
	{name: "rediscover", schema: framework.FieldSchema{
		Type:        framework.TypeBool,
		Description: "Discover again. rediscover itself is not stored. Default: false.",
	}},
	{name: "verify", schema: *verifyField()},
})

func validClaims(claims map[string]json.RawMessage) error {
	for _, claim := range slices.Sorted(maps.Keys(claims)) {
		if claim == "" || !isPrintable(claim) {
			return badRequest("assertion_claims: the name %s must be printable characters", quote(claim))
		}
		if grant.IsRegisteredClaim(claim) {
			return badRequest("assertion_claims must not hold %s: the plugin sets it", claim)
		}
	}
	return nil
}

// secretFields are never returned by a read or quoted in an error.
var secretFields = configTable.names(isSecret)

// newConfig returns a config with its defaults and a new incarnation.
func newConfig() *config {
	return &config{
		Incarnation:    newID(),
		DefaultTTL:     defaultDefaultTTL,
		IdleTimeout:    defaultIdleTimeout,
		RequestTimeout: defaultRequestTimeout,
	}
}

// newID draws an incarnation, a revision or a credentials id: 128 bits or more.
func newID() string { return rand.Text() }

// Format omits secrets, whatever the verb.
func (c config) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "config of client %q", c.ClientID) }

// clone returns a copy. It shares only Discovered and Published with c, which are never changed in place.
func (c *config) clone() *config {
	next := *c
	next.tokenParams = c.tokenParams.clone()
	next.ExtraHeaders = maps.Clone(c.ExtraHeaders)
	next.AssertionClaims = maps.Clone(c.AssertionClaims)
	next.Keys = slices.Clone(c.Keys)
	return &next
}

// same reports whether c and o are equal except for their revisions.
func (c *config) same(o *config) bool {
	a, b := *c, *o
	a.Revision, b.Revision = "", ""
	return fingerprint(a) == fingerprint(b)
}
