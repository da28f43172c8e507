//go:build servers

package acceptance

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/servers"
)

// A serverClaim is a claim of the documentation about authorization servers. Checks run in parallel.
type serverClaim struct {
	name  string
	check func(t *testing.T, s *served)
}

// serverClaims are checked with every authorization server in this package.
var serverClaims = []serverClaim{
	{"keys and restarts", checkLife}, // starts first, because it takes six minutes
	{"recipe", checkRecipe},
	{"secrets", checkSecrets},
	{"algorithms", checkAlgorithms},
	{"certificate", checkCertificate},
	{"audience", checkAudience},
	{"refusals", checkRefusals},
	{"secret rotation", checkSecretRotation},
}

// The claims of docs/providers.md hold for each authorization server that can run here.
func TestAuthorizationServers(t *testing.T) {
	bed.OK(t, servers.Prerequisites(t.Context()))
	b := shared(t)
	for _, kind := range servers.Kinds {
		t.Run(kind.Name, func(t *testing.T) {
			begun := time.Now()
			server := bed.Must(kind.Start(t.Context(), b))(t)
			t.Logf("started in %s", time.Since(begun).Round(time.Second))
			t.Parallel() // the servers start one after another
			s := &served{Kind: kind, Server: server, bed: b, turns: semaphore.NewWeighted(allTurns)}
			for _, claim := range append(slices.Clone(serverClaims), claimsOf[kind.Name]...) {
				t.Run(claim.name, func(t *testing.T) { claim.check(t, s) })
			}
		})
	}
}

// A served is a running authorization server.
type served struct {
	servers.Kind
	servers.Server
	bed *bed.Bed

	// turns limits the load: each check holds one turn, and a restart holds all. A server is slow after its start.
	turns *semaphore.Weighted
}

const allTurns = 2

// A clientOf is a client at an authorization server, and the MCP server for its tokens.
type clientOf struct {
	*upstream
	server *served
	as     servers.Client // as registered at the server
}

// whileUp takes a turn until the test ends.
func (s *served) whileUp(t *testing.T) {
	t.Helper()
	bed.OK(t, s.turns.Acquire(t.Context(), 1))
	t.Cleanup(func() { s.turns.Release(1) })
}

func (s *served) newClient(t *testing.T, method string, change func(*servers.Client)) *clientOf {
	t.Helper()
	root := bed.Must(s.bed.Vault.Root())(t)
	c := &clientOf{server: s, upstream: &upstream{
		bed:  s.bed,
		root: root,
		name: notAName.ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "TestAuthorizationServers/")), "-"),
	}}
	c.mcp = bed.Must(s.bed.NewMCPServerOf(t.Context(), s.Issuer(method), servers.Scopes, bed.MCPOptions{}))(t)
	c.as = servers.Client{ID: c.name, Method: method, Audience: c.mcp.URL, Scopes: servers.Scopes}
	switch method {
	case "private_key_jwt", "federated-jwt", "tls_client_auth":
	default:
		c.as.Secret = rand.Text()
	}
	if change != nil {
		change(&c.as)
	}
	if method != "private_key_jwt" || c.as.Attributes != nil {
		c.register(t) // otherwise registerKeys: the URL of the keys is known only after the config's write
	}
	return c
}

// registerKeys registers a client of private_key_jwt, with the URL of its keys if they are published.
func (c *clientOf) registerKeys(t *testing.T) {
	t.Helper()
	if c.as.Method != "private_key_jwt" {
		return
	}
	if c.as.JWKSURI = c.jwksURI(t); c.as.JWKSURI != "" {
		c.register(t)
	}
}

func (c *clientOf) register(t *testing.T) {
	t.Helper()
	c.bed.Secrecy.AddClientSecret(c.as.ID, c.as.Secret)
	bed.OK(t, c.server.SetClient(t.Context(), c.as))
}

// fields returns the MCP server's URL and the client's fields for a config, with changes.
func (c *clientOf) fields(changes map[string]any) map[string]any {
	fields := map[string]any{"server_url": c.mcp.URL, "client_id": c.as.ID}
	if !c.server.hasDefault(c.as.Method) {
		fields["token_endpoint_auth_method"] = c.as.Method
	}
	if c.as.Secret != "" {
		fields["client_secret"] = c.as.Secret
	}
	if c.server.Fields != nil {
		maps.Copy(fields, c.server.Fields(c.as))
	}
	maps.Copy(fields, changes)
	return fields
}

// hasDefault reports whether a config without a method uses this one.
func (s *served) hasDefault(method string) bool {
	return method != "client_secret_post" || !slices.Contains(s.Methods, "client_secret_basic")
}

// configure writes the config and reads a token for the MCP server.
func (c *clientOf) configure(t *testing.T, changes map[string]any) *bed.Token {
	t.Helper()
	c.write(t, "config/"+c.name, c.fields(changes))
	c.registerKeys(t)
	c.awaitToken(t)
	return c.token(t, "token/"+c.name)
}

// awaitToken reads until the answer is no longer a 504 because a fetch goes on.
func (c *upstream) awaitToken(t *testing.T) {
	t.Helper()
	bed.Until(t, time.Minute, "the end of the fetch", func() bool {
		return readStatus(t.Context(), c.root, "token/"+c.name) != http.StatusGatewayTimeout
	})
}

// secretMethods returns the server's methods that send a secret.
func (s *served) secretMethods() []string {
	return slices.DeleteFunc(slices.Clone(s.Methods), func(method string) bool { return !strings.HasPrefix(method, "client_secret") })
}

