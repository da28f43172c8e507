package bed

import (
	"context"
	"os"
	"os/exec"
	"strings"

	"github.com/hashicorp/vault/api"
)

// Mount is the path of the plugin's mount.
const Mount = "mcp-oauth"

// A Vault is a HashiCorp Vault or OpenBao, or several behind one address.
type Vault struct {
	Binary    string // of server, Agent, Proxy and command line
	Product   Product
	Version   string // of the product, such as v1.21.1
	Address   string // base URL of the API
	RootToken string
	Namespace string // used by its clients; empty: the root namespace
	AuditLog  string // path of the file audit device's log

	home   string // HOME of the vault command
	errors *errorLog
}

// Client returns a client with the given token. It does not retry, and writes errors to the bed's error log.
func (v *Vault) Client(token string) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address, config.AgentAddress = v.Address, "" // overrides the environment
	config.MaxRetries = 0
	config.HttpClient.Transport = v.errors.transport(config.HttpClient.Transport)
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.SetNamespace(v.Namespace)
	client.SetToken(token)
	return client, nil
}

// Root returns a client with the root token.
func (v *Vault) Root() (*api.Client, error) { return v.Client(v.RootToken) }

// CLI prepares the vault command as the holder of token.
func (v *Vault) CLI(ctx context.Context, token string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, v.Binary, args...)
	// The CLI would read the user's ~/.vault-token.
	cmd.Env = append(cleanEnviron(), "VAULT_ADDR="+v.Address, "VAULT_TOKEN="+token, "HOME="+v.home)
	return cmd
}

// cleanEnviron returns the environment without Vault's and OpenBao's settings.
func cleanEnviron() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "VAULT_") && !strings.HasPrefix(entry, "BAO_") {
			env = append(env, entry)
		}
	}
	return env
}
