package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// warmUp is the duration of reads before each measurement.
const warmUp = 2 * time.Second

// A results is everything measured.
type results struct {
	Environment measure.Environment `json:"environment"`
	Options     options             `json:"options"`
	Profiled    window              `json:"profiled"` // with an audit log, during the profiles
	// CPU per read by layer, in µs, out of the processes' CPU.
	Vault  []share `json:"vault_cpu_us"`
	Plugin []share `json:"plugin_cpu_us"`
	// The plugin's allocations per read.
	Objects    float64 `json:"plugin_objects_per_read"`
	Bytes      float64 `json:"plugin_bytes_per_read"`
	ObjectsBy  []share `json:"plugin_objects"`
	BytesBy    []share `json:"plugin_bytes"`
	ASRequests int     `json:"authorization_server_requests"` // in total, including the first token's
}

// A window is a period of reading.
type window struct {
	Reads      int     `json:"reads"`
	Throughput float64 `json:"reads_per_second"`
	// The processes' CPU per read, in µs.
	Vault   float64 `json:"vault_cpu_us"`
	Plugin  float64 `json:"plugin_cpu_us"`
	Readers float64 `json:"readers_cpu_us"`
}

func (w window) all() float64 { return w.Vault + w.Plugin + w.Readers }

func (s *stage) measure(ctx context.Context) (*results, error) {
	r := &results{Options: s.options}
	var err error
	if r.Environment, err = measure.Here(ctx, s.root); err != nil {
		return nil, err
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	if _, err := measure.Read(ctx, warmUp, s.readers); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "profile: %d times %s with profiles\n", s.Windows, s.Duration)
	if err := s.profile(ctx, r); err != nil {
		return nil, err
	}
	requests, err := s.bed.AS.Requests(ctx, name)
	r.ASRequests = len(requests)
	return r, err
}

// window makes the readers read for s.Duration while meanwhile runs.
func (s *stage) window(ctx context.Context, meanwhile func(context.Context) error) (w window, err error) {
	c, err := s.counters(ctx)
	if err != nil {
		return w, err
	}
	pids := [...]int{c.VaultPID, c.PID, os.Getpid()}
	var used [len(pids)]time.Duration
	count := func(sign time.Duration) error {
		for i, pid := range pids {
			cpu, err := measure.CPU(pid)
			if err != nil {
				return err
			}
			used[i] += sign * cpu
		}
		return nil
	}
	if err := count(-1); err != nil {
		return w, err
	}
	group, inner := errgroup.WithContext(ctx)
	var seen []measure.Series
	group.Go(func() (err error) {
		seen, err = measure.Read(inner, s.Duration, s.readers)
		return err
	})
	group.Go(func() error { return meanwhile(inner) })
	if err := group.Wait(); err != nil {
		return w, err
	}
	if err := errors.Join(count(+1), ctx.Err()); err != nil {
		return w, err
	}
	w.Reads = len(seen[0].Latencies)
	w.Throughput = seen[0].Throughput()
	for i, of := range []*float64{&w.Vault, &w.Plugin, &w.Readers} {
		*of = float64(used[i].Microseconds()) / float64(w.Reads)
	}
	// Otherwise the log would grow by some gigabytes.
	return w, os.Truncate(s.bed.Vault.AuditLog, 0)
}

// profile profiles Vault and the plugin together, in several windows, because Vault limits the duration of a request
// for a profile.
func (s *stage) profile(ctx context.Context, r *results) error {
	var vault, plugin [][]byte
	seconds := int(s.Duration.Seconds()) - 1 // so that readers read during the whole profile
	allocationsBefore, err := s.fromPlugin(ctx, "allocations")
	if err != nil {
		return err
	}
	before, err := s.counters(ctx)
	if err != nil {
		return err
	}
	var windows []window
	for range s.Windows {
		var ofVault, ofPlugin []byte
		w, err := s.window(ctx, func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() (err error) {
				ofVault, err = s.vaultProfile(ctx, seconds)
				return err
			})
			group.Go(func() (err error) {
				ofPlugin, err = s.fromPlugin(ctx, fmt.Sprintf("cpu?seconds=%d", seconds))
				return err
			})
			return group.Wait()
		})
		if err != nil {
			return err
		}
		windows = append(windows, w)
		vault, plugin = append(vault, ofVault), append(plugin, ofPlugin)
	}
	r.Profiled = together(windows)
	after, err := s.counters(ctx)
	if err != nil {
		return err
	}
	allocationsAfter, err := s.fromPlugin(ctx, "allocations")
	if err != nil {
		return err
	}
	if after.PID != before.PID {
		return errors.New("the plugin's process has ended meanwhile")
	}
	r.Objects = float64(after.Objects-before.Objects) / float64(r.Profiled.Reads)
	r.Bytes = float64(after.Bytes-before.Bytes) / float64(r.Profiled.Reads)

	vaultCPU, err := merge(vault)
	if err != nil {
		return err
	}
	pluginCPU, err := merge(plugin)
	if err != nil {
		return err
	}
	allocations, err := parse(allocationsAfter, allocationsBefore)
	if err != nil {
		return err
	}
	if err := s.keep(map[string]*profile.Profile{"vault": vaultCPU, "plugin": pluginCPU, "plugin-allocations": allocations}); err != nil {
		return err
	}
	for _, row := range []struct {
		to        *[]share
		of        *profile.Profile
		valueType string
		layers    []layer
		total     float64
	}{
		{&r.Vault, vaultCPU, "cpu", vaultLayers, r.Profiled.Vault},
		{&r.Plugin, pluginCPU, "cpu", pluginLayers, r.Profiled.Plugin},
		{&r.ObjectsBy, allocations, "alloc_objects", pluginLayers, r.Objects},
		{&r.BytesBy, allocations, "alloc_space", pluginLayers, r.Bytes},
	} {
		if *row.to, err = attribute(row.of, row.valueType, row.layers, row.total); err != nil {
			return err
		}
	}
	return nil
}

// together combines several windows.
func together(windows []window) (all window) {
	for _, w := range windows {
		all.Reads += w.Reads
		all.Throughput += w.Throughput / float64(len(windows))
	}
	for _, w := range windows {
		part := float64(w.Reads) / float64(all.Reads)
		all.Vault += part * w.Vault
		all.Plugin += part * w.Plugin
		all.Readers += part * w.Readers
	}
	return all
}

// keep writes the profiles to files.
func (s *stage) keep(profiles map[string]*profile.Profile) error {
	if s.profiles == "" {
		return nil
	}
	if err := os.MkdirAll(s.profiles, 0o755); err != nil {
		return err
	}
	for name, p := range profiles {
		var out bytes.Buffer
		if err := p.Write(&out); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.profiles, name+".pprof"), out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
