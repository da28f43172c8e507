package bed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Mount is where the plugin is mounted in the bed's Vault.
const Mount = "mcp-oauth"

// A Vault is one Vault server with raft storage on loopback, initialised and unsealed, with an
// audit log. It can be stopped and started again on the same data and address.
type Vault struct {
	Binary    string // path of the vault binary
	Address   string // base URL of the API
	RootToken string
	AuditLog  string // path of the file audit device's log

	nodeID    string
	dir       string // config and data
	log       string // path of the server's log, which holds the plugin's log too
	pluginDir string
	errors    *errorLog
	unsealKey string
	proc      *Process
}

// VaultOptions are what a Vault needs to know of the bed around it.
type VaultOptions struct {
	Binary    string
	NodeID    string // names the node in raft, and its logs
	Dir       string // for config and data
	LogDir    string // for server and audit log
	PluginDir string
	errors    *errorLog
}

// startVault starts a new server and makes it ready for use.
func startVault(ctx context.Context, opts VaultOptions) (*Vault, error) {
	v := &Vault{
		Binary:    opts.Binary,
		AuditLog:  filepath.Join(opts.LogDir, opts.NodeID+"-audit.log"),
		nodeID:    opts.NodeID,
		dir:       opts.Dir,
		log:       filepath.Join(opts.LogDir, opts.NodeID+".log"),
		pluginDir: opts.PluginDir,
		errors:    opts.errors,
	}
	for _, dir := range []string{v.data(), v.temp()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	// A port that was free a moment ago may be taken when Vault comes to listen on it.
	var err error
	for range 3 {
		if err = v.configure(); err != nil {
			return nil, err
		}
		if err = v.launch(ctx); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if err := v.initialise(ctx); err != nil {
		return nil, errors.Join(err, v.Stop())
	}
	return v, nil
}

// configure picks ports and writes the server's configuration. A Vault keeps both for life, as
// raft knows its nodes by address.
func (v *Vault) configure() error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	v.Address = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	config := fmt.Sprintf(`disable_mlock = true
api_addr = %q
cluster_addr = "https://127.0.0.1:%d"
plugin_directory = %q

storage "raft" {
  path = %q
  node_id = %q
  performance_multiplier = 1
}

listener "tcp" {
  address = "127.0.0.1:%d"
  cluster_address = "127.0.0.1:%[2]d"
  tls_disable = true
}
`, v.Address, ports[1], v.pluginDir, v.data(), v.nodeID, ports[0])
	return os.WriteFile(v.config(), []byte(config), 0o600)
}

func (v *Vault) config() string { return filepath.Join(v.dir, "vault.hcl") }
func (v *Vault) data() string   { return filepath.Join(v.dir, "raft") }
func (v *Vault) temp() string   { return filepath.Join(v.dir, "tmp") }

// launch starts the process and waits until its API answers.
func (v *Vault) launch(ctx context.Context) error {
	// At trace level, so that the scan for secrets sees all that could ever be logged.
	cmd := exec.Command(v.Binary, "server", "-config="+v.config(), "-log-level=trace")
	// A killed plugin leaves its socket in the temporary directory.
	cmd.Env = append(cleanEnviron(), "TMPDIR="+v.temp())
	proc, err := startProcess("vault", cmd, v.log)
	if err != nil {
		return err
	}
	v.proc = proc
	client, err := v.Client("")
	if err != nil {
		return err
	}
	err = poll(ctx, 30*time.Second, func() error {
		if proc.ended() {
			return stopPolling{fmt.Errorf("vault ended at start: %w", proc.err)}
		}
		_, err := client.Sys().SealStatusWithContext(ctx)
		return err
	})
	if err != nil {
		proc.Kill()
		return fmt.Errorf("vault did not come up, see %s: %w", v.log, err)
	}
	return nil
}

func (v *Vault) initialise(ctx context.Context) error {
	client, err := v.Client("")
	if err != nil {
		return err
	}
	init, err := client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initialise vault: %w", err)
	}
	v.RootToken, v.unsealKey = init.RootToken, init.KeysB64[0]
	if err := v.Unseal(ctx); err != nil {
		return err
	}
	root, err := v.Root()
	if err != nil {
		return err
	}
	err = root.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type:    "file",
		Options: map[string]string{"file_path": v.AuditLog},
	})
	if err != nil {
		return fmt.Errorf("enable the audit log: %w", err)
	}
	return nil
}

// Unseal unseals the server and waits until it is active.
func (v *Vault) Unseal(ctx context.Context) error {
	client, err := v.Client("")
	if err != nil {
		return err
	}
	if _, err := client.Sys().UnsealWithContext(ctx, v.unsealKey); err != nil {
		return fmt.Errorf("unseal vault: %w", err)
	}
	return poll(ctx, 30*time.Second, func() error {
		health, err := client.Sys().HealthWithContext(ctx)
		if err == nil && (health.Sealed || health.Standby) {
			err = errors.New("vault is not active")
		}
		return err
	})
}

// Start starts a stopped server on its old data and unseals it.
func (v *Vault) Start(ctx context.Context) error {
	if err := v.launch(ctx); err != nil {
		return err
	}
	return v.Unseal(ctx)
}

// Stop ends the server in good order.
func (v *Vault) Stop() error {
	if v.proc == nil {
		return nil
	}
	return v.proc.Stop()
}

// close stops the server and whatever a killed server left behind.
func (v *Vault) close() error {
	err := v.Stop()
	if v.proc != nil {
		v.proc.killGroup()
	}
	return err
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
	client.ClearNamespace()
	client.SetToken(token)
	return client, nil
}

// Root returns a client with the root token.
func (v *Vault) Root() (*api.Client, error) { return v.Client(v.RootToken) }

// CLI prepares the vault command with args, run as the holder of token.
func (v *Vault) CLI(ctx context.Context, token string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, v.Binary, args...)
	// HOME is set aside: the CLI would read and write the user's own ~/.vault-token.
	cmd.Env = append(cleanEnviron(), "VAULT_ADDR="+v.Address, "VAULT_TOKEN="+token, "HOME="+v.dir)
	return cmd
}

// cleanEnviron is the environment without the user's own Vault settings.
func cleanEnviron() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "VAULT_") {
			env = append(env, entry)
		}
	}
	return env
}

// freePorts returns n ports of the loopback address that were free a moment ago.
func freePorts(n int) ([]int, error) {
	var listeners []net.Listener
	defer func() {
		// Only after all are taken, so that they differ.
		for _, l := range listeners {
			l.Close()
		}
	}()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
