package bed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

var pinnedVault = regexp.MustCompile(`(?m)^\s*(?:require )?github\.com/hashicorp/vault (v\S+)`)

// buildVault returns the path of a Vault that is built once from the version that tools/vault pins.
func buildVault(ctx context.Context, log func(string, ...any)) (string, error) {
	dir, err := SourcePath("tools", "vault")
	if err != nil {
		return "", err
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return "", err
	}
	version := pinnedVault.FindSubmatch(mod)
	if version == nil {
		return "", errors.New("tools/vault/go.mod does not pin github.com/hashicorp/vault")
	}
	// Another pin, of Vault or of what it is built from, is another binary.
	return Cached(ctx, fmt.Sprintf("vault-%s-", version[1]), append(mod, sum...), log, func(binary string) error {
		log("building Vault %s once: five to ten minutes on two cores", version[1])
		return WithProgress("building Vault", log, func() error {
			cmd := exec.CommandContext(ctx, "go", "build", "-tags", "minimal", "-trimpath", "-o", binary, "github.com/hashicorp/vault")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build Vault: %w\n%s", err, out)
			}
			return nil
		})
	})
}
