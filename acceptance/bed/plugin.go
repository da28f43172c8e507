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

// PluginName is the name of the plugin's binary, and the name under which Vault knows it.
const PluginName = "vault-plugin-mcp-oauth"

// BuildPlugin builds the plugin from the checkout into dir, a Vault plugin directory, and returns
// the SHA-256 that Vault's catalog asks for.
func BuildPlugin(ctx context.Context, dir string, log func(format string, args ...any)) (sha string, err error) {
	root, err := SourcePath()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	// go build does not link again what is up to date at the place it writes to, so the binary is
	// built at a place that stays, one for each checkout, and copied from there: a running Vault
	// would refuse a binary that another build has changed.
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

// GoBuild prepares the build of a package's binary as make build does it, without a commit in the version.
func GoBuild(ctx context.Context, binary, packagePath string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, packagePath)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}
