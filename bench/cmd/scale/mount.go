package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

// clients is the number of concurrent requests to Vault.
const clients = 16

// mountReport holds all figures.
type mountReport struct {
	Steps       []step         `json:"steps"`
	Written     float64        `json:"configs_written_per_second"`
	Fetched     float64        `json:"tokens_fetched_per_second"`
	Idle        use            `json:"cpu_with_no_token_due"`
	IdleOfOne   use            `json:"cpu_with_no_token_due_and_one_config"`
	Busy        use            `json:"cpu_with_tokens_of_an_hour"`
	Rest        seconds        `json:"rest"` // wait before memory at rest was read
	AtRest      measure.Memory `json:"memory_at_rest"`
	AtRestOfOne measure.Memory `json:"memory_at_rest_with_one_config"`
	AtWork      measure.Memory `json:"memory_with_tokens_of_an_hour"` // with the peak while all were replaced
	WritePeak   int64          `json:"peak_memory_while_writing"`     // for the second half of the configs
	Requests    []asked        `json:"requests"`

	Outages []*outage `json:"outages"`
}

// step holds the figures for one number of configs, each with a token.
type step struct {
	Configs int            `json:"configs"`
	First   float64        `json:"first_answer"` // from the end of the plugin's process
	Mounted float64        `json:"mounted"`      // from unsealing Vault to the first answer
	Loaded  float64        `json:"all_timers_set"`
	LoadCPU float64        `json:"load_cpu"`
	Fetched measure.Memory `json:"memory_after_fetching"`
	Memory  measure.Memory `json:"memory_after_restart"`
}

// asked is a request for all names, made several times.
type asked struct {
	What    string  `json:"what"`
	AtOnce  int     `json:"at_once"` // number of concurrent requests
	Seconds float64 `json:"seconds"`
	Bytes   int     `json:"bytes"`
	Peak    int64   `json:"peak_memory"` // of the plugin's process
}

// use is the CPU time of the plugin's process while idle.
type use struct {
	Lifetime  seconds `json:"token_lifetime"`
	Over      seconds `json:"watched"`
	CPU       seconds `json:"cpu"`
	Refreshes int64   `json:"refreshes"` // of tokens that became due meanwhile
}

// share of one CPU.
func (u use) share() float64 { return float64(u.CPU) / float64(u.Over) }

// mount is the plugin on a real Vault, with an authorization server.
type mount struct {
	bed     *bed.Bed
	node    *bed.Node
	issuer  *issuer
	http    *http.Client
	configs int // number of configs, each with a token

	alone time.Time // start of the idle period
}

func startMount(ctx context.Context) (*mount, error) {
	b, err := bed.Start(ctx, bed.Options{LogLevel: "info"})
	if err != nil {
		return nil, err
	}
	return &mount{
		bed:    b,
		node:   b.Nodes[0],
		issuer: startIssuer(),
		http:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}},
	}, nil
}

func (m *mount) close() error {
	_, err := m.bed.Close()
	m.issuer.Close()
	return err
}

// errStatus is an answer other than 2xx.
type errStatus struct {
	method, path string
	status       int
}

func (e *errStatus) Error() string { return fmt.Sprintf("%s %s: HTTP %d", e.method, e.path, e.status) }

// do makes a request to Vault's API as root.
func (m *mount) do(ctx context.Context, method, path string, data map[string]any) ([]byte, error) {
	body, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, m.node.Address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", m.node.RootToken)
	resp, err := m.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = &errStatus{method, path, resp.StatusCode}
	}
	return answer, err
}

// server returns the name of a config. Names sort by number, and tokens are loaded in the order in which Vault lists
// them.
func server(i int) string { return fmt.Sprintf("%s%06d", serverPrefix, i) }

const serverPrefix = "server-"

func (m *mount) measure(ctx context.Context, o options) (*mountReport, error) {
	r := &mountReport{Rest: o.Rest}
	var writing, fetching time.Duration
	steps := slices.Compact([]int{1, max(1, o.Configs/4), max(1, o.Configs/2), o.Configs})
	for i, configs := range steps {
		begun := time.Now()
		if err := m.each(ctx, configs, m.write); err != nil {
			return nil, err
		}
		writing += time.Since(begun)
		if i == len(steps)-1 {
			written, err := m.memory()
			if err != nil {
				return nil, err
			}
			r.WritePeak = written.Peak
			if err := r.ask(ctx, m, "list of `status/`, half of the names never read", listOf("status/")); err != nil {
				return nil, err
			}
		}
		if err := m.forgetPeak(); err != nil {
			return nil, err
		}
		begun = time.Now()
		if err := m.each(ctx, configs, m.fetch); err != nil {
			return nil, err
		}
		fetching += time.Since(begun)
		m.configs = configs
		s, err := m.step(ctx, o)
		if err != nil {
			return nil, err
		}
		r.Steps = append(r.Steps, s)
		if i == 0 {
			m.alone = time.Now()
			if r.IdleOfOne, err = m.watch(ctx, restLifetime, o); err != nil {
				return nil, err
			}
			if r.AtRestOfOne, err = m.memoryAtRest(ctx, o); err != nil {
				return nil, err
			}
		}
	}
	r.Written = float64(m.configs) / writing.Seconds()
	r.Fetched = float64(m.configs) / fetching.Seconds()
	return r, m.atFullScale(ctx, o, r)
}

