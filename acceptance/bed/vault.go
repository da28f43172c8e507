package bed

import (
	"context"
	"os"
	"os/exec"
	"strings"

	"github.com/hashicorp/vault/api"
)

// Mount is where the plugin is mounted in the bed's Vault.
const Mount = "mcp-oauth"

// A Vault is a server, HashiCorp Vault or OpenBao, as its clients see it: one address, whatever is behind it.
type Vault struct {
	Binary    string // path of the server's binary, which is Agent, Proxy and command line too
	Product   Product
	Version   string // of the product, such as v1.21.1
	Address   string // base URL of the API
	RootToken string
	Namespace string // of its clients; the root namespace if it is empty
	AuditLog  string // path of the file audit device's log

	home   string // of the vault command
	errors *errorLog
}

// Client returns a client with the given token. It does not retry, so that a test sees what Vault
// answered, and every error that it is given goes to the bed's log of errors.
func (v *Vault) Client(token string) (*api.Client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	config.Address, config.AgentAddress = v.Address, "" // whatever the user's environment says
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

// CLI prepares the vault command with args, run as the holder of token.
func (v *Vault) CLI(ctx context.Context, token string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, v.Binary, args...)
	// HOME is set aside: the CLI would read and write the user's own ~/.vault-token.
	cmd.Env = append(cleanEnviron(), "VAULT_ADDR="+v.Address, "VAULT_TOKEN="+token, "HOME="+v.home)
	return cmd
}

// cleanEnviron is the environment without the user's own settings of Vault and OpenBao.
func cleanEnviron() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "VAULT_") && !strings.HasPrefix(entry, "BAO_") {
			env = append(env, entry)
		}
	}
	return env
}
