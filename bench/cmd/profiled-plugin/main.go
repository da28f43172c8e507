// Command profiled-plugin is the plugin in a process that can be profiled: Vault's API only profiles Vault's own
// process. It serves Go's profiles and counters on a socket.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"

	mcpoauth "github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth"
)

// sampled is the average number of bytes between two samples of the allocation profile. It is an eighth of Go's
// default, so that ten seconds of reads give thousands of samples.
const sampled = 64 << 10

// perSecond is the rate of the CPU profile in samples per second of a running thread. It is as high as Linux's timer
// allows: the plugin uses a small part of a CPU, and Go's default of 100 would give few samples.
const perSecond = 250

func main() {
	runtime.MemProfileRate = sampled
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	meta := &api.PluginAPIClientMeta{}
	flags := meta.FlagSet()
	socket := flags.String("profile-socket", "", "where to serve profiles")
	if err := flags.Parse(os.Args[1:]); err != nil {
		log.Error("bad arguments", "error", err)
		os.Exit(2)
	}
	err := plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
			// Vault starts short-lived processes of the plugin to get its type and version.
			if !pluginutil.InMetadataMode() {
				if err := serveProfiles(ctx, *socket); err != nil {
					return nil, err
				}
			}
			return mcpoauth.Factory(ctx, conf)
		},
		TLSProviderFunc: api.VaultPluginTLSProvider(meta.GetTLSConfig()),
		Logger:          log,
	})
	if err != nil {
		log.Error("the plugin could not be served", "error", err)
		os.Exit(1)
	}
}

func serveProfiles(ctx context.Context, socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/cpu", cpuProfile)
	mux.HandleFunc("/allocations", func(w http.ResponseWriter, _ *http.Request) { _ = pprof.Lookup("allocs").WriteTo(w, 0) })
	mux.HandleFunc("/counters", func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		_ = json.NewEncoder(w).Encode(map[string]uint64{
			"pid": uint64(os.Getpid()), "vault_pid": uint64(os.Getppid()), "objects": m.Mallocs, "bytes": m.TotalAlloc,
		})
	})
	go func() { _ = http.Serve(l, mux) }()
	return nil
}

// cpuProfile answers with a CPU profile of some seconds.
func cpuProfile(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.Atoi(r.FormValue("seconds"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// StartCPUProfile tries to set its own rate. The rate set here stays, and Go reports on standard error that it
	// cannot be changed.
	runtime.SetCPUProfileRate(perSecond)
	if err := pprof.StartCPUProfile(w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-r.Context().Done():
	}
	pprof.StopCPUProfile()
}
