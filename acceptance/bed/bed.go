// Package bed starts and stops the real parts of the acceptance tests and the demo on loopback: Vault with the
// plugin, Vault Agent, an authorization server, MCP servers and brokers.
//
// Processes end with the process that started them (on Linux even if it is killed). All files are in one temporary
// directory. When it closes, a bed scans all logs and error texts for client secrets and access tokens, and reports
// each as an error.
package bed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// ErrNotFound is a 404, for which Vault's client returns no error.
var ErrNotFound = errors.New("not found (404)")

// A Bed is a Vault with the plugin in its catalog and AppRole logins, and an authorization server.
type Bed struct {
	Dir   string  // temporary; removed by Close or, if the process ends early, by the next bed
	Vault *Vault  // used by clients: behind a balancer if there are several nodes
	Nodes []*Node // the servers behind Vault
	// Standbys is the cluster behind a balancer that prefers standbys; nil for a single node.
	Standbys *Vault
	AS       *AuthorizationServer
	Secrecy  *Secrecy

	PluginSHA256 string // of the plugin's binary, for Vault's catalog

	log    func(format string, args ...any)
	errors *errorLog
	temp   *tempDir

	mu      sync.Mutex
	closers []func() error // in the order of their start
	names   map[string]int // number of uses of each name
}

// Options are a bed's options.
type Options struct {
	// Log logs the progress of slow steps. Default: to standard error.
	Log func(format string, args ...any)

	// Bare skips registering and enabling the plugin and AppRole logins. The caller does it.
	Bare bool

	// Nodes is the number of Vault servers. Default: 1.
	Nodes int

	// LogLevel is Vault's. Default: trace, for the scan for secrets. At this level Vault logs each call of a plugin,
	// which distorts measurements.
	LogLevel string

	// Config is appended to each server's configuration.
	Config string

	// Process1 makes Vault process 1 of a new process namespace, as in a container. If the system does not allow it,
	// Start returns errors.ErrUnsupported.
	Process1 bool
}

// Start starts a bed. The caller must call Close.
func Start(ctx context.Context, opts Options) (_ *Bed, err error) {
	b := &Bed{Secrecy: new(Secrecy), log: opts.Log, names: make(map[string]int)}
	if b.log == nil {
		b.log = func(format string, args ...any) { fmt.Fprintf(os.Stderr, "bed: "+format+"\n", args...) }
	}
	if b.temp, err = newTempDir(); err != nil {
		return nil, err
	}
	b.Dir = b.temp.path
	defer func() {
		if err != nil {
			if tails := b.LogTails(20); tails != "" {
				err = fmt.Errorf("%w\n%s", err, tails)
			}
			err = errors.Join(err, b.stop(), b.temp.remove())
		}
	}()
	plugins := b.PluginDir()
	for _, dir := range []string{b.LogDir(), plugins} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if b.errors, err = newErrorLog(filepath.Join(b.LogDir(), "errors.log")); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.errors.close)

	if b.PluginSHA256, err = BuildPlugin(ctx, plugins, b.log); err != nil {
		return nil, err
	}
	if err := b.startAuthorizationServer(ctx); err != nil {
		return nil, err
	}
	if err := b.startVault(ctx, plugins, opts); err != nil {
		return nil, err
	}
	if opts.Bare {
		return b, nil
	}
	return b, b.setUp(ctx)
}

func (b *Bed) startAuthorizationServer(ctx context.Context) error {
	source, err := InstallPackages(ctx, "as", b.log)
	if err != nil {
		return err
	}
	b.AS, err = startAuthorizationServer(ctx, source, b.Dir, filepath.Join(b.LogDir(), "as.log"), b.Secrecy)
	if err != nil {
		return err
	}
	b.onClose(b.AS.close)
	return nil
}

func (b *Bed) startVault(ctx context.Context, plugins string, opts Options) error {
	binary, err := FindBinary(ctx, os.Getenv("VAULT_BIN"), b.log)
	if err != nil {
		return err
	}
	count := max(1, opts.Nodes)
	for i := range count {
		id := "vault"
		if count > 1 {
			id = fmt.Sprintf("vault-%d", i+1)
		}
		node := &Node{
			Vault: &Vault{
				Binary: binary.Path, Product: binary.Product, Version: binary.Version,
				AuditLog: filepath.Join(b.LogDir(), "vault-audit.log"), home: filepath.Join(b.Dir, id), errors: b.errors,
			},
			ID: id, Log: filepath.Join(b.LogDir(), id+".log"), dir: filepath.Join(b.Dir, id), pluginDir: plugins,
			peers: b.Nodes, clustered: count > 1, logLevel: cmp.Or(opts.LogLevel, "trace"),
			process1: opts.Process1, more: opts.Config,
		}
		if err := node.start(ctx); err != nil {
			return err
		}
		b.Nodes = append(b.Nodes, node)
		b.onClose(node.close)
	}
	if count == 1 {
		b.Vault = b.Nodes[0].Vault
		return nil
	}
	return b.startCluster(ctx)
}

