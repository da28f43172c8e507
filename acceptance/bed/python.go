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
)

// ErrNoPython says that this machine has no Python that the MCP servers in Python run on.
var ErrNoPython = errors.New("there is no python3 of version 3.10 or newer with venv on this machine")

// installPython installs the packages of the MCP servers in Python, as acceptance/mcpservers pins them,
// into a virtual environment in the user's cache directory. It returns the environment's interpreter, or
// ErrNoPython.
func installPython(ctx context.Context, log func(format string, args ...any)) (string, error) {
	dir, err := SourcePath("acceptance", "mcpservers")
	if err != nil {
		return "", err
	}
	var pins []byte
	for _, file := range []string{"requirements.txt", "constraints.txt"} {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return "", err
		}
		pins = append(pins, content...)
	}
	version, err := exec.CommandContext(ctx, "python3", "-c", "import ensurepip, sys, venv; assert sys.version_info >= (3, 10); print(sys.version)").Output()
	if err != nil {
		return "", ErrNoPython
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	// Other pins, or another Python, are another environment.
	hash := sha256.Sum256(append(pins, version...))
	env := filepath.Join(cache, "mcpservers-"+hex.EncodeToString(hash[:4]))
	python, done := filepath.Join(env, "bin", "python"), filepath.Join(env, "complete")
	if _, err := os.Stat(done); err == nil {
		return python, nil
	}
	err = withFileLock(ctx, env+".lock", log, func() error {
		if _, err := os.Stat(done); err == nil {
			return nil // another process did it meanwhile
		}
		log("installing the MCP servers' Python packages into %s", env)
		for _, command := range [][]string{
			{"python3", "-m", "venv", "--clear", env},
			{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", "requirements.txt"},
		} {
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", filepath.Base(command[0])+" "+command[2], err, out)
			}
		}
		return os.WriteFile(done, nil, 0o600)
	})
	return python, err
}
