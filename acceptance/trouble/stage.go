// Package trouble measures what trouble costs the users of a mount of the plugin, and of its Vault: servers that hang,
// limit or refuse, outages, tokens that are too short to refresh ahead, and the delete of a large config. The
// acceptance tests check the figures, bench/cmd/trouble prints them.
package trouble

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// A Stage is a mount of the plugin for one kind of trouble, and a scripted server that is its authorization
// server. What other mounts of the Vault do is in none of its figures.
type Stage struct {
	Bed   *bed.Bed
	Mount string
	Root  *api.Client // at the Vault's service address
	AS    *bed.ScriptedServer

	secret string
}

// stages is how many there have been: a test may run more than once on one Vault.
var stages atomic.Int64

// NewStage mounts the plugin under a name that begins as given and that no other mount has.
func NewStage(ctx context.Context, b *bed.Bed, name string) (*Stage, error) {
	mount := fmt.Sprintf("%s-%d", name, stages.Add(1))
	root, err := b.Vault.Root()
	if err != nil {
		return nil, err
	}
	// A request that waits longer than any bound is a figure, not an error of the client's.
	root.SetClientTimeout(2 * time.Minute)
	s := &Stage{Bed: b, Mount: mount, Root: root, secret: newSecret()}
	b.Secrecy.AddClientSecret(mount, s.secret)
	if s.AS, err = b.NewScriptedServer(); err != nil {
		return nil, err
	}
	if err := root.Sys().MountWithContext(ctx, mount, &api.MountInput{Type: bed.PluginName}); err != nil {
		return nil, fmt.Errorf("enable the plugin at %s: %w", mount, err)
	}
	return s, nil
}

func newSecret() string { return rand.Text() }

// A Result is one request to Vault, as its caller saw it.
type Result struct {
	Path   string
	Begun  time.Time
	Took   time.Duration
	Status int    // 0 when there was no answer
	Text   string // of an error
	Data   map[string]any
	Warn   []string
}

// Ended is when the request was over.
func (r Result) Ended() time.Time { return r.Begun.Add(r.Took) }

// String holds no secret: errors of Vault have none.
func (r Result) String() string {
	return fmt.Sprintf("%s: status %d after %s: %s", r.Path, r.Status, r.Took.Round(time.Millisecond), r.Text)
}

// at is the stage with another client: one of a node's own address.
func (s *Stage) at(client *api.Client) *Stage {
	at := *s
	at.Root = client
	return &at
}

// Read reads a path below the mount.
func (s *Stage) Read(ctx context.Context, path string) Result {
	return timed(path, func() (*api.Secret, error) {
		return s.Root.Logical().ReadWithContext(ctx, s.Mount+"/"+path)
	})
}

// Write writes a path below the mount.
func (s *Stage) Write(ctx context.Context, path string, data map[string]any) Result {
	return timed(path, func() (*api.Secret, error) {
		return s.Root.Logical().WriteWithContext(ctx, s.Mount+"/"+path, data)
	}).orDone()
}

// orDone is the result of a write: Vault's client shows one without an answer like a 404.
func (r Result) orDone() Result {
	if r.Status == http.StatusNotFound && r.Text == "" {
		r.Status = http.StatusNoContent
	}
	return r
}

// Delete deletes a path below the mount.
func (s *Stage) Delete(ctx context.Context, path string) Result {
	return timed(path, func() (*api.Secret, error) {
		return s.Root.Logical().DeleteWithContext(ctx, s.Mount+"/"+path)
	}).orDone()
}

// List lists a path below the mount.
func (s *Stage) List(ctx context.Context, path string) Result {
	return timed(path, func() (*api.Secret, error) {
		return s.Root.Logical().ListWithContext(ctx, s.Mount+"/"+path)
	})
}

// timed makes a request.
func timed(path string, do func() (*api.Secret, error)) Result {
	r := Result{Path: path, Begun: time.Now(), Status: http.StatusOK}
	secret, err := do()
	r.Took = time.Since(r.Begun)
	switch refused, answered := errors.AsType[*api.ResponseError](err); {
	case answered:
		r.Status, r.Text = refused.StatusCode, strings.Join(refused.Errors, "; ")
	case err != nil:
		r.Status, r.Text = 0, err.Error()
	case secret == nil:
		r.Status = http.StatusNotFound // which Vault's client does not make an error
	default:
		r.Data, r.Warn = secret.Data, secret.Warnings
	}
	return r
}

// ReadAll reads all paths at once, each on a connection of its own.
func (s *Stage) ReadAll(ctx context.Context, paths []string) []Result {
	results := make([]Result, len(paths))
	var readers sync.WaitGroup
	for i, path := range paths {
		readers.Go(func() { results[i] = s.Read(ctx, path) })
	}
	readers.Wait()
	return results
}

