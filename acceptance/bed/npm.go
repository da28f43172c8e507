package bed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// InstallAuthorizationServer installs the authorization server's packages into acceptance/as. It returns the
// directory of the server.
func InstallAuthorizationServer(ctx context.Context, log func(format string, args ...any)) (string, error) {
	return installPackages(ctx, "as", log)
}

// installPackages installs npm packages into a directory of acceptance, as its package-lock.json pins them,
// unless that has been done since the lock last changed. It returns the directory.
func installPackages(ctx context.Context, name string, log func(format string, args ...any)) (string, error) {
	dir, err := SourcePath("acceptance", name)
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
			return nil // another process did it meanwhile
		}
		log("installing npm packages into acceptance/%s/node_modules", name)
		cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("npm ci: %w\n%s", err, out)
		}
		return nil
	})
	return dir, err
}

// installed reports whether node_modules is there and not older than the lock. npm writes
// node_modules/.package-lock.json as its last step.
func installed(dir string) bool {
	done, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	if err != nil {
		return false
	}
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	return err == nil && !done.ModTime().Before(lock.ModTime())
}

// InstallConformanceSuite installs the conformance suite of the Model Context Protocol into acceptance/conformance. It
// returns the directory.
func InstallConformanceSuite(ctx context.Context, log func(format string, args ...any)) (string, error) {
	return installPackages(ctx, "conformance", log)
}
