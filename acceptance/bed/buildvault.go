package bed

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
)

var pinnedVault = regexp.MustCompile(`(?m)^\s*(?:require )?github\.com/hashicorp/vault (v\S+)`)

// buildVault returns the path of the Vault that tools/vault pins, built once.
func buildVault(ctx context.Context, log func(string, ...any)) (string, error) {
	dir, err := SourcePath("tools", "vault")
	if err != nil {
		return "", err
	}
	pin, err := ReadFiles(dir, "go.mod", "go.sum")
	if err != nil {
		return "", err
	}
	version := pinnedVault.FindSubmatch(pin)
	if version == nil {
		return "", errors.New("tools/vault/go.mod does not pin github.com/hashicorp/vault")
	}
	return Cached(ctx, fmt.Sprintf("vault-%s-", version[1]), pin, log, func(binary string) error {
		log("building Vault %s once: five to ten minutes on two cores", version[1])
		return WithProgress("building Vault", log, func() error {
			cmd := exec.CommandContext(ctx, "go", "build", "-tags", "minimal", "-trimpath", "-o", binary, "github.com/hashicorp/vault")
			cmd.Dir = dir
			return Run(cmd)
		})
	})
}