// atFullScale measures lists, metrics and idleness with all configs.
func (m *mount) atFullScale(ctx context.Context, o options, r *mountReport) (err error) {
	for _, q := range []struct {
		what string
		request
	}{
		{"list of `config/`", listOf("config/")},
		{"list of `status/`", listOf("status/")},
		{"`metrics`", request{http.MethodGet, "metrics"}},
	} {
		if err := r.ask(ctx, m, q.what, q.request); err != nil {
			return err
		}
	}
	m.alone = time.Now()
	if err := m.forgetPeak(); err != nil {
		return err
	}
	r.Idle, err = m.watch(ctx, restLifetime, o)
	return err
}

// busy watches the process while tokens of an hour become due, evenly over the three quarters of an hour after which
// each is refreshed, as after some time in use.
//
// For this, all tokens are first replaced by tokens that live for two minutes to an hour. Their successors live for
// an hour.
func (m *mount) busy(ctx context.Context, o options) (use, error) {
	m.issuer.setLifetimes(leastLifetime, busyLifetime)
	if err := m.forgetPeak(); err != nil {
		return use{}, err
	}
	if err := m.all(ctx, func(ctx context.Context, i int) error { return m.replace(ctx, server(i)) }); err != nil {
		return use{}, err
	}
	m.issuer.setLifetimes(busyLifetime, busyLifetime)
	// The last token replaced may be the first to become due.
	if err := bed.Sleep(ctx, min(time.Duration(o.Rest), leastLifetime*3/4)); err != nil {
		return use{}, err
	}
	return m.watch(ctx, busyLifetime, o)
}

var errNotReplaced = errors.New("the token is too young to be replaced")

// replace replaces the token of a server.
func (m *mount) replace(ctx context.Context, server string) error {
	return m.await(ctx, 200*time.Millisecond, func() error {
		answer, err := m.do(ctx, http.MethodPost, bed.Mount+"/refresh/"+server, nil)
		if err != nil {
			return err
		}
		var refresh struct{ Data struct{ Refreshed bool } }
		if err := json.Unmarshal(answer, &refresh); err != nil {
			return err
		}
		if !refresh.Data.Refreshed {
			return errNotReplaced
		}
		return nil
	})
}

// each calls f for the configs added in a step.
func (m *mount) each(ctx context.Context, configs int, f func(context.Context, string) error) error {
	group, ctx := limited(ctx)
	for i := m.configs; i < configs; i++ {
		group.Go(func() error { return f(ctx, server(i)) })
	}
	return group.Wait()
}

// limited returns a group that makes as many concurrent requests as there are clients.
func limited(ctx context.Context) (*errgroup.Group, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(clients)
	return group, ctx
}

func (m *mount) write(ctx context.Context, server string) error {
	return m.writeTo(ctx, server, m.issuer.Listener.Addr().String())
}

func (m *mount) fetch(ctx context.Context, server string) error {
	_, err := m.do(ctx, http.MethodGet, bed.Mount+"/token/"+server, nil)
	return err
}

// request is a request to the mount.
type request struct{ method, path string }

func listOf(path string) request { return request{"LIST", path} }

// ask makes a request five times, and then five times two at once. It adds the medians and the peaks.
func (r *mountReport) ask(ctx context.Context, m *mount, what string, q request) error {
	for atOnce := 1; atOnce <= 2; atOnce++ {
		a := asked{What: what, AtOnce: atOnce}
		if err := m.forgetPeak(); err != nil {
			return err
		}
		times := make([]float64, 5*atOnce)
		for i := range 5 {
			group, ctx := errgroup.WithContext(ctx)
			for j := range atOnce {
				group.Go(func() error {
					begun := time.Now()
					answer, err := m.do(ctx, q.method, bed.Mount+"/"+q.path, nil)
					times[i*atOnce+j] = time.Since(begun).Seconds()
					if j == 0 {
						a.Bytes = len(answer)
					}
					return err
				})
			}
			if err := group.Wait(); err != nil {
				return err
			}
		}
		a.Seconds = measure.Median(times)
		after, err := m.memory()
		if err != nil {
			return err
		}
		a.Peak = after.Peak
		r.Requests = append(r.Requests, a)
	}
	return nil
}

