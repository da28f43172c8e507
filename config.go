package mcpoauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/tokens"
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

	ServerURL string `json:"server_url,omitempty"`
	TokenURL  string `json:"token_url,omitempty"`

	ClientID     string           `json:"client_id"`
	AuthMethod   grant.AuthMethod `json:"token_endpoint_auth_method,omitempty"` // empty: the default
	ClientSecret string           `json:"client_secret,omitempty"`

	Scopes       []string          `json:"scopes,omitempty"`
	Resource     []string          `json:"resource,omitempty"`
	OmitResource bool              `json:"omit_resource,omitempty"`
	Audience     string            `json:"audience,omitempty"`
	ExtraParams  map[string]string `json:"extra_params,omitempty"`

	DefaultTTL  time.Duration `json:"default_ttl"`
	MaxTTL      time.Duration `json:"max_ttl,omitempty"`
	IdleTimeout time.Duration `json:"idle_timeout"`

	CACert            string        `json:"ca_cert,omitempty"`
	RequestTimeout    time.Duration `json:"request_timeout"`
	AllowInsecureHTTP bool          `json:"allow_insecure_http,omitempty"`
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

// clone is a copy that shares nothing with c.
func (c *config) clone() *config {
	next := *c
	next.Scopes = slices.Clone(c.Scopes)
	next.Resource = slices.Clone(c.Resource)
	next.ExtraParams = maps.Clone(c.ExtraParams)
	return &next
}

// same tells whether o differs from c in its revision at most.
func (c *config) same(o *config) bool {
	a, b := *c, *o
	a.Revision, b.Revision = "", ""
	return fingerprint(a) == fingerprint(b)
}

// sameRoute tells whether the credentials would travel to the same place under the
// same protection: where this changes, they must be given anew, or whoever may
// update a config could have its secret sent to a host of their own.
func (c *config) sameRoute(o *config) bool {
	return c.TokenURL == o.TokenURL && c.CACert == o.CACert && c.AllowInsecureHTTP == o.AllowInsecureHTTP
}

// sameCredentials tells whether the client would identify itself in the same way.
func (c *config) sameCredentials(o *config) bool {
	return c.ClientID == o.ClientID && c.ClientSecret == o.ClientSecret && c.authMethod() == o.authMethod()
}

// authMethod is the client authentication method in effect.
func (c *config) authMethod() grant.AuthMethod {
	if c.AuthMethod == "" {
		return grant.ClientSecretBasic // the default of RFC 7591 section 2
	}
	return c.AuthMethod
}

// role is a named override of a config, as it is stored. An empty field is the
// config's.
type role struct {
	// Incarnation is the config's.
	Incarnation string `json:"incarnation"`
	// Revision is drawn at every write.
	Revision string `json:"revision"`

	Scopes   []string `json:"scopes,omitempty"`
	Resource []string `json:"resource,omitempty"`
	Audience string   `json:"audience,omitempty"`
}

func (r *role) same(o *role) bool {
	a, b := *r, *o
	a.Revision, b.Revision = "", ""
	return fingerprint(a) == fingerprint(b)
}

// request is the token request of a config, or of one of its roles.
func (c *config) request(r *role) *grant.Request {
	q := &grant.Request{
		TokenURL:     c.TokenURL,
		ClientID:     c.ClientID,
		AuthMethod:   c.authMethod(),
		ClientSecret: c.ClientSecret,
		Scopes:       c.Scopes,
		Resources:    c.resources(),
		Audience:     c.Audience,
		ExtraParams:  c.ExtraParams,
		CACert:       c.CACert,
		Timeout:      c.RequestTimeout,
	}
	if r != nil {
		if len(r.Scopes) > 0 {
			q.Scopes = r.Scopes
		}
		if len(r.Resource) > 0 {
			q.Resources = r.Resource
		}
		if r.Audience != "" {
			q.Audience = r.Audience
		}
	}
	return q
}

// resources are the resource indicators of the config itself (RFC 8707): what the
// operator wrote, or the MCP server's URL.
func (c *config) resources() []string {
	switch {
	case c.OmitResource:
		return nil
	case len(c.Resource) > 0:
		return c.Resource
	case c.ServerURL != "":
		return []string{canonicalResource(c.ServerURL)}
	default:
		return nil
	}
}

// terms are what the engine needs of a config or one of its roles.
func (c *config) terms(r *role) *tokens.Terms {
	q := c.request(r)
	t := &tokens.Terms{
		Shape:       c.shape(q),
		DefaultTTL:  c.DefaultTTL,
		MaxTTL:      c.MaxTTL,
		IdleTimeout: c.IdleTimeout,
		Fetch:       q.Do,
	}
	if u, err := url.Parse(c.TokenURL); err == nil {
		t.Host = u.Host
	}
	return t
}

// shape is the fingerprint of what makes a token the token it is. Credentials,
// transport and lifetimes are not in it: a token outlives their change. An empty list
// counts as none: that is what storage makes of it.
func (c *config) shape(q *grant.Request) string {
	return fingerprint(struct {
		Incarnation string
		TokenURL    string
		ClientID    string
		Scopes      []string `json:",omitempty"`
		Resources   []string `json:",omitempty"`
		Audience    string
		ExtraParams map[string]string `json:",omitempty"`
	}{c.Incarnation, q.TokenURL, q.ClientID, q.Scopes, q.Resources, q.Audience, q.ExtraParams})
}

// fingerprint hashes a value by its JSON form, in which fields and maps have an
// order.
func fingerprint(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only types without a JSON form fail
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
