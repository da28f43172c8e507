package acceptance

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Two namespaces have mounts of the same name. Their tokens, policies, published keys, Agents and Proxies are
// separate.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	needs(t, bed.OpenBao)
	b := bed.New(t, bed.Options{})
	tenants := map[string]*tenant{}
	for _, namespace := range []string{"team-a", "team-b"} {
		tenants[namespace] = newTenant(t, b, namespace)
	}
	for namespace, own := range tenants {
		other := tenants["team-a"]
		if namespace == "team-a" {
			other = tenants["team-b"]
		}
		if err := own.upstream.mcp.Check(own.upstream.token(t, "token/files").AccessToken); err != nil {
			t.Errorf("%s: %v", namespace, err)
		}
		wantStatus(t, own.broker.Client, "token/files", http.StatusOK)
		wantStatus(t, own.broker.Client, "config/files", http.StatusForbidden)
		across := own.broker.Client.WithNamespace(other.namespace)
		wantStatus(t, across, "token/files", http.StatusForbidden)
		// The authorization server fetches the keys by URL.
		fetches, err := b.AS.KeyFetches(t.Context(), own.upstream.client.JWKSURI)
		if err != nil || len(fetches) == 0 {
			t.Errorf("the keys of %s were fetched %d times: %v", namespace, len(fetches), err)
		}
		for _, command := range []string{"agent", "proxy"} {
			through := own.listener(t, command, other.namespace)
			wantStatus(t, through, "token/files", http.StatusOK)
		}
	}
	err := tenants["team-a"].upstream.root.Sys().RegisterPluginWithContext(t.Context(), &api.RegisterPluginInput{
		Name: bed.PluginName, Type: api.PluginTypeSecrets, Command: bed.PluginName, SHA256: b.PluginSHA256,
	})
	if refused, ok := errors.AsType[*api.ResponseError](err); !ok || refused.StatusCode != http.StatusNotFound {
		t.Errorf("the plugin is registered in a namespace: %v", err)
	}
	pluginPID(t, b.Nodes[0]) // fails if the node has several plugin processes
	for _, command := range []string{"agent", "proxy"} {
		tenants["team-a"].wantNoLogin(t, command)
	}
}

// A tenant is a namespace with a mount, a config with a published key, and a broker.
type tenant struct {
	namespace string
	upstream  *upstream // at the namespace's mount
	broker    *bed.Identity
}

func newTenant(t *testing.T, b *bed.Bed, namespace string) *tenant {
	t.Helper()
	at := *b.Vault
	at.Namespace = namespace
	u := newUpstream(t, b, "-"+namespace, 5*time.Minute)
	w := u.walk(t, "docs/openbao.md")
	for _, block := range blocksOf(t, "docs/openbao.md") {
		if block.heading == "Namespaces" && block.language == "sh" {
			bed.Must(w.run(block, strings.ReplaceAll(block.text, "team-a", namespace)))(t)
		}
	}
	u.name = "files"
	u.root = bed.Must(at.Root())(t)
	approle := &api.EnableAuthOptions{Type: "approle"}
	bed.OK(t, u.root.Sys().EnableAuthWithOptionsWithContext(t.Context(), approle.Type, approle))
	mount := fmt.Sprintf("%s/v1/%s/%s", b.Vault.Address, namespace, bed.Mount)
	u.write(t, "settings", map[string]any{"public_url": mount})
	u.write(t, "config/files", u.discovered(map[string]any{
		"token_endpoint_auth_method": "private_key_jwt", "key_type": "ec-p256", "publish_jwks": true,
	}))
	uri, _ := u.read(t, "keys/files")["jwks_uri"].(string)
	if !strings.HasPrefix(uri, mount+"/jwks/files-") {
		t.Errorf("keys/files shows the jwks_uri %q", uri)
	}
	u.registerAs(t, bed.Client{AuthMethod: "private_key_jwt", JWKSURI: uri})
	rules := `path "` + bed.Mount + `/token/files" { capabilities = ["read"] }`
	bed.OK(t, at.PutPolicy(t.Context(), "files", rules))
	broker := bed.Must(at.NewIdentity(t.Context(), "files", "files"))(t)
	return &tenant{namespace, u, broker}
}

