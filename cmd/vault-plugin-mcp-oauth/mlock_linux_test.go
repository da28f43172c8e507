package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Only a privileged user may lock memory beyond the limit, which is 0 here.
func TestPluginThatMayNotLockItsMemoryNamesTheRemedy(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "vault-plugin-mcp-oauth")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, dir := range []string{filepath.Dir(binary), filepath.Dir(filepath.Dir(binary))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	plugin := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -l 0 && exec "$0"`, binary)
	plugin.Env = append(os.Environ(), "VAULT_PLUGIN_MLOCK_ENABLED=true")
	plugin.Dir = "/"
	if os.Getuid() == 0 {
		plugin.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := plugin.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the plugin ended with %v, want the exit status 1", err)
	}
	for _, want := range []string{`"@level":"error"`, "setcap cap_ipc_lock=+ep " + binary, "disable_mlock = true"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the plugin does not log %q:\n%s", want, out)
		}
	}
}