// Ids and secrets may have all permitted characters (RFC 6749 appendix A), with each secret method.
func checkSecrets(t *testing.T, s *served) {
	t.Parallel()
	secrets := s.Secrets
	if secrets == nil {
		secrets = []string{servers.Printable}
	}
	for _, method := range s.secretMethods() {
		for i, secret := range secrets {
			t.Run(fmt.Sprint(method, i), func(t *testing.T) {
				t.Parallel()
				s.whileUp(t)
				s.newClient(t, method, func(c *servers.Client) {
					c.ID += ` a/b%+&=:?#"`
					c.Secret += secret
				}).configure(t, nil)
			})
		}
	}
}

// keyTypes are the plugin's key types, by algorithm.
var keyTypes = map[string]string{
	"RS256": "rsa-2048", "PS256": "rsa-2048", "ES256": "ec-p256", "EdDSA": "ed25519", "Ed25519": "ed25519",
}

// The plugin makes the keys and the server fetches them, with each algorithm.
func checkAlgorithms(t *testing.T, s *served) {
	t.Parallel()
	for _, algorithm := range s.Algorithms {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			s.whileUp(t)
			s.newClient(t, "private_key_jwt", func(c *servers.Client) { c.Algorithm = algorithm }).configure(t, map[string]any{
				"key_type": keyTypes[algorithm], "publish_jwks": true, "signing_alg": algorithm,
			})
		})
	}
}

// withCertificate registers a client with a certificate, and returns the config's fields.
func (s *served) withCertificate(t *testing.T, change func(*servers.Client)) (*clientOf, map[string]any) {
	t.Helper()
	issued := bed.Must(s.CA().Client("broker"))(t)
	s.bed.Secrecy.AddPrivateKey("key of a client certificate", issued.KeyPEM)
	c := s.newClient(t, "tls_client_auth", func(c *servers.Client) {
		c.Subject = issued.Subject
		if change != nil {
			change(c)
		}
	})
	return c, map[string]any{
		"client_certificate": issued.PEM + s.CA().PEM, "client_certificate_key": issued.KeyPEM, "ca_cert": s.CA().PEM,
	}
}

// A client certificate gets a token. A bound token leads to a warning.
func checkCertificate(t *testing.T, s *served) {
	t.Parallel()
	if !slices.Contains(s.Methods, "tls_client_auth") {
		return
	}
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		s.whileUp(t)
		c, fields := s.withCertificate(t, nil)
		c.configure(t, fields)
	})
	t.Run("bound tokens", func(t *testing.T) {
		t.Parallel()
		s.whileUp(t)
		c, fields := s.withCertificate(t, func(c *servers.Client) { c.BoundTokens = true })
		c.wantWarning(t, c.fields(fields), "(cnf)")
	})
}

// wantWarning writes the config, and checks the warning of the write.
func (c *clientOf) wantWarning(t *testing.T, fields map[string]any, says string) {
	t.Helper()
	answer := c.write(t, "config/"+c.name, fields)
	if answer == nil || !slices.ContainsFunc(answer.Warnings, func(warning string) bool { return strings.Contains(warning, says) }) {
		t.Errorf("the write warns of %+v, want %q", answer, says)
	}
}

// If the token's audience is not the MCP server, the write has a warning.
func checkAudience(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newClient(t, s.secretMethods()[0], func(c *servers.Client) { c.Audience = "https://other.example.com/mcp" })
	if s.ByResource {
		c.refuse(t, "config/"+c.name, c.fields(nil), http.StatusBadRequest, "invalid_target")
		return
	}
	c.wantWarning(t, c.fields(nil), "does not hold the resource")
}

// Each refusal of the server leads to its own error for the operator.
func checkRefusals(t *testing.T, s *served) {
	t.Parallel()
	for _, refusal := range s.Refusals {
		t.Run(refusal.Name, func(t *testing.T) {
			t.Parallel()
			s.whileUp(t)
			c := s.newClient(t, s.secretMethods()[0], refusal.Client)
			c.refuse(t, "config/"+c.name, c.fields(refusal.Fields), http.StatusBadRequest, refusal.Says)
		})
	}
}

// A change of the secret fails no read.
func checkSecretRotation(t *testing.T, s *served) {
	t.Parallel()
	s.whileUp(t)
	c := s.newClient(t, s.secretMethods()[0], nil)
	before := c.configure(t, nil)
	readers := startReaders(t, c.upstream, "token/"+c.name)
	c.as.Secret = rand.Text()
	c.register(t)
	c.write(t, "config/"+c.name, map[string]any{"client_secret": c.as.Secret})
	c.awaitRefresh(t, before)
	c.awaitRefresh(t, c.token(t, "token/"+c.name))
	readers.check(t)
}

// refreshLimit is the longest wait for the next token: several lifetimes, on a busy machine.
const refreshLimit = 4 * servers.Lifetime * time.Second

// awaitRefresh waits for a newer token. The readers check their reads themselves.
func (c *clientOf) awaitRefresh(t *testing.T, before *bed.Token) {
	t.Helper()
	bed.Eventually(t, refreshLimit, func() error {
		token, err := c.bed.ReadToken(t.Context(), c.root, "token/"+c.name)
		if err == nil && token.TokenID == before.TokenID {
			err = errNotRefreshed
		}
		return err
	})
}
