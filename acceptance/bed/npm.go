package bed

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// InstallPackages installs the npm packages of a directory of acceptance, as its package-lock.json pins them, unless
// they are up to date. It returns the directory.
func InstallPackages(ctx context.Context, name string, log func(format string, args ...any)) (string, error) {
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
			return nil // another process has installed them meanwhile
		}
		log("installing npm packages into acceptance/%s/node_modules", name)
		cmd := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund")
		cmd.Dir = dir
		return Run(cmd)
	})
	return dir, err
}

// installed reports whether node_modules is at least as new as the lock. npm writes node_modules/.package-lock.json
// last.
func installed(dir string) bool {
	done, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	if err != nil {
		return false
	}
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	return err == nil && !done.ModTime().Before(lock.ModTime())
}
