package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// clients is how many requests to Vault are made at a time.
const clients = 16

// mountReport is what was measured on the real Vault.
type mountReport struct {
	Steps      []step  `json:"steps"`
	Written    float64 `json:"configs_written_per_second"`
	Fetched    float64 `json:"tokens_fetched_per_second"`
	Idle       float64 `json:"idle_cpu"` // CPU seconds per second
	IdleOfOne  float64 `json:"idle_cpu_with_one_config"`
	AtRest     memory  `json:"memory_at_rest"`
	ConfigList list    `json:"config_list"`
	StatusList list    `json:"status_list"`
	// EmptyList is of the states while the newest half of the configs has no tokens yet.
	EmptyList list `json:"status_list_half_without_tokens"`
}

// step is what was measured with a number of configs, each with a token.
type step struct {
	Configs int     `json:"configs"`
	First   float64 `json:"first_answer"` // from the plugin's end
	Mounted float64 `json:"mounted"`      // from unsealing Vault to the first answer
	Loaded  float64 `json:"all_timers_set"`
	LoadCPU float64 `json:"load_cpu"`
	Fetched memory  `json:"memory_after_fetching"`
	Memory  memory  `json:"memory_after_restart"`
}

// list is one list operation.
type list struct {
	Seconds float64 `json:"seconds"`
	Bytes   int     `json:"bytes"`
}

// mount is the plugin on a real Vault, with an authorization server.
type mount struct {
	bed     *bed.Bed
	node    *bed.Node
	issuer  *httptest.Server
	http    *http.Client
	version string // Vault's
	configs int    // written, each with a token

	alone time.Time // since when nobody has asked for anything
}

