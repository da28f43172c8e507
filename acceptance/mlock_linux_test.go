package acceptance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Vault locks its memory as an unprivileged user, with the capability on its file, as in its packages. The plugin's
// file needs the capability too, and Vault's log says so.
func TestPluginLocksItsMemory(t *testing.T) {
	t.Parallel()
	needs(t, bed.HashiCorpVault)
	dir := t.TempDir()
	plugins, vault, log := filepath.Join(dir, "plugins"), filepath.Join(dir, "vault"), filepath.Join(dir, "vault.log")
	for _, d := range []string{filepath.Dir(dir), dir, plugins} {
		bed.OK(t, os.MkdirAll(d, 0o755)) // readable for another user
		bed.OK(t, os.Chmod(d, 0o755))
	}
	if err := givesCapabilities(t, dir); err != nil {
		t.Logf("NOT RUN: it takes root and setcap to give files capabilities (%v). What the plugin logs, a unit test shows.", err)
		return
	}
	binary := bed.Must(bed.FindBinary(t.Context(), os.Getenv("VAULT_BIN"), t.Logf))(t)
	sum := bed.Must(bed.BuildPlugin(t.Context(), plugins, t.Logf))(t)
	plugin := filepath.Join(plugins, bed.PluginName)
	port := freePort(t)
	config := fmt.Sprintf("disable_mlock = false\napi_addr = \"http://127.0.0.1:%s\"\nplugin_directory = %q\nstorage \"inmem\" {}\n"+
		"listener \"tcp\" {\n  address = \"127.0.0.1:%[1]s\"\n  tls_disable = true\n}\n", port, plugins)
	bed.OK(t, os.WriteFile(filepath.Join(dir, "vault.hcl"), []byte(config), 0o644))
	command := func(name string, args ...string) {
		t.Helper()
		output(t, exec.CommandContext(t.Context(), name, args...))
	}
	command("cp", binary.Path, vault)
	command("chmod", "755", vault, plugin)
	command("setcap", "cap_ipc_lock=+ep", vault)

	output := bed.Must(os.Create(log))(t)
	defer output.Close()
	server := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -l 64 && exec "$0" "$@"`, vault, "server", "-config="+filepath.Join(dir, "vault.hcl"))
	server.Dir, server.Stdout, server.Stderr = dir, output, output
	server.SysProcAttr = asNobody
	server.Cancel = func() error { return server.Process.Signal(syscall.SIGTERM) }
	server.WaitDelay = 20 * time.Second
	bed.OK(t, server.Start())
	t.Cleanup(func() { _ = server.Wait() })
	logged := func() string {
		t.Helper()
		content := bed.Must(os.ReadFile(log))(t)
		return string(content)
	}

	settings := api.DefaultConfig()
	settings.Address, settings.AgentAddress = "http://127.0.0.1:"+port, ""
	client := bed.Must(api.NewClient(settings))(t)
	client.ClearToken()
	var opened *api.InitResponse
	bed.Eventually(t, time.Minute, func() (err error) {
		opened, err = client.Sys().InitWithContext(t.Context(), &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
		return err
	})
	bed.Must(client.Sys().UnsealWithContext(t.Context(), opened.KeysB64[0]))(t)
	client.SetToken(opened.RootToken)
	bed.Eventually(t, time.Minute, func() error {
		return client.Sys().RegisterPluginWithContext(t.Context(), &api.RegisterPluginInput{
			Name: bed.PluginName, Type: api.PluginTypeSecrets, Command: bed.PluginName, SHA256: sum,
		})
	})

	enable := func() error {
		return client.Sys().MountWithContext(t.Context(), bed.Mount, &api.MountInput{Type: bed.PluginName})
	}
	bed.WantError(t, enable(), "Unrecognized remote plugin message")
	bed.WantText(t, "Vault's log", logged(), "setcap cap_ipc_lock=+ep "+plugin, "disable_mlock")
	command("setcap", "cap_ipc_lock=+ep", plugin)
	if err := enable(); err != nil {
		t.Errorf("the engine with the capability: %v\n%s", err, logged())
	}
}

// asNobody runs a command as an unprivileged user.
var asNobody = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}

// givesCapabilities returns an error unless a file in the directory can get the capability to lock memory. Root in a
// container may not be allowed to set it, and a nosuid mount ignores it.
func givesCapabilities(t *testing.T, dir string) error {
	t.Helper()
	const ipcLock = 14 // its number, in capabilities(7)
	probe := filepath.Join(dir, "cat")
	for _, command := range []string{`cp "$(command -v cat)" "$0"`, `chmod 755 "$0"`, `setcap cap_ipc_lock=+ep "$0"`} {
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", command, probe).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(out)))
		}
	}
	cmd := exec.CommandContext(t.Context(), probe, "/proc/self/status")
	cmd.SysProcAttr = asNobody
	status, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run a file that has the capability: %w", err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:")
	line, _, _ := strings.Cut(rest, "\n")
	effective, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err == nil && effective&(1<<ipcLock) == 0 {
		err = errors.New("the file's capability has no effect")
	}
	return err
}
