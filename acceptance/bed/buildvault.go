package bed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	dir, err := sourcePath("tools", "vault")
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
	return cached(ctx, fmt.Sprintf("vault-%s-", version[1]), append(mod, sum...), log, func(binary string) error {
		log("building Vault %s once: five to ten minutes on two cores", version[1])
		return withProgress("building Vault", log, func() error {
			cmd := exec.CommandContext(ctx, "go", "build", "-tags", "minimal", "-trimpath", "-o", binary, "github.com/hashicorp/vault")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build Vault: %w\n%s", err, out)
			}
			return nil
		})
	})
}

// cached returns the path of a binary in the user's cache directory, whose name begins with prefix and ends
// with a digest of the pin. If it is not there, it is made; two processes do not make it at once.
func cached(ctx context.Context, prefix string, pin []byte, log func(string, ...any), build func(binary string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(pin)
	binary := filepath.Join(cache, prefix+hex.EncodeToString(hash[:4]))
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	err = withFileLock(ctx, binary+".lock", log, func() error {
		if _, err := os.Stat(binary); err == nil {
			return nil // another process made it meanwhile
		}
		partial := fmt.Sprintf("%s.%d", binary, os.Getpid())
		defer os.Remove(partial)
		if err := build(partial); err != nil {
			return err
		}
		return os.Rename(partial, binary) // atomic: no process finds half a binary
	})
	return binary, err
}