// setUp sets up the plugin and AppRole logins in Vault.
func (b *Bed) setUp(ctx context.Context) error {
	root, err := b.Vault.Root()
	if err != nil {
		return err
	}
	err = root.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: PluginName, Type: api.PluginTypeSecrets, Command: PluginName, SHA256: b.PluginSHA256,
	})
	if err != nil {
		return fmt.Errorf("register the plugin: %w", err)
	}
	if err := root.Sys().MountWithContext(ctx, Mount, &api.MountInput{Type: PluginName}); err != nil {
		return fmt.Errorf("enable the plugin: %w", err)
	}
	if err := Poll(ctx, 60*time.Second, func() error { return b.Mounted(ctx) }); err != nil {
		return err
	}
	err = root.Sys().EnableAuthWithOptionsWithContext(ctx, "approle", &api.EnableAuthOptions{Type: "approle"})
	if err != nil {
		return fmt.Errorf("enable AppRole logins: %w", err)
	}
	return nil
}

// NewMCPServer starts an MCP server as a resource of the authorization server, with r's scopes and lifetime.
func (b *Bed) NewMCPServer(ctx context.Context, r Resource, opts MCPOptions) (*MCPServer, error) {
	s, err := b.NewMCPServerOf(ctx, b.AS.issuer(), strings.Fields(r.Scope), opts)
	if err != nil {
		return nil, err
	}
	r.URL = s.URL
	return s, b.AS.SetResource(ctx, r)
}

// NewMCPServerOf starts an MCP server for tokens of another authorization server. Its metadata has the scopes.
func (b *Bed) NewMCPServerOf(ctx context.Context, issuer Issuer, scopes []string, opts MCPOptions) (*MCPServer, error) {
	s, err := startMCPServer(ctx, issuer, scopes, opts, b.Secrecy)
	if err != nil {
		return nil, err
	}
	b.onClose(s.close)
	return s, nil
}

// NewAgent starts a Vault Agent for id that renders the token at path below the mount.
func (b *Bed) NewAgent(id *Identity, path string) (*Agent, error) {
	name := b.unique("agent-" + id.Name)
	log := filepath.Join(b.LogDir(), name+".log")
	a, err := startAgent(b.Vault, filepath.Join(b.Dir, name), log, id, Mount+"/"+path)
	if err != nil {
		return nil, err
	}
	b.onClose(a.close)
	return a, nil
}

// NewBroker returns a broker of the MCP server that uses the authorization value in a file.
func (b *Bed) NewBroker(s *MCPServer, file string) *Broker {
	broker := &Broker{endpoint: s.URL, secrecy: b.Secrecy, errors: b.errors, header: func() (string, error) {
		content, err := os.ReadFile(file)
		return strings.TrimSpace(string(content)), err
	}}
	b.onClose(broker.close)
	return broker
}

// Log logs the progress of a slow step.
func (b *Bed) Log(format string, args ...any) { b.log(format, args...) }

// LogDir holds the logs of all parts, the audit log and the error texts seen.
func (b *Bed) LogDir() string { return filepath.Join(b.Dir, "logs") }

// PluginDir is Vault's plugin directory.
func (b *Bed) PluginDir() string { return filepath.Join(b.Dir, "plugins") }

// LogTails returns the last lines of each log, without secrets and tokens.
func (b *Bed) LogTails(lines int) string {
	files, _ := filepath.Glob(filepath.Join(b.LogDir(), "*.log"))
	var out strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil || len(content) == 0 {
			continue
		}
		all := strings.Split(strings.TrimSpace(string(content)), "\n")
		all = all[max(0, len(all)-lines):]
		tail := b.Secrecy.Redact([]byte(strings.Join(all, "\n")))
		fmt.Fprintf(&out, "--- %s, last %d lines\n%s\n", filepath.Base(file), len(all), tail)
	}
	return out.String()
}

// Close stops all parts, scans all logs for secrets and tokens, and removes the directory. Each finding is an
// error.
func (b *Bed) Close() (ScanReport, error) {
	err := b.stop()
	report, scanErr := b.Secrecy.Scan(b.LogDir())
	for _, leak := range report.Leaks {
		scanErr = errors.Join(scanErr, errors.New("secret in the clear: "+leak))
	}
	return report, errors.Join(err, scanErr, b.temp.remove())
}

func (b *Bed) onClose(f func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers = append(b.closers, f)
}

// unique returns name, with a number from its second use on.
func (b *Bed) unique(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.names[name]++
	if n := b.names[name]; n > 1 {
		return fmt.Sprintf("%s-%d", name, n)
	}
	return name
}

func (b *Bed) stop() error {
	b.mu.Lock()
	closers := b.closers
	b.closers = nil
	b.mu.Unlock()
	var err error
	for i := len(closers) - 1; i >= 0; i-- {
		err = errors.Join(err, closers[i]())
	}
	return err
}
