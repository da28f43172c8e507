package acceptance

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// An upstream is the counterpart of a config: an MCP server, and a client at the authorization server that gets its
// tokens.
type upstream struct {
	bed    *bed.Bed
	root   *api.Client
	name   string // of the config
	client bed.Client
	mcp    *bed.MCPServer
	x5t    string // thumbprint of the certificate of the client's key, if any
}

var notAName = regexp.MustCompile(`[^a-z0-9]+`)

// newUpstream starts an MCP server whose tokens live for ttl, and registers a client. suffix distinguishes the
// upstreams of a test.
func newUpstream(t *testing.T, b *bed.Bed, suffix string, ttl time.Duration) *upstream {
	t.Helper()
	root := bed.Must(b.Vault.Root())(t)
	u := &upstream{
		bed:  b,
		root: root,
		name: notAName.ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "-") + suffix,
	}
	u.client = bed.Client{ID: u.name, Secret: newSecret(), Scope: "tools:list tools:call"}
	u.setClient(t)
	u.serve(t, ttl, bed.MCPOptions{})
	return u
}

// newConfigured is newUpstream followed by a write of the config.
func newConfigured(t *testing.T, b *bed.Bed, suffix string, ttl time.Duration) *upstream {
	t.Helper()
	u := newUpstream(t, b, suffix, ttl)
	u.configure(t, nil)
	return u
}

// serve starts the upstream's MCP server, and replaces an earlier one.
func (u *upstream) serve(t *testing.T, ttl time.Duration, opts bed.MCPOptions) {
	t.Helper()
	u.mcp = bed.Must(u.bed.NewMCPServer(t.Context(), bed.Resource{Scope: u.client.Scope, TTL: ttl}, opts))(t)
}

// newSecret returns a client secret with characters that are reserved in URLs, forms and headers.
func newSecret() string { return rand.Text() + "+/%:&=?#" }

// setClient registers u.client at the authorization server.
func (u *upstream) setClient(t *testing.T) {
	t.Helper()
	bed.OK(t, u.bed.AS.SetClient(t.Context(), u.client))
}

// settings returns a complete config, with changes.
func (u *upstream) settings(changes map[string]any) map[string]any {
	settings := map[string]any{
		"token_url":     u.bed.AS.TokenURL(),
		"server_url":    u.mcp.URL,
		"client_id":     u.client.ID,
		"client_secret": u.client.Secret,
		"scopes":        "tools:list,tools:call",
	}
	maps.Copy(settings, changes)
	return settings
}

// discovered returns the shortest config: the MCP server's URL and the client's id, with the credentials in fields.
func (u *upstream) discovered(fields map[string]any) map[string]any {
	settings := map[string]any{"server_url": u.mcp.URL, "client_id": u.client.ID}
	maps.Copy(settings, fields)
	return settings
}

// configure writes the config, with changes.
func (u *upstream) configure(t *testing.T, changes map[string]any) {
	t.Helper()
	u.write(t, "config/"+u.name, u.settings(changes))
}

// write writes a path below the mount, and returns the answer, if any.
func (u *upstream) write(t *testing.T, path string, data map[string]any) *api.Secret {
	t.Helper()
	answer, err := u.root.Logical().WriteWithContext(t.Context(), bed.Mount+"/"+path, data)
	if err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
	return answer
}

// refuse fails the test unless a write below the mount has the status and an error with the text.
func (u *upstream) refuse(t *testing.T, path string, data map[string]any, want int, text string) {
	t.Helper()
	answer, err := u.root.Logical().WriteWithContext(t.Context(), bed.Mount+"/"+path, data)
	if got := status(answer, err); got != want || err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("write %s: status %d, want %d with %q: %v", path, got, want, text, err)
	}
}

// read returns the data at a path below the mount.
func (u *upstream) read(t *testing.T, path string) map[string]any {
	t.Helper()
	secret, err := u.root.Logical().ReadWithContext(t.Context(), bed.Mount+"/"+path)
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	if secret == nil {
		t.Fatalf("read %s: not found", path)
	}
	return secret.Data
}

// token reads a token as the operator and checks it with the MCP server.
func (u *upstream) token(t *testing.T, path string) *bed.Token {
	t.Helper()
	token := bed.Must(u.bed.ReadToken(t.Context(), u.root, path))(t)
	if err := u.mcp.Check(token.AccessToken); err != nil {
		t.Fatalf("token at %s: %v", path, err)
	}
	return token
}

