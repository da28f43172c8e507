package bed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
)

// A Node is a Vault server on loopback with raft storage. It can be stopped, killed and restarted with the same data
// and addresses.
type Node struct {
	*Vault // at the node's own address

	ID  string // in raft
	Log string // path of the log of the server and the plugin

	dir       string // config and data
	pluginDir string
	peers     []*Node // nodes to join; empty for the first node
	clustered bool    // one of several nodes
	logLevel  string  // of Vault
	more      string  // of the server's configuration
	process1  bool
	unsealKey string
	proc      atomic.Pointer[Process] // the last started process; nil before the first
}

func (n *Node) start(ctx context.Context) error {
	for _, dir := range []string{n.data(), n.temp()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	// Another process may take a free port before Vault does.
	var err error
	for range 3 {
		if err = n.configure(); err != nil {
			return err
		}
		if err = n.launch(ctx); err == nil || errors.Is(err, errors.ErrUnsupported) {
			break
		}
	}
	if err != nil {
		return err
	}
	if len(n.peers) == 0 {
		err = n.initialise(ctx)
	} else {
		n.RootToken, n.unsealKey = n.peers[0].RootToken, n.peers[0].unsealKey
		err = n.Unseal(ctx)
	}
	if err != nil {
		return errors.Join(err, n.Stop())
	}
	return nil
}

// configure picks ports and writes the server's configuration. A node keeps its ports, because raft identifies nodes
// by address.
func (n *Node) configure() error {
	ports, err := FreePorts(2)
	if err != nil {
		return err
	}
	n.Address = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	join := ""
	for _, peer := range n.peers {
		join += fmt.Sprintf("  retry_join {\n    leader_api_addr = %q\n  }\n", peer.Address)
	}
	config := fmt.Sprintf(`disable_mlock = true
api_addr = %q
cluster_addr = "https://127.0.0.1:%d"
plugin_directory = %q

storage "raft" {
  path = %q
  node_id = %q
  performance_multiplier = 1
%s}

listener "tcp" {
  address = "127.0.0.1:%d"
  cluster_address = "127.0.0.1:%[2]d"
  tls_disable = true
}
%[8]s`, n.Address, ports[1], n.pluginDir, n.data(), n.ID, join, ports[0], n.moreConfig())
	return os.WriteFile(n.config(), []byte(config), 0o600)
}

// moreConfig returns the optional part of the configuration.
func (n *Node) moreConfig() string {
	if n.Product != OpenBao {
		return n.more
	}
	// OpenBao accepts an audit device only from its configuration.
	return fmt.Sprintf("audit \"file\" \"file\" {\n  options {\n    file_path = %q\n  }\n}\n%s", n.AuditLog, n.more)
}

func (n *Node) config() string { return filepath.Join(n.dir, "vault.hcl") }
func (n *Node) data() string   { return filepath.Join(n.dir, "raft") }
func (n *Node) temp() string   { return filepath.Join(n.dir, "tmp") }

// launch starts the process and waits until its API answers.
func (n *Node) launch(ctx context.Context) error {
	cmd := exec.Command(n.Binary, "server", "-config="+n.config(), "-log-level="+n.logLevel)
	// A killed plugin leaves its socket in this directory.
	cmd.Env = append(cleanEnviron(), "TMPDIR="+n.temp())
	if n.process1 {
		if err := asProcess1(cmd); err != nil {
			return err
		}
	}
	proc, err := startProcess("vault", cmd, n.Log)
	if n.process1 && errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return err
	}
	n.proc.Store(proc)
	client, err := n.Client("")
	if err != nil {
		return err
	}
	err = Poll(ctx, 30*time.Second, func() error {
		if proc.ended() {
			return stopPolling{fmt.Errorf("vault ended at start: %w", proc.err)}
		}
		_, err := client.Sys().SealStatusWithContext(ctx)
		return err
	})
	if err != nil {
		proc.Kill()
		return fmt.Errorf("vault did not come up, see %s: %w", n.Log, err)
	}
	return nil
}

func (n *Node) initialise(ctx context.Context) error {
	client, err := n.Client("")
	if err != nil {
		return err
	}
	init, err := client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("initialise vault: %w", err)
	}
	n.RootToken, n.unsealKey = init.RootToken, init.KeysB64[0]
	if err := n.Unseal(ctx); err != nil {
		return err
	}
	if n.Product == OpenBao {
		return nil // the configuration contains the audit log
	}
	root, err := n.Root()
	if err != nil {
		return err
	}
	err = root.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": n.AuditLog},
	})
	if err != nil {
		return fmt.Errorf("enable the audit log: %w", err)
	}
	return nil
}

