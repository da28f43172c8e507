package mcpoauth

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// The lifetimes and timeouts of a config that does not say.
const (
	defaultDefaultTTL     = 5 * time.Minute
	defaultIdleTimeout    = 24 * time.Hour
	defaultRequestTimeout = 10 * time.Second
)

// config is all that the plugin needs to be a client of one authorization server for
// one MCP server, as it is stored. Its fields are those of the API.
type config struct {
	// Incarnation is drawn when the config is created. Roles and tokens carry it, so
	// that those of a deleted config are worth nothing to the next one of its name.
	Incarnation string `json:"incarnation"`
	// Revision is drawn at every write.
	Revision string `json:"revision"`

	ServerURL  string      `json:"server_url,omitempty"`
	Issuer     string      `json:"issuer,omitempty"`
	TokenURL   string      `json:"token_url,omitempty"`
	Discovered *discovered `json:"discovered,omitempty"` // nil if nothing had to be
	Published  *published  `json:"published,omitempty"`  // nil if the MCP server was not looked at beside Issuer or TokenURL

	ClientID   string           `json:"client_id"`
	AuthMethod grant.AuthMethod `json:"token_endpoint_auth_method,omitempty"` // empty: the default

	// The credentials: one of a secret, signing keys and a client certificate.
	ClientSecret         string        `json:"client_secret,omitempty"`
	RawBasicAuth         bool          `json:"raw_basic_auth,omitempty"`
	KeyType              grant.KeyType `json:"key_type,omitempty"` // of keys that the plugin made; empty for the operator's
	Keys                 keyRing       `json:"keys,omitempty"`
	KeyID                *string       `json:"key_id,omitempty"` // nil: the key's own; empty: none is sent
	SigningAlg           string        `json:"signing_alg,omitempty"`
	Certificate          string        `json:"certificate,omitempty"`
	PublishJWKS          bool          `json:"publish_jwks,omitempty"`
	ClientCertificate    string        `json:"client_certificate,omitempty"`
	ClientCertificateKey string        `json:"client_certificate_key,omitempty"`

	// CredentialsID is drawn when credentials are written: a new secret, key, certificate or client_id, or
	// the same for another route. Empty in entries of schema 1, which did not record it.
	CredentialsID string `json:"credentials_id,omitempty"`
	// CredentialsWrittenAt is when that was; zero in entries of schema 1.
	CredentialsWrittenAt time.Time `json:"credentials_written_at,omitzero"`
	// CredentialsProof is the proof of the last write that obtained a token; empty if there was none since
	// the credentials were written.
	CredentialsProof string `json:"credentials_proof,omitempty"`

	AssertionAudience string                     `json:"assertion_audience,omitempty"` // empty: the default
	AssertionType     string                     `json:"assertion_type,omitempty"`     // empty: the default
	AssertionClaims   map[string]json.RawMessage `json:"assertion_claims,omitempty"`

	Scopes       []string          `json:"scopes,omitempty"`
	Resource     []string          `json:"resource,omitempty"`
	OmitResource bool              `json:"omit_resource,omitempty"`
	Audience     string            `json:"audience,omitempty"`
	ExtraParams  map[string]string `json:"extra_params,omitempty"`
	ExtraHeaders map[string]string `json:"extra_headers,omitempty"` // secret; names in canonical form

	DefaultTTL  time.Duration `json:"default_ttl"`
	MaxTTL      time.Duration `json:"max_ttl,omitempty"`
	IdleTimeout time.Duration `json:"idle_timeout"`

	CACert                string        `json:"ca_cert,omitempty"`
	RequestTimeout        time.Duration `json:"request_timeout"`
	AllowInsecureHTTP     bool          `json:"allow_insecure_http,omitempty"`
	AllowPrivateAddresses bool          `json:"allow_private_addresses,omitempty"`
}

// newConfig is a config with its defaults and nothing else.
func newConfig() *config {
	return &config{
		Incarnation:    newID(),
		DefaultTTL:     defaultDefaultTTL,
		IdleTimeout:    defaultIdleTimeout,
		RequestTimeout: defaultRequestTimeout,
	}
}

// newID draws an incarnation or a revision: 128 bits or more.
func newID() string { return rand.Text() }

// Format prints no secret, whatever the verb.
func (c config) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "config of client %q", c.ClientID) }

// clone is a copy that shares nothing with c but what was discovered, which is never
// changed in place.
func (c *config) clone() *config {
	next := *c
	next.Scopes = slices.Clone(c.Scopes)
	next.Resource = slices.Clone(c.Resource)
	next.ExtraParams = maps.Clone(c.ExtraParams)
	next.ExtraHeaders = maps.Clone(c.ExtraHeaders)
	next.AssertionClaims = maps.Clone(c.AssertionClaims)
	next.Keys = slices.Clone(c.Keys)
	return &next
}

// same reports whether o differs from c in its revision at most.
func (c *config) same(o *config) bool {
	a, b := *c, *o
	a.Revision, b.Revision = "", ""
	return fingerprint(a) == fingerprint(b)
}

// role is a named override of a config, as it is stored. An empty field is the
// config's.
type role struct {
	// Incarnation is the config's.
	Incarnation string `json:"incarnation"`
	// Revision is drawn at every write.
	Revision string `json:"revision"`

	Scopes       []string          `json:"scopes,omitempty"`
	Resource     []string          `json:"resource,omitempty"`
	OmitResource bool              `json:"omit_resource,omitempty"`
	Audience     string            `json:"audience,omitempty"`
	ExtraParams  map[string]string `json:"extra_params,omitempty"`
}

// clone is a copy that shares nothing with r.
func (r *role) clone() *role {
	next := *r
	next.Scopes = slices.Clone(r.Scopes)
	next.Resource = slices.Clone(r.Resource)
	next.ExtraParams = maps.Clone(r.ExtraParams)
	return &next
}

func (r *role) same(o *role) bool {
	a, b := *r, *o
	a.Revision, b.Revision = "", ""
	return fingerprint(a) == fingerprint(b)
}
