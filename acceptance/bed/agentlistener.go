package bed

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// listenerConfig serves Vault's API on a listener. Requests without a token get the Agent's or Proxy's own. Argument:
// port.
const listenerConfig = `api_proxy {
  use_auto_auth_token = true
}

listener "tcp" {
  address = "127.0.0.1:%d"
  tls_disable = true
}
`

// NewListener starts a Vault Agent or a Vault Proxy (command "agent" or "proxy") that logs in as id, and returns
// Vault behind its listener, which clients use without a token.
func (b *Bed) NewListener(ctx context.Context, command string, id *Identity) (*Vault, error) {
	name := b.unique(command + "-listener-" + id.Name)
	dir := filepath.Join(b.Dir, name)
	// Another process may take the free port before the listener does.
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
	log := filepath.Join(b.LogDir(), name+".log")
	proc, err := startLoggedIn(b.Vault, command, filepath.Join(dir, "listener.hcl"), log, id, fmt.Sprintf(listenerConfig, ports[0]))
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