// Unseal unseals the node and waits until it is active or a standby.
func (n *Node) Unseal(ctx context.Context) error {
	client, err := n.Client("")
	if err != nil {
		return err
	}
	// A joining node can be unsealed only after the other nodes have contacted it.
	err = Poll(ctx, 30*time.Second, func() error {
		_, err := client.Sys().UnsealWithContext(ctx, n.unsealKey)
		return err
	})
	if err != nil {
		return fmt.Errorf("unseal vault: %w", err)
	}
	return Poll(ctx, 60*time.Second, func() error { return n.ready(ctx, client) })
}

// ready returns an error if the node does not serve requests.
func (n *Node) ready(ctx context.Context, client *api.Client) error {
	health, err := client.Sys().HealthWithContext(ctx)
	if err != nil {
		return err
	}
	if health.Sealed {
		return fmt.Errorf("%s is sealed", n.ID)
	}
	if !health.Standby {
		return nil
	}
	if !n.clustered {
		return fmt.Errorf("%s is not active", n.ID)
	}
	leader, err := client.Sys().LeaderWithContext(ctx)
	if err == nil && leader.LeaderAddress == "" {
		err = fmt.Errorf("%s knows no active node", n.ID)
	}
	return err
}

// Start starts a stopped or killed server again and unseals it.
func (n *Node) Start(ctx context.Context) error {
	if err := n.launch(ctx); err != nil {
		return err
	}
	return n.Unseal(ctx)
}

// WithoutPlugin restarts the server with an empty plugin directory.
func (n *Node) WithoutPlugin(ctx context.Context) error {
	empty := filepath.Join(n.dir, "no-plugins")
	if err := os.MkdirAll(empty, 0o700); err != nil {
		return err
	}
	return n.Reconfigure(ctx, n.pluginDir, empty)
}

// Reconfigure restarts the server with part of its configuration replaced.
func (n *Node) Reconfigure(ctx context.Context, part, with string) error {
	if err := n.Stop(); err != nil {
		return err
	}
	config, err := os.ReadFile(n.config())
	if err != nil {
		return err
	}
	if !bytes.Contains(config, []byte(part)) {
		return fmt.Errorf("the configuration of %s has no %s", n.ID, part)
	}
	if err := os.WriteFile(n.config(), bytes.Replace(config, []byte(part), []byte(with), 1), 0o600); err != nil {
		return err
	}
	return n.Start(ctx)
}

// Stop ends the server cleanly.
func (n *Node) Stop() error {
	if proc := n.proc.Load(); proc != nil {
		return proc.Stop()
	}
	return nil
}

// Kill ends the server with SIGKILL, and leaves the plugin running.
func (n *Node) Kill() { n.proc.Load().Kill() }

// PID is the id of the server's process.
func (n *Node) PID() int { return n.proc.Load().PID() }

// PluginPID returns the id of the plugin's process on the node, or 0 if it is not running.
func (n *Node) PluginPID() (int, error) {
	pids, err := children(n.PID(), PluginName)
	if err != nil || len(pids) == 0 {
		return 0, err
	}
	if len(pids) > 1 {
		return 0, fmt.Errorf("%s runs %d plugin processes", n.ID, len(pids))
	}
	return pids[0], nil
}

// KillPlugin ends the plugin's process with SIGKILL and returns its id.
func (n *Node) KillPlugin() (pid int, err error) {
	pid, err = n.PluginPID()
	if err == nil && pid == 0 {
		err = fmt.Errorf("%s runs no plugin", n.ID)
	}
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	return pid, err
}

// close stops the server and its remaining processes.
func (n *Node) close() error {
	err := n.Stop()
	if proc := n.proc.Load(); proc != nil {
		proc.killGroup()
	}
	return err
}

var givenPorts sync.Map

// FreePorts returns n free loopback ports, and never the same port twice. They are below the kernel's own choices
// (32768 and above on Linux), so a stopped server can use its port again.
func FreePorts(n int) ([]int, error) {
	var ports []int
	var last error
	for tries := 0; len(ports) < n; tries++ {
		if tries > 1000 {
			return nil, fmt.Errorf("no free ports: %w", last)
		}
		port := 10000 + rand.IntN(22768)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