// listener starts an Agent or Proxy of the tenant, as in docs/openbao.md, and returns a client of it. The vault
// stanza names another namespace.
func (n *tenant) listener(t *testing.T, command, another string) *api.Client {
	t.Helper()
	authorization := filepath.Join(t.TempDir(), "authorization")
	template := ""
	if command == "agent" {
		template = fmt.Sprintf(`
template {
  contents = "{{ with secret \"%s/token/files\" }}{{ .Data.authorization }}{{ end }}"
  destination = %q
  error_on_missing_key = true
}
`, bed.Mount, authorization)
	}
	client := n.start(t, command, command+"-"+n.namespace, n.login(t)+template, another)
	if command == "agent" {
		bed.Eventually(t, 30*time.Second, func() error {
			content, err := os.ReadFile(authorization)
			if err == nil {
				err = n.upstream.mcp.Check(strings.TrimPrefix(string(content), "Bearer "))
			}
			return err
		})
	}
	bed.Eventually(t, 30*time.Second, func() error {
		_, err := client.Auth().Token().LookupSelfWithContext(t.Context())
		return err
	})
	return client
}

// wantNoLogin starts an Agent or Proxy with the tenant's namespace only in its vault stanza. It tries to log in to
// the root namespace, and fails.
func (n *tenant) wantNoLogin(t *testing.T, command string) {
	t.Helper()
	login := strings.Replace(n.login(t), fmt.Sprintf("    namespace = %q\n", n.namespace), "", 1)
	if strings.Contains(login, "namespace") {
		t.Fatalf("the method has a namespace:\n%s", login)
	}
	name := command + "-" + n.namespace + "-by-stanza"
	client := n.start(t, command, name, login, n.namespace)
	bed.Eventually(t, 30*time.Second, func() error {
		log, err := os.ReadFile(filepath.Join(n.upstream.bed.LogDir(), name+".log"))
		if err == nil && !strings.Contains(string(log), "error authenticating") {
			err = fmt.Errorf("%s has not tried to log in", name)
		}
		return err
	})
	wantStatus(t, client, "token/files", http.StatusForbidden)
}

// login returns an auto_auth stanza with the tenant's namespace in its method, as in docs/openbao.md.
func (n *tenant) login(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"role-id": n.broker.RoleID, "secret-id": n.broker.SecretID})
	return fmt.Sprintf(`
auto_auth {
  method "approle" {
    namespace = %q
    config = {
      role_id_file_path                   = %q
      secret_id_file_path                 = %q
      remove_secret_id_file_after_reading = false
    }
  }
}
`, n.namespace, filepath.Join(dir, "role-id"), filepath.Join(dir, "secret-id"))
}

// start starts an Agent or Proxy with a listener and this namespace in its vault stanza. It returns a client with the
// tenant's namespace.
func (n *tenant) start(t *testing.T, command, name, config, namespace string) *api.Client {
	t.Helper()
	b, port, file := n.upstream.bed, freePort(t), filepath.Join(t.TempDir(), "config.hcl")
	config += fmt.Sprintf(`
vault {
  address = %q
  namespace = %q
}

api_proxy {
  use_auto_auth_token = true
}

listener "tcp" {
  address = "127.0.0.1:%s"
  tls_disable = true
}
`, b.Vault.Address, namespace, port)
	bed.OK(t, os.WriteFile(file, []byte(config), 0o600))
	bed.Must(b.NewProcess(name, b.Vault.CLI(t.Context(), "", command, "-config="+file)))(t)
	through := *b.Vault
	through.Address, through.Namespace = "http://127.0.0.1:"+port, n.namespace
	client := bed.Must(through.Client(""))(t)
	return client
}
