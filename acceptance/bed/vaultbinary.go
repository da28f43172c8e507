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
	"strings"
	"time"
)

// FindVault returns the Vault binary to test with: VAULT_BIN where set, else the vault on PATH,
// else one that is built once from the version pinned in tools/vault and kept in the user's cache
// directory. Progress goes to log: the build takes minutes.
func FindVault(ctx context.Context, log func(format string, args ...any)) (string, error) {
	if bin := os.Getenv("VAULT_BIN"); bin != "" {
		return describeVault(ctx, bin, "VAULT_BIN", log)
	}
	if bin, err := exec.LookPath("vault"); err == nil {
		return describeVault(ctx, bin, "PATH", log)
	}
	return buildVault(ctx, log)
}

// describeVault says which Vault a run used, so that a transcript or a failed test tells.
func describeVault(ctx context.Context, bin, from string, log func(string, ...any)) (string, error) {
	out, err := exec.CommandContext(ctx, bin, "version").Output()
	if err != nil {
		return "", fmt.Errorf("%s (from %s) is no Vault binary: %w", bin, from, err)
	}
	log("using %s, from %s", strings.TrimSpace(string(out)), from)
	return filepath.Abs(bin)
}

var pinnedVault = regexp.MustCompile(`(?m)^\s*(?:require )?github\.com/hashicorp/vault (v\S+)`)

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
	hash := sha256.Sum256(append(mod, sum...))
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(cache, fmt.Sprintf("vault-%s-%s", version[1], hex.EncodeToString(hash[:4])))
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	err = withFileLock(ctx, bin+".lock", log, func() error {
		if _, err := os.Stat(bin); err == nil {
			return nil // somebody else built it meanwhile
		}
		log("no vault on PATH and VAULT_BIN is not set: building Vault %s once, about 5 minutes on two cores", version[1])
		return goBuildVault(ctx, dir, bin, log)
	})
	return bin, err
}

func goBuildVault(ctx context.Context, dir, bin string, log func(string, ...any)) error {
	partial := fmt.Sprintf("%s.%d", bin, os.Getpid())
	defer os.Remove(partial)
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "minimal", "-trimpath", "-o", partial, "github.com/hashicorp/vault")
	cmd.Dir = dir

	start := time.Now()
	built := make(chan struct{})
	defer close(built)
	go func() {
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-built:
				return
			case <-tick.C:
				log("still building Vault, %s so far", time.Since(start).Round(time.Second))
			}
		}
	}()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build Vault: %w\n%s", err, out)
	}
	log("built Vault in %s, kept as %s", time.Since(start).Round(time.Second), bin)
	// A rename is atomic: nobody finds half a binary.
	return os.Rename(partial, bin)
}
