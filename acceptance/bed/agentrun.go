package bed

import (
	"os/exec"
	"path/filepath"
)

// RunAgent starts a Vault Agent with a configuration of the caller's, such as an example's. It ends
// with the bed.
func (b *Bed) RunAgent(name, configFile string) error {
	cmd := exec.Command(b.Vault.Binary, "agent", "-config="+configFile)
	cmd.Env = append(cleanEnviron(), "HOME="+filepath.Dir(configFile))
	proc, err := startProcess("vault agent", cmd, filepath.Join(b.LogDir(), b.unique(name)+".log"))
	if err != nil {
		return err
	}
	b.onClose(proc.Stop)
	return nil
}