// requests returns the token requests of the client.
func (u *upstream) requests(t *testing.T) []bed.TokenRequest {
	t.Helper()
	requests := bed.Must(u.bed.AS.Requests(t.Context(), u.client.ID))(t)
	return requests
}

// wantRequests fails the test unless the client has made n token requests, and returns them.
func (u *upstream) wantRequests(t *testing.T, n int) []bed.TokenRequest {
	t.Helper()
	requests := u.requests(t)
	if len(requests) != n {
		t.Fatalf("%d token requests, want %d: %+v", len(requests), n, requests)
	}
	return requests
}

// wantUnauthorized fails the test unless the MCP server has answered n tokens with a 401.
func (u *upstream) wantUnauthorized(t *testing.T, n int) {
	t.Helper()
	if got := u.mcp.Counts().Unauthorized; got != n {
		t.Fatalf("%d requests with a token were answered with a 401, want %d", got, n)
	}
}

// wantToken fails the test unless the token at path is the held one.
func (u *upstream) wantToken(t *testing.T, path string, held *bed.Token) {
	t.Helper()
	if got := u.token(t, path); got.TokenID != held.TokenID {
		t.Errorf("the token at %s is %s, want %s", path, got.TokenID, held.TokenID)
	}
}

// awaitAnother waits until the token at path differs from the held one.
func (u *upstream) awaitAnother(t *testing.T, path string, held *bed.Token, limit time.Duration) {
	t.Helper()
	bed.Until(t, limit, "another token at "+path, func() bool { return u.token(t, path).TokenID != held.TokenID })
}

// broker creates an AppRole with a policy for the upstream's token.
func (u *upstream) broker(t *testing.T) *bed.Identity {
	t.Helper()
	rules := `path "` + bed.Mount + `/token/` + u.name + `" { capabilities = ["read"] }`
	return newIdentity(t, u.bed, u.name, rules)
}

// agent starts a Vault Agent that renders the upstream's token, and waits for its file.
func (u *upstream) agent(t *testing.T, id *bed.Identity) *bed.Agent {
	t.Helper()
	agent := bed.Must(u.bed.NewAgent(id, "token/"+u.name))(t)
	bed.OK(t, agent.WaitRendered(t.Context()))
	return agent
}

// pluginPID returns the process id of the node's plugin.
func pluginPID(t *testing.T, node *bed.Node) int {
	t.Helper()
	pid := bed.Must(node.PluginPID())(t)
	if pid == 0 {
		t.Fatal("the plugin does not run")
	}
	return pid
}

// newIdentity creates an AppRole with its own policy.
func newIdentity(t *testing.T, b *bed.Bed, name, rules string) *bed.Identity {
	t.Helper()
	bed.OK(t, b.Vault.PutPolicy(t.Context(), name, rules))
	id := bed.Must(b.Vault.NewIdentity(t.Context(), name, name))(t)
	return id
}

// refused returns the number of requests whose answer has no token.
func refused(requests []bed.TokenRequest) int {
	n := 0
	for _, r := range requests {
		if r.Status != http.StatusOK {
			n++
		}
	}
	return n
}

// errNotRefreshed makes a test wait on.
var errNotRefreshed = errors.New("the token has not been refreshed")

// text returns a value of an answer as JSON.
func text(value any) string {
	b, _ := json.Marshal(value) // the value was decoded from JSON
	return string(b)
}

// number returns a field that must be a whole number.
func number(t *testing.T, data map[string]any, field string) int {
	t.Helper()
	value, ok := data[field].(json.Number)
	n, err := value.Int64()
	if !ok || err != nil {
		t.Fatalf("%s is %v, want a number", field, data[field])
	}
	return int(n)
}

// timestamp returns a field that must be a time.
func timestamp(t *testing.T, data map[string]any, field string) time.Time {
	t.Helper()
	value, _ := data[field].(string)
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		t.Fatalf("%s is %v, want a time: %v", field, data[field], err)
	}
	return at
}

// claims returns the claims of an access token without verifying it.
func claims(token string) (c jwt.Claims) {
	if parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256}); err == nil {
		_ = parsed.UnsafeClaimsWithoutVerification(&c) // fails if the token is no JWT
	}
	return c
}
