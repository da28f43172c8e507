package bed

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
)

// ErrNoPython means that this machine lacks a Python for the MCP servers.
var ErrNoPython = errors.New("there is no python3 of version 3.10 or newer with venv on this machine")

// installPython installs the packages for the MCP servers in Python, as acceptance/mcpservers pins them. It returns
// the interpreter, or ErrNoPython.
func installPython(ctx context.Context, log func(format string, args ...any)) (string, error) {
	dir, err := SourcePath("acceptance", "mcpservers")
	if err != nil {
		return "", err
	}
	pin, err := ReadFiles(dir, "requirements.txt", "constraints.txt")
	if err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, "python3", "-c", "import ensurepip, sys, venv; assert sys.version_info >= (3, 10); print(sys.version)").Output()
	if err != nil {
		return "", ErrNoPython
	}
	return PythonWith(ctx, "mcp-servers", append(pin, version...), log, "--requirement", filepath.Join(dir, "requirements.txt"))
}

// PythonWith returns the interpreter of a virtual environment in the user's cache directory, which pip fills once for
// each pin. Run the environment's scripts with this interpreter: their first lines name the directory of the build.
func PythonWith(ctx context.Context, name string, pin []byte, log func(string, ...any), pipArgs ...string) (string, error) {
	python := func(dir string) string { return filepath.Join(dir, "bin", "python") }
	dir, err := Cached(ctx, name+"-", pin, log, func(dir string) error {
		log("installing the Python packages of %s once", name)
		install := append([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check"}, pipArgs...)
		if err := Run(exec.CommandContext(ctx, "python3", "-m", "venv", dir)); err != nil {
			return err
		}
		return Run(exec.CommandContext(ctx, python(dir), install...))
	})
	return python(dir), err
}