// Config is a config of the stage's authorization server that needs no discovery. changes may hold more
// fields, and others in the place of these.
func (s *Stage) Config(changes map[string]any) map[string]any {
	config := map[string]any{
		"token_url":     s.AS.TokenURL(),
		"client_id":     s.Mount,
		"client_secret": s.secret,
	}
	maps.Copy(config, changes)
	return config
}

// Configure writes a config without asking its authorization server.
func (s *Stage) Configure(ctx context.Context, name string, changes map[string]any) error {
	config := s.Config(changes)
	config["verify"] = false
	return done(s.Write(ctx, "config/"+name, config))
}

// Roles writes n roles of a config without asking its authorization server. Their names are returned as
// paths below token/.
func (s *Stage) Roles(ctx context.Context, config string, n int) (paths []string, err error) {
	for i := range n {
		paths = append(paths, fmt.Sprintf("token/%s/role-%d", config, i))
	}
	return paths, each(n, func(i int) error {
		return done(s.Write(ctx, fmt.Sprintf("role/%s/role-%d", config, i), map[string]any{
			"scopes": fmt.Sprintf("scope-%d", i), "verify": false,
		}))
	})
}

// Clients writes n configs, each of a client of its own, and returns their token paths.
func (s *Stage) Clients(ctx context.Context, prefix string, n int) (paths []string, err error) {
	for i := range n {
		paths = append(paths, fmt.Sprintf("token/%s-%d", prefix, i))
	}
	return paths, each(n, func(i int) error {
		name := fmt.Sprintf("%s-%d", prefix, i)
		return s.Configure(ctx, name, map[string]any{"client_id": name})
	})
}

// each does f for all numbers below n, some at a time.
func each(n int, f func(int) error) error {
	var group errgroup.Group
	group.SetLimit(16)
	for i := range n {
		group.Go(func() error { return f(i) })
	}
	return group.Wait()
}

// done is the error of a request that was not done.
func done(r Result) error {
	if r.Status != http.StatusOK && r.Status != http.StatusNoContent {
		return errors.New(r.String())
	}
	return nil
}

// Asked is how many token requests the plugin has made for this mount, by its own count: a server that
// refuses connections can't count them.
func (s *Stage) Asked(ctx context.Context) (int, error) {
	response, err := s.Root.Logical().ReadRawWithContext(ctx, s.Mount+"/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return 0, err
	}
	total := 0.0
	for _, metric := range families["mcp_oauth_token_requests_total"].GetMetric() {
		total += metric.GetCounter().GetValue()
	}
	return int(total), nil
}

// UnderWay is how many requests for paths below the mount Vault has under way.
func UnderWay(ctx context.Context, client *api.Client, mount string) (int, error) {
	response, err := client.Logical().ReadRawWithContext(ctx, "sys/in-flight-req")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var all map[string]struct {
		Path string `json:"request_path"`
	}
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		return 0, err
	}
	n := 0
	for _, request := range all {
		if strings.HasPrefix(request.Path, "/v1/"+mount+"/") {
			n++
		}
	}
	return n, nil
}

// wait calls f until it reports true, for a minute at most.
func wait(ctx context.Context, what string, f func() (bool, error)) error {
	return bed.Poll(ctx, time.Minute, func() error {
		ok, err := f()
		if err != nil {
			return bed.StopPolling(err)
		}
		if !ok {
			return errors.New("waiting until " + what)
		}
		return nil
	})
}

// Slowest is the longest that any of the requests took.
func Slowest(results []Result) (longest time.Duration) {
	for _, r := range results {
		longest = max(longest, r.Took)
	}
	return longest
}

// Statuses is how many requests were answered with each status.
func Statuses(results []Result) map[int]int {
	all := map[int]int{}
	for _, r := range results {
		all[r.Status]++
	}
	return all
}

// Other is the first request that was answered with none of the statuses; nil when there is none.
func Other(results []Result, statuses ...int) *Result {
	for i := range results {
		if !slices.Contains(statuses, results[i].Status) {
			return &results[i]
		}
	}
	return nil
}

// Stored counts the entries in Vault's storage whose key holds the text. It looks into a snapshot of raft:
// keys are in the clear there, values are not.
func Stored(ctx context.Context, client *api.Client, texts ...string) (map[string]int, error) {
	var snapshot bytes.Buffer
	if err := client.Sys().RaftSnapshotWithContext(ctx, &snapshot); err != nil {
		return nil, err
	}
	state, err := snapshotState(&snapshot)
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, text := range texts {
		found[text] = bytes.Count(state, []byte(text))
	}
	return found, nil
}
