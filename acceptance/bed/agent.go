package bed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// An Agent is a Vault Agent that logs in with an AppRole and keeps the authorization value of a token in a file.
type Agent struct {
	Config string // path of the agent's configuration
	File   string // path of the rendered file
	proc   *Process
}

// autoAuth is the part of an Agent's or Proxy's configuration that logs in. Arguments: address of Vault, role id
// file, secret id file.
const autoAuth = `vault {
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

`

// agentTemplate is the template of the README, written inline. Arguments: path of the token, destination.
const agentTemplate = `template {
  contents = "{{ with secret \"%s\" }}{{ .Data.authorization }}{{ end }}"
  destination = %q
  perms = "0600"
  error_on_missing_key = true
}
`

// startAgent starts an agent that renders the authorization value of the token at path.
func startAgent(v *Vault, dir, log string, id *Identity, path string) (*Agent, error) {
	a := &Agent{Config: filepath.Join(dir, "agent.hcl"), File: filepath.Join(dir, "authorization")}
	var err error
	a.proc, err = startLoggedIn(v, "agent", a.Config, log, id, fmt.Sprintf(agentTemplate, path, a.File))
	return a, err
}

// startLoggedIn starts a Vault Agent or Proxy that logs in as id. The configuration and its files are in one directory.
func startLoggedIn(v *Vault, command, config, log string, id *Identity, more string) (*Process, error) {
	dir := filepath.Dir(config)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	roleID, secretID := filepath.Join(dir, "role-id"), filepath.Join(dir, "secret-id")
	text := fmt.Sprintf(autoAuth, v.Address, roleID, secretID) + more
	for file, content := range map[string]string{roleID: id.RoleID, secretID: id.SecretID, config: text} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(v.Binary, command, "-config="+config, "-log-level=debug")
	cmd.Env = append(cleanEnviron(), "HOME="+dir)
	return startProcess("vault "+command, cmd, log)
}

// WaitRendered waits until the agent has written its file.
func (a *Agent) WaitRendered(ctx context.Context) error {
	return Poll(ctx, 30*time.Second, func() error {
		if a.proc.ended() {
			return stopPolling{fmt.Errorf("vault agent ended: %w", a.proc.err)}
		}
		info, err := os.Stat(a.File)
		if err == nil && info.Size() == 0 {
			err = fmt.Errorf("%s is empty", a.File)
		}
		return err
	})
}

// TokenID returns the token_id of the token in the agent's file.
func (a *Agent) TokenID() (string, error) {
	content, err := os.ReadFile(a.File)
	if err != nil {
		return "", err
	}
	token := strings.TrimPrefix(strings.TrimSpace(string(content)), "Bearer ")
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:8]), nil
}

func (a *Agent) close() error { return a.proc.Stop() }