// step restarts the plugin a few times, and Vault.
func (m *mount) step(ctx context.Context, o options) (s step, err error) {
	s.Configs = m.configs
	if s.Fetched, err = m.memory(); err != nil {
		return s, err
	}
	var firsts, mounts, loads, cpus []float64
	for round := range o.Rounds {
		// The name read is the one loaded last, so its read does not profit from loading.
		first, err := m.restart(ctx, server(m.configs-1-round%m.configs))
		if err != nil {
			return s, err
		}
		firsts = append(firsts, first.Seconds())
		if _, err := m.do(ctx, http.MethodPut, "sys/seal", nil); err != nil {
			return s, err
		}
		begun := time.Now()
		mounted, err := m.remount(ctx, server(m.configs-1-round%m.configs))
		if err != nil {
			return s, err
		}
		if err := m.awaitTimers(ctx); err != nil {
			return s, err
		}
		mounts, loads = append(mounts, mounted.Seconds()), append(loads, time.Since(begun).Seconds())
		cpu, err := m.cpu()
		if err != nil {
			return s, err
		}
		cpus = append(cpus, cpu.Seconds())
	}
	s.First, s.Mounted = measure.Median(firsts), measure.Median(mounts)
	s.Loaded, s.LoadCPU = measure.Median(loads), measure.Median(cpus)
	if err := bed.Sleep(ctx, time.Second); err != nil {
		return s, err
	}
	s.Memory, err = m.memory()
	return s, err
}

// restart kills the plugin's process and returns how long clients get no answer.
func (m *mount) restart(ctx context.Context, server string) (time.Duration, error) {
	if _, err := m.node.KillPlugin(); err != nil {
		return 0, err
	}
	begun := time.Now()
	err := m.awaitAnswer(ctx, server)
	return time.Since(begun), err
}

// remount seals and unseals Vault, and returns the time from the unsealing to the first answer.
func (m *mount) remount(ctx context.Context, server string) (time.Duration, error) {
	begun := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.node.Unseal(ctx) })
	var answered time.Duration
	group.Go(func() error {
		err := m.awaitAnswer(ctx, server)
		answered = time.Since(begun)
		return err
	})
	return answered, group.Wait()
}

// awaitAnswer reads a token until the read succeeds.
func (m *mount) awaitAnswer(ctx context.Context, server string) error {
	return m.await(ctx, 2*time.Millisecond, func() error { return m.fetch(ctx, server) })
}

// awaitTimers waits until the timers of all tokens are set.
//
// A token in memory has a last_read and a timer. Tokens are loaded in order, a few at a time, so when the last dozen
// are in memory, all are.
func (m *mount) awaitTimers(ctx context.Context) error {
	for i := max(0, m.configs-12); i < m.configs; i++ {
		// If a token is not in memory, each status read costs storage reads.
		err := m.await(ctx, 20*time.Millisecond, func() error { return m.held(ctx, server(i)) })
		if err != nil {
			return err
		}
	}
	return nil
}

var errNotHeld = errors.New("the token is not held in memory")

// held returns an error unless the plugin holds the token of a server in memory. This check does not load it.
func (m *mount) held(ctx context.Context, server string) error {
	answer, err := m.do(ctx, http.MethodGet, bed.Mount+"/status/"+server, nil)
	if err != nil {
		return err
	}
	var status struct {
		Data struct {
			LastRead string `json:"last_read"`
		}
	}
	if err := json.Unmarshal(answer, &status); err != nil {
		return err
	}
	if status.Data.LastRead == "" {
		return errNotHeld
	}
	return nil
}

// await calls ask until it returns nil.
func (m *mount) await(ctx context.Context, every time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if bed.Sleep(ctx, every) != nil {
			return fmt.Errorf("gave up waiting: %w", err)
		}
	}
}

// watch measures the CPU time of the idle plugin.
func (m *mount) watch(ctx context.Context, lifetime time.Duration, o options) (use, error) {
	u := use{Lifetime: seconds(lifetime), Over: o.Idle, Refreshes: -m.issuer.issued.Load()}
	before, err := m.cpu()
	if err != nil {
		return u, err
	}
	if err := bed.Sleep(ctx, time.Duration(o.Idle)); err != nil {
		return u, err
	}
	after, err := m.cpu()
	u.CPU = seconds(after - before)
	u.Refreshes += m.issuer.issued.Load()
	return u, err
}

// cpu returns the CPU time used by the plugin's process.
func (m *mount) cpu() (time.Duration, error) {
	pid, err := m.node.PluginPID()
	if err != nil {
		return 0, err
	}
	return measure.CPU(pid)
}

// memory returns the memory of the plugin's process.
func (m *mount) memory() (measure.Memory, error) {
	pid, err := m.node.PluginPID()
	if err != nil {
		return measure.Memory{}, err
	}
	return measure.MemoryOf(pid)
}

// forgetPeak restarts the count of the process's peak memory.
func (m *mount) forgetPeak() error {
	pid, err := m.node.PluginPID()
	if err != nil {
		return err
	}
	return measure.ForgetPeak(pid)
}

// memoryAtRest returns the memory after the plugin has been idle for long enough.
func (m *mount) memoryAtRest(ctx context.Context, o options) (measure.Memory, error) {
	if err := bed.Sleep(ctx, time.Duration(o.Rest)-time.Since(m.alone)); err != nil {
		return measure.Memory{}, err
	}
	return m.memory()
}