func startMount(ctx context.Context) (*mount, error) {
	b, err := bed.Start(ctx, bed.Options{})
	if err != nil {
		return nil, err
	}
	m := &mount{
		bed:    b,
		node:   b.Nodes[0],
		issuer: startIssuer(),
		http:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}},
	}
	status, err := m.do(ctx, http.MethodGet, "sys/seal-status", nil)
	if err == nil {
		var answer struct{ Version string }
		err = json.Unmarshal(status, &answer)
		m.version = answer.Version
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
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

// server is the name of a config. Names sort as their numbers do, and tokens are loaded in the order
// in which Vault lists them.
func server(i int) string { return fmt.Sprintf("%s%06d", serverPrefix, i) }

const serverPrefix = "server-"

func (m *mount) measure(ctx context.Context, o options) (*mountReport, error) {
	r := new(mountReport)
	var writing, fetching time.Duration
	steps := slices.Compact([]int{1, max(1, o.configs/4), max(1, o.configs/2), o.configs})
	for i, configs := range steps {
		begun := time.Now()
		if err := m.each(ctx, configs, m.write); err != nil {
			return nil, err
		}
		writing += time.Since(begun)
		if i == len(steps)-1 {
			var err error
			if r.EmptyList, err = m.list(ctx, "status/"); err != nil {
				return nil, err
			}
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
			if r.IdleOfOne, err = m.idle(ctx, o.idle/3); err != nil {
				return nil, err
			}
		}
	}
	r.Written = float64(m.configs) / writing.Seconds()
	r.Fetched = float64(m.configs) / fetching.Seconds()
	return r, m.atFullScale(ctx, o, r)
}

// atFullScale measures what is of interest with all configs only.
func (m *mount) atFullScale(ctx context.Context, o options, r *mountReport) (err error) {
	if r.ConfigList, err = m.list(ctx, "config/"); err != nil {
		return err
	}
	if r.StatusList, err = m.list(ctx, "status/"); err != nil {
		return err
	}
	m.alone = time.Now()
	r.Idle, err = m.idle(ctx, o.idle)
	return err
}

// each does f for the configs that are new in a step.
func (m *mount) each(ctx context.Context, configs int, f func(context.Context, string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(clients)
	for i := m.configs; i < configs; i++ {
		group.Go(func() error { return f(ctx, server(i)) })
	}
	return group.Wait()
}

func (m *mount) write(ctx context.Context, server string) error {
	_, err := m.do(ctx, http.MethodPost, bed.Mount+"/config/"+server, map[string]any{
		"server_url":    "https://" + server + ".example.com/mcp",
		"token_url":     m.issuer.URL + "/token",
		"client_id":     "client-of-" + server,
		"client_secret": "secret-of-" + server + "-0123456789abcdef",
		"scopes":        "tools:read tools:call",
		"verify":        false,
	})
	return err
}

func (m *mount) fetch(ctx context.Context, server string) error {
	_, err := m.do(ctx, http.MethodGet, bed.Mount+"/token/"+server, nil)
	return err
}

// list lists five times and tells the median.
func (m *mount) list(ctx context.Context, path string) (l list, err error) {
	var times []time.Duration
	for range 5 {
		begun := time.Now()
		answer, err := m.do(ctx, "LIST", bed.Mount+"/"+path, nil)
		if err != nil {
			return l, err
		}
		times = append(times, time.Since(begun))
		l.Bytes = len(answer)
	}
	l.Seconds = median(times).Seconds()
	return l, nil
}

// step restarts the plugin a few times, and Vault.
func (m *mount) step(ctx context.Context, o options) (s step, err error) {
	s.Configs = m.configs
	if s.Fetched, err = m.memory(); err != nil {
		return s, err
	}
	var firsts, mounts, loads, cpus []time.Duration
	for round := range o.rounds {
		// The name to read is loaded last: nothing that was loaded before helps.
		first, err := m.restart(ctx, server(m.configs-1-round%m.configs))
		if err != nil {
			return s, err
		}
		firsts = append(firsts, first)
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
		mounts, loads = append(mounts, mounted), append(loads, time.Since(begun))
		cpu, err := m.cpu()
		if err != nil {
			return s, err
		}
		cpus = append(cpus, cpu)
	}
	s.First, s.Mounted = median(firsts).Seconds(), median(mounts).Seconds()
	s.Loaded, s.LoadCPU = median(loads).Seconds(), median(cpus).Seconds()
	if err := pause(ctx, time.Second); err != nil {
		return s, err
	}
	s.Memory, err = m.memory()
	return s, err
}

// restart kills the plugin's process and tells how long its clients go without an answer.
func (m *mount) restart(ctx context.Context, server string) (time.Duration, error) {
	if _, err := m.node.KillPlugin(); err != nil {
		return 0, err
	}
	begun := time.Now()
	err := m.awaitAnswer(ctx, server)
	return time.Since(begun), err
}

// remount unseals Vault, once sealed, and tells how long that takes to the first answer.
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

// awaitAnswer reads a token until there is one.
func (m *mount) awaitAnswer(ctx context.Context, server string) error {
	return m.await(ctx, 2*time.Millisecond, func() error { return m.fetch(ctx, server) })
}

// awaitTimers waits until the timers of all tokens are set.
//
// What is held has a last_read, and its timer is set when it is. Tokens are loaded in order, a few at a
// time: when the last dozen are held, all are.
func (m *mount) awaitTimers(ctx context.Context) error {
	for i := max(0, m.configs-12); i < m.configs; i++ {
		// Where a token is not held yet, each question costs storage reads.
		err := m.await(ctx, 20*time.Millisecond, func() error { return m.held(ctx, server(i)) })
		if err != nil {
			return err
		}
	}
	return nil
}

var errNotHeld = errors.New("the token is not held in memory")

// held is nil when the plugin holds the token of a server in memory. Asking does not load it.
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

// await asks until the answer is what is waited for.
func (m *mount) await(ctx context.Context, every time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if pause(ctx, every) != nil {
			return fmt.Errorf("gave up waiting: %w", err)
		}
	}
}

// idle is the share of one CPU that the plugin uses while nobody asks for anything.
func (m *mount) idle(ctx context.Context, over time.Duration) (float64, error) {
	before, err := m.cpu()
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, over); err != nil {
		return 0, err
	}
	after, err := m.cpu()
	return (after - before).Seconds() / over.Seconds(), err
}

// cpu is the CPU time that the plugin's process has used.
func (m *mount) cpu() (time.Duration, error) {
	pid, err := m.node.PluginPID()
	if err != nil {
		return 0, err
	}
	return cpuOf(pid)
}

// memory is what the plugin's process holds.
func (m *mount) memory() (memory, error) {
	pid, err := m.node.PluginPID()
	if err != nil {
		return memory{}, err
	}
	return memoryOf(pid)
}

// memoryAtRest is that after the plugin has been left alone for so long.
func (m *mount) memoryAtRest(ctx context.Context, rest time.Duration) (memory, error) {
	if err := pause(ctx, rest-time.Since(m.alone)); err != nil {
		return memory{}, err
	}
	return m.memory()
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}
