// Command vault-plugin-mcp-oauth is the plugin process that Vault starts.
package main

import (
	"errors"
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	mcpoauth "github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version"
)

func main() {
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	parent := os.Getppid()

	meta := &api.PluginAPIClientMeta{}
	flags := meta.FlagSet()
	showVersion := flags.Bool("version", false, "print the plugin's version and exit")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(0)
		}
		log.Error("bad arguments", "error", err)
		os.Exit(2)
	}
	if *showVersion {
		os.Stdout.WriteString(version.String() + "\n")
		return
	}

	if err := lockMemory(); err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
	reserve := collectSooner()
	go exitWithParent(parent, log)
	// One process serves all mounts of the plugin. TLSProviderFunc is for Vault
	// versions that do not set up mutual TLS with the plugin by themselves.
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: mcpoauth.Factory,
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
		Logger:             log,
	})
	runtime.KeepAlive(reserve)
	if err != nil {
		log.Error("the plugin could not be served", "error", err)
		os.Exit(1)
	}
}

// gcPercent is the garbage at which Go collects, in percent of the heap in use. With Go's default of 100,
// listing or refreshing 10,000 tokens takes the process above 100 MiB.
const gcPercent = 50

// collectSooner sets gcPercent unless the operator has set GOGC. The caller keeps the reserve: it counts as heap in
// use, so a process with few tokens has as much room for garbage as with Go's default. Without it, warm reads would
// collect more often. It is never written, so it takes memory only if the process locks its memory.
func collectSooner() (reserve []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, 4<<20)
}

// exitWithParent ends the process if Vault ended without stopping it, for example by SIGKILL.
func exitWithParent(parent int, log hclog.Logger) {
	waitForOrphanage(parent, os.Getppid, time.Tick(time.Second))
	log.Warn("Vault's process has ended: the plugin exits")
	os.Exit(0)
}

// waitForOrphanage returns when the parent process has changed. A comparison with process 1 would be wrong: in a
// container that is Vault.
func waitForOrphanage(parent int, getppid func() int, tick <-chan time.Time) {
	for range tick {
		if getppid() != parent {
			return
		}
	}
}
