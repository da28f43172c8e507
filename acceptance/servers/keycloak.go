package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

var keycloak = Kind{
	Name:    "Keycloak",
	Version: keycloakVersion,
	Section: "Keycloak",
	Start: func(ctx context.Context, b *bed.Bed) (Server, error) {
		return StartKeycloak(ctx, b, "default")
	},
	Methods:    []string{"client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"},
	Algorithms: []string{"RS256", "PS256", "ES256", "EdDSA"},
	Refusals: []Refusal{
		{"wrong secret", nil, map[string]any{"client_secret": "not the secret"}, "unauthorized_client: Invalid client or Invalid client credentials"},
		{"unknown client", nil, map[string]any{"client_id": "unknown"}, "invalid_client: Invalid client or Invalid client credentials"},
		{"disabled client", func(c *Client) { c.Disabled = true }, nil, "invalid_client: Invalid client or Invalid client credentials"},
		{"no service account", func(c *Client) { c.Off = true }, nil, "unauthorized_client: Client not enabled to retrieve service account"},
		{"scope not assigned", func(c *Client) { c.Scopes = Scopes[:1] }, nil, "invalid_scope: Invalid scopes: files:read files:write"},
		{"DPoP", func(c *Client) { c.Attributes = map[string]string{"dpop.bound.access.tokens": "true"} }, nil, "turn DPoP off"},
		{"bound tokens", func(c *Client) { c.BoundTokens = true }, nil, "turn certificate-bound access tokens off"},
	},
}

var keycloakWithResourceIndicators = func() Kind {
	kind := keycloak
	kind.Name = "Keycloak with resource-indicators"
	kind.ByResource = true
	kind.Section = "" // its lines are in the other's recipe
	kind.Start = func(ctx context.Context, b *bed.Bed) (Server, error) {
		return StartKeycloak(ctx, b, "resource-indicators")
	}
	return kind
}()

// A Keycloak is a realm of a Keycloak.
type Keycloak struct {
	bed       *bed.Bed
	installed string // what installKeycloak returns
	home      string // of the installation that runs
	dir       string // of what this one keeps
	args      []string
	base, tls string // URLs of its listeners
	ca        *bed.CA
	process   *bed.Process

	realm              string
	resourceIndicators bool
	signingKeys        int // made by NewSigningKey
}

// StartKeycloak starts a Keycloak of keycloakFeatures.
func StartKeycloak(ctx context.Context, b *bed.Bed, features string) (*Keycloak, error) {
	installed, err := installKeycloak(ctx, b.Log)
	if err != nil {
		return nil, err
	}
	k := &Keycloak{
		bed: b, installed: installed, home: filepath.Join(installed, features), realm: "mcp",
		resourceIndicators: features == "resource-indicators",
	}
	if k.dir, err = os.MkdirTemp(b.Dir, "keycloak-"); err != nil {
		return nil, err
	}
	database, err := os.ReadFile(filepath.Join(installed, "database.mv.db"))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(k.database()+".mv.db", database, 0o600); err != nil {
		return nil, err
	}
	if err := k.listeners(); err != nil {
		return nil, err
	}
	if err := k.launch(ctx); err != nil {
		return nil, err
	}
	return k, k.setUp(ctx, nil)
}

func (k *Keycloak) database() string { return filepath.Join(k.dir, "database") }

// listeners chooses the ports, which stay when the server is restarted, and makes a certificate.
func (k *Keycloak) listeners() error {
	ports, err := bed.FreePorts(2)
	if err != nil {
		return err
	}
	if k.ca, err = bed.NewCA(); err != nil {
		return err
	}
	certificate, err := k.ca.Server()
	if err != nil {
		return err
	}
	files := make(map[string]string)
	for name, content := range map[string]string{"key": certificate.KeyPEM, "certificate": certificate.PEM, "ca": k.ca.PEM} {
		files[name] = filepath.Join(k.dir, name+".pem")
		if err := os.WriteFile(files[name], []byte(content), 0o600); err != nil {
			return err
		}
	}
	k.base, k.tls = fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("https://127.0.0.1:%d", ports[1])
	k.args = []string{
		"--optimized", "--cache=local", "--hostname-strict=false", "--http-enabled=true", "--http-host=127.0.0.1",
		fmt.Sprintf("--http-port=%d", ports[0]), fmt.Sprintf("--https-port=%d", ports[1]), "--http-management-scheme=inherited",
		"--https-certificate-file=" + files["certificate"], "--https-certificate-key-file=" + files["key"],
		"--https-trust-store-file=" + files["ca"],
	}
	return nil
}

// launch starts the process and waits until it answers. On a busy machine that takes minutes.
func (k *Keycloak) launch(ctx context.Context) error {
	cmd := keycloakCommand(k.home, k.database(), "start", k.args...)
	cmd.Dir = k.dir
	var err error
	if k.process, err = k.bed.NewProcess("keycloak", cmd); err != nil {
		return err
	}
	return bed.Poll(ctx, 5*time.Minute, func() error {
		select {
		case <-k.process.Done():
			return bed.StopPolling(errors.New("Keycloak ended; its log says why"))
		default:
		}
		return get(ctx, k.base+"/realms/master")
	})
}

// get asks for a URL and returns an error unless the status is 200.
func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := bed.HTTPClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// Issuer is the realm, at the listener with TLS for tls_client_auth.
func (k *Keycloak) Issuer(method string) bed.Issuer {
	base := k.base
	if method == "tls_client_auth" {
		base = k.tls
	}
	// The signing keys are the same at both.
	return bed.Issuer{URL: base + "/realms/" + k.realm, KeySet: k.base + "/realms/" + k.realm + "/protocol/openid-connect/certs"}
}

// CA is the authority of its own certificate and of the client certificates that it takes.
func (k *Keycloak) CA() *bed.CA { return k.ca }

// Restart stops the server and starts it again.
func (k *Keycloak) Restart(ctx context.Context) error {
	if err := k.process.Stop(); err != nil {
		return err
	}
	return k.launch(ctx)
}

// Recipe returns what a reader of the page has, who is logged in with kcadm.sh.
func (k *Keycloak) Recipe() Recipe {
	kcadm := fmt.Sprintf(`export KC_OPTS=-XX:TieredStopAtLevel=1
kcadm() { %q "$@" --config %q; }
[ -e %[2]q ] || kcadm config credentials --server %s --realm master --client %s --secret "$(cat %q)"
kcadm "$@"`, filepath.Join(k.home, "bin", "kcadm.sh"), filepath.Join(k.dir, "kcadm.config"), k.base,
		keycloakAdministrator, filepath.Join(k.installed, "secret"))
	return Recipe{
		Commands: map[string]string{"kcadm.sh": kcadm},
		Own: map[string]string{
			"https://KEYCLOAK": k.base,
			"REALM":            k.realm,
			"files:read":       "recipe:read", // the other does exist
		},
	}
}

// secret is the administrator's.
func (k *Keycloak) secret() (string, error) {
	secret, err := os.ReadFile(filepath.Join(k.installed, "secret"))
	return strings.TrimSpace(string(secret)), err
}
