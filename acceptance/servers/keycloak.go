package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

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
	kind.Section = "" // the other Keycloak's recipe covers this one
	kind.Start = func(ctx context.Context, b *bed.Bed) (Server, error) {
		return StartKeycloak(ctx, b, "resource-indicators")
	}
	return kind
}()

// A Keycloak is a realm on a Keycloak server.
type Keycloak struct {
	*daemon
	installed string // directory made by installKeycloak
	home      string // directory of the running installation
	base, tls string // URLs of its listeners
	ca        *bed.CA

	realm              string
	resourceIndicators bool
	signingKeys        int // made by NewSigningKey
}

// StartKeycloak starts an installation from keycloakFeatures.
func StartKeycloak(ctx context.Context, b *bed.Bed, features string) (*Keycloak, error) {
	installed, err := installKeycloak(ctx, b.Log)
	if err != nil {
		return nil, err
	}
	k := &Keycloak{
		daemon: &daemon{bed: b, name: "keycloak"}, installed: installed, home: filepath.Join(installed, features), realm: "mcp",
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

// listeners chooses the ports, which stay the same over restarts, and makes a certificate.
func (k *Keycloak) listeners() error {
	ports, err := bed.FreePorts(2)
	if err != nil {
		return err
	}
	if k.ca, err = bed.NewCA(); err != nil {
		return err
	}
	files, err := k.ca.ServerFiles(k.dir)
	if err != nil {
		return err
	}
	k.base, k.tls = fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("https://127.0.0.1:%d", ports[1])
	args := []string{
		"--optimized", "--cache=local", "--hostname-strict=false", "--http-enabled=true", "--http-host=127.0.0.1",
		fmt.Sprintf("--http-port=%d", ports[0]), fmt.Sprintf("--https-port=%d", ports[1]), "--http-management-scheme=inherited",
		"--https-certificate-file=" + files["cert"], "--https-certificate-key-file=" + files["key"],
		"--https-trust-store-file=" + files["ca"],
	}
	k.command = func() *exec.Cmd { return keycloakCommand(k.home, k.database(), "start", args...) }
	k.ready = []string{k.base + "/realms/master"}
	return nil
}

// Issuer returns the realm. For tls_client_auth it is at the TLS listener.
func (k *Keycloak) Issuer(method string) bed.Issuer {
	base := k.base
	if method == "tls_client_auth" {
		base = k.tls
	}
	// Both listeners have the same signing keys.
	return bed.Issuer{URL: base + "/realms/" + k.realm, KeySet: k.base + "/realms/" + k.realm + "/protocol/openid-connect/certs"}
}

// CA returns the CA that issues its certificate and client certificates.
func (k *Keycloak) CA() *bed.CA { return k.ca }

// Recipe returns the placeholders of a page whose reader is logged in with kcadm.sh.
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
			"files:read":       "recipe:read", // files:read exists already
		},
	}
}

func (k *Keycloak) secret() (string, error) {
	secret, err := os.ReadFile(filepath.Join(k.installed, "secret"))
	return strings.TrimSpace(string(secret)), err
}
