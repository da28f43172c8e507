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

// An Agent is a Vault Agent that logs in with an AppRole and keeps the authorization value of one
// token in a file, as it would beside a broker.
type Agent struct {
	Config string // path of the agent's configuration
	File   string // path of the file that it renders
	proc   *Process
}

// agentConfig is what the README advises, with a template in place instead of in a file.
// Arguments: address of Vault, role id file, secret id file, destination, path of the token.
const agentConfig = `vault {
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

template {
  contents = "{{ with secret \"%s\" }}{{ .Data.authorization }}{{ end }}"
  destination = %q
  perms = "0600"
  error_on_missing_key = true
}
`

// startAgent starts an agent that renders the authorization value read at path.
func startAgent(v *Vault, dir, log string, id *Identity, path string) (*Agent, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &Agent{Config: filepath.Join(dir, "agent.hcl"), File: filepath.Join(dir, "authorization")}
	roleID, secretID := filepath.Join(dir, "role-id"), filepath.Join(dir, "secret-id")
	config := fmt.Sprintf(agentConfig, v.Address, roleID, secretID, path, a.File)
	for file, content := range map[string]string{roleID: id.RoleID, secretID: id.SecretID, a.Config: config} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(v.Binary, "agent", "-config="+a.Config, "-log-level=debug")
	cmd.Env = append(cleanEnviron(), "HOME="+dir)
	var err error
	a.proc, err = startProcess("vault agent", cmd, log)
	return a, err
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

// TokenID is the token_id of the token in the agent's file, as the plugin would tell it.
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
