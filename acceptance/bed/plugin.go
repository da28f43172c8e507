package bed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// PluginName is the name of the plugin's binary, and its name in Vault.
const PluginName = "vault-plugin-mcp-oauth"

// BuildPlugin builds the plugin from the checkout into dir, a Vault plugin directory, and returns its SHA-256 for
// Vault's catalog.
func BuildPlugin(ctx context.Context, dir string, log func(format string, args ...any)) (sha string, err error) {
	root, err := SourcePath()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	// go build skips an up-to-date binary, so each checkout has one output path. Vault gets a copy, because it
	// refuses a changed binary.
	checkout := sha256.Sum256([]byte(root))
	built := filepath.Join(cache, "plugin-"+hex.EncodeToString(checkout[:4]), PluginName)
	var binary []byte
	if _, err := os.Stat(built); errors.Is(err, fs.ErrNotExist) {
		log("building the plugin, about a minute the first time")
	}
	err = withFileLock(ctx, built+".lock", log, func() error {
		cmd := GoBuild(ctx, built, "./cmd/"+PluginName)
		cmd.Dir = root
		if err := Run(cmd); err != nil {
			return err
		}
		binary, err = os.ReadFile(built)
		return err
	})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, PluginName), binary, 0o700); err != nil {
		return "", err
	}
	sum := sha256.Sum256(binary)
	return hex.EncodeToString(sum[:]), nil
}

// GoBuild prepares a build as in make build, but without a commit in the version.
func GoBuild(ctx context.Context, binary, packagePath string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, packagePath)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}
