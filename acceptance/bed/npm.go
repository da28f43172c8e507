package bed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// InstallAuthorizationServer installs the authorization server's packages into acceptance/as, as
// its package-lock.json pins them, where that has not been done since the lock last changed. It
// returns the directory of the server.
func InstallAuthorizationServer(ctx context.Context, log func(format string, args ...any)) (string, error) {
	dir, err := sourcePath("acceptance", "as")
	if err != nil {
		return "", err
	}
	if installed(dir) {
		return dir, nil
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	err = withFileLock(ctx, filepath.Join(cache, "npm.lock"), log, func() error {
		if installed(dir) {
			return nil // somebody else did it meanwhile
		}
		log("installing the authorization server's npm packages into acceptance/as/node_modules")
		cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("npm ci: %w\n%s", err, out)
		}
		return nil
	})
	return dir, err
}

// installed tells whether node_modules is there and not older than the lock. npm writes
// node_modules/.package-lock.json as its last step.
func installed(dir string) bool {
	done, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	if err != nil {
		return false
	}
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	return err == nil && !done.ModTime().Before(lock.ModTime())
}
