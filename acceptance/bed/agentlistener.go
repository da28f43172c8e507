package bed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// listenerConfig makes an Agent or a Proxy answer Vault's API on a listener of its own, with its own
// login for clients that bring none.
// Arguments: address of Vault, role id file, secret id file, port.
const listenerConfig = `vault {
  address = %q
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path = %q
      secret_id_file_path = %q
      remove_secret_id_file_after_reading = false
    }
  }
}

api_proxy {
  use_auto_auth_token = true
}

listener "tcp" {
  address = "127.0.0.1:%d"
  tls_disable = true
}
`

// NewListener starts a Vault Agent or a Vault Proxy, as command says ("agent" or "proxy"), that logs in
// as id, and returns Vault as it is seen through its listener: a client needs no token.
func (b *Bed) NewListener(ctx context.Context, command string, id *Identity) (*Vault, error) {
	name := b.unique(command + "-listener-" + id.Name)
	dir := filepath.Join(b.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// A port that was free a moment ago may be taken when the listener comes to listen on it.
	var err error
	for range 3 {
		var through *Vault
		if through, err = b.startListener(ctx, command, dir, name, id); err == nil {
			return through, nil
		}
	}
	return nil, err
}

func (b *Bed) startListener(ctx context.Context, command, dir, name string, id *Identity) (*Vault, error) {
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	configFile, roleID, secretID := filepath.Join(dir, "listener.hcl"), filepath.Join(dir, "role-id"), filepath.Join(dir, "secret-id")
	config := fmt.Sprintf(listenerConfig, b.Vault.Address, roleID, secretID, ports[0])
	for file, content := range map[string]string{roleID: id.RoleID, secretID: id.SecretID, configFile: config} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(b.Vault.Binary, command, "-config="+configFile, "-log-level=debug")
	cmd.Env = append(cleanEnviron(), "HOME="+dir)
	proc, err := startProcess("vault "+command, cmd, filepath.Join(b.LogDir(), name+".log"))
	if err != nil {
		return nil, err
	}
	b.onClose(proc.Stop)
	through := &Vault{
		Binary:  b.Vault.Binary,
		Product: b.Vault.Product,
		Version: b.Vault.Version,
		Address: fmt.Sprintf("http://127.0.0.1:%d", ports[0]),
		home:    dir,
		errors:  b.errors,
	}
	client, err := through.Client("")
	if err != nil {
		return nil, err
	}
	return through, Poll(ctx, 30*time.Second, func() error {
		if proc.ended() {
			return stopPolling{fmt.Errorf("vault %s ended: %w", command, proc.err)}
		}
		_, err := client.Auth().Token().LookupSelfWithContext(ctx)
		return err
	})
}
