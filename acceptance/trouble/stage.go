// Package trouble measures the effects of trouble on users of a mount and of its Vault: servers that hang, limit or
// refuse, outages, short-lived tokens, and the delete of a large config. Acceptance tests check and log the figures.
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

// A Stage is a mount of the plugin with a scripted authorization server. Its figures exclude other mounts.
type Stage struct {
	Bed   *bed.Bed
	Mount string
	Root  *api.Client // uses the Vault's service address
	AS    *bed.ScriptedServer

	secret string
}

// stages counts stages, because a test may run repeatedly on one Vault.
var stages atomic.Int64

// NewStage mounts the plugin under a new name with this prefix.
func NewStage(ctx context.Context, b *bed.Bed, name string) (*Stage, error) {
	mount := fmt.Sprintf("%s-%d", name, stages.Add(1))
	root, err := b.Vault.Root()
	if err != nil {
		return nil, err
	}
	// A long wait is a figure, so the client must not time out.
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
	Status int    // 0: no answer
	Text   string // of the error
	Data   map[string]any
	Warn   []string
}

// Ended returns the end of the request.
func (r Result) Ended() time.Time { return r.Begun.Add(r.Took) }

// String contains no secret, because Vault's errors contain none.
func (r Result) String() string {
	return fmt.Sprintf("%s: status %d after %s: %s", r.Path, r.Status, r.Took.Round(time.Millisecond), r.Text)
}

// at returns the stage with another client, such as one for a node's own address.
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

// orDone corrects the result of a write: Vault's client returns neither an answer nor an error for a success without
// content, as for a 404.
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
		r.Status = http.StatusNotFound // not an error for Vault's client
	default:
		r.Data, r.Warn = secret.Data, secret.Warnings
	}
	return r
}

// ReadAll reads all paths concurrently, each on its own connection.
func (s *Stage) ReadAll(ctx context.Context, paths []string) []Result {
	results := make([]Result, len(paths))
	var readers sync.WaitGroup
	for i, path := range paths {
		readers.Go(func() { results[i] = s.Read(ctx, path) })
	}
	readers.Wait()
	return results
}

// Config returns a config, with changes, for the stage's authorization server without discovery.
func (s *Stage) Config(changes map[string]any) map[string]any {
	config := map[string]any{
		"token_url": s.AS.TokenURL(), "client_id": s.Mount, "client_secret": s.secret,
	}
	maps.Copy(config, changes)
	return config
}

// fail makes the server give this answer, or refuse connections if answer is nil.
func (s *Stage) fail(answer http.HandlerFunc) error {
	if answer == nil {
		return s.AS.Down()
	}
	s.AS.Set(answer)
	return nil
}

// refuse answers with an OAuth error.
func refuse(status int, code string) http.HandlerFunc { return bed.RefuseWith(status, code, nil) }

// Configure writes a config without a token request.
func (s *Stage) Configure(ctx context.Context, name string, changes map[string]any) error {
	config := s.Config(changes)
	config["verify"] = false
	return done(s.Write(ctx, "config/"+name, config))
}

// Roles writes a config with n roles without token requests, and returns their token paths.
func (s *Stage) Roles(ctx context.Context, config string, n int, changes map[string]any) (paths []string, err error) {
	if err := s.Configure(ctx, config, changes); err != nil {
		return nil, err
	}
	for i := range n {
		paths = append(paths, fmt.Sprintf("token/%s/role-%d", config, i))
	}
	return paths, each(n, func(i int) error {
		return done(s.Write(ctx, fmt.Sprintf("role/%s/role-%d", config, i), map[string]any{
			"scopes": fmt.Sprintf("scope-%d", i), "verify": false,
		}))
	})
}

// Clients writes n configs, each with its own client, and returns their token paths.
func (s *Stage) Clients(ctx context.Context, prefix string, n int) (paths []string, err error) {
	for i := range n {
		paths = append(paths, fmt.Sprintf("token/%s-%d", prefix, i))
	}
	return paths, each(n, func(i int) error {
		name := fmt.Sprintf("%s-%d", prefix, i)
		return s.Configure(ctx, name, map[string]any{"client_id": name})
	})
}

// each calls f for all numbers below n, several at a time.
func each(n int, f func(int) error) error {
	var group errgroup.Group
	group.SetLimit(16)
	for i := range n {
		group.Go(func() error { return f(i) })
	}
	return group.Wait()
}

// done returns an error if the request failed.
func done(r Result) error {
	if r.Status != http.StatusOK && r.Status != http.StatusNoContent {
		return errors.New(r.String())
	}
	return nil
}

// Asked returns the plugin's own count of this mount's token requests, which includes refused connections.
func (s *Stage) Asked(ctx context.Context) (int, error) {
	response, err := bed.ReadRaw(ctx, s.Root, s.Mount+"/metrics")
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

// UnderWay returns the number of requests below the mount that Vault is processing.
func UnderWay(ctx context.Context, client *api.Client, mount string) (int, error) {
	response, err := bed.ReadRaw(ctx, client, "sys/in-flight-req")
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

// wait calls f until it returns true, for at most a minute.
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

// Slowest returns the longest duration of a request.
func Slowest(results []Result) (longest time.Duration) {
	for _, r := range results {
		longest = max(longest, r.Took)
	}
	return longest
}

// Statuses counts the requests by status.
func Statuses(results []Result) map[int]int {
	all := map[int]int{}
	for _, r := range results {
		all[r.Status]++
	}
	return all
}

// Other returns the first request with another status, or nil.
func Other(results []Result, statuses ...int) *Result {
	for i := range results {
		if !slices.Contains(statuses, results[i].Status) {
			return &results[i]
		}
	}
	return nil
}

// Stored counts the storage entries whose keys contain the texts, in a raft snapshot. Keys in a snapshot are not
// encrypted.
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
