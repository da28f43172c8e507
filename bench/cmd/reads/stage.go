package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/floor"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/bench/measure"
)

const (
	floorCommand = "floor-plugin"
	name         = "reads" // of the config and its client
)

// The series in the order of the tables.
const (
	seriesFloor = iota
	seriesFloorAgain
	seriesKV
	seriesToken
	seriesCount
)

// The names of mounts and plugins are as long as those of the measured plugin, because they are written to the audit
// log.
var (
	seriesNames = [seriesCount]string{"floor plugin", "floor again", "KV v2", "token path"}
	floors      = []string{"mcp-floor", "mcp-again"}
	seriesPaths = [seriesCount]string{
		floors[0] + "/" + floor.Path, floors[1] + "/" + floor.Path, "kv/data/token", bed.Mount + "/token/" + name,
	}
)

// A stage is a Vault with the three measured engines.
type stage struct {
	options
	bed     *bed.Bed
	root    *api.Client
	tokens  map[string]string // Vault tokens of the readers, by policies
	answers []answer
}

// An answer is the response to one read of a series.
type answer struct {
	Series        string `json:"series"`
	FieldBytes    int    `json:"field_bytes"`    // of the fields only
	ResponseBytes int    `json:"response_bytes"` // of the response body
	fields        map[string]any
}

func newStage(ctx context.Context, b *bed.Bed, o options) (*stage, error) {
	s := &stage{options: o, bed: b, tokens: map[string]string{}}
	var err error
	if s.root, err = b.Vault.Root(); err != nil {
		return nil, err
	}
	token, err := measure.Configure(ctx, b, bed.Mount, name)
	if err != nil {
		return nil, err
	}
	args := []string{"-token-bytes=" + strconv.Itoa(len(token)), "-scope=" + measure.Scope}
	if err := measure.MountCommand(ctx, b, floorCommand, args, floors...); err != nil {
		return nil, err
	}
	if err := s.enableKV(ctx, floor.Answer(len(token), measure.Scope)); err != nil {
		return nil, err
	}
	rules := ""
	for _, path := range seriesPaths {
		rules += fmt.Sprintf("path %q { capabilities = [\"read\"] }\n", path)
	}
	if err := b.Vault.PutPolicy(ctx, "reader", rules); err != nil {
		return nil, err
	}
	for _, policies := range []string{onePolicy, withDefault} {
		if s.tokens[policies], err = measure.LogIn(ctx, b, strings.ReplaceAll(policies, " ", "-"), "reader", policies == withDefault); err != nil {
			return nil, err
		}
	}
	if !s.Audit {
		if err := s.root.Sys().DisableAuditWithContext(ctx, "file"); err != nil {
			return nil, err
		}
	}
	return s, s.compareAnswers(ctx)
}

// These are the policies of readers. A login also gives Vault's default policy, unless the role excludes it.
const (
	onePolicy   = "one policy"
	withDefault = "the default policy too"
)

// replacePlugins makes Vault restart all plugins.
func (s *stage) replacePlugins(ctx context.Context) error {
	_, err := s.root.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{
		Mounts: []string{floors[0], floors[1], bed.Mount},
	})
	return err
}

// enableKV mounts KV v2 and writes a secret.
func (s *stage) enableKV(ctx context.Context, secret map[string]any) error {
	err := s.root.Sys().MountWithContext(ctx, "kv", &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}})
	if err != nil {
		return err
	}
	// While KV makes version 2 of an empty mount, it refuses writes for a moment.
	return bed.Poll(ctx, 30*time.Second, func() error {
		_, err := s.root.Logical().WriteWithContext(ctx, seriesPaths[seriesKV], map[string]any{"data": secret})
		return err
	})
}

// compareAnswers reads each series once. The answers must have the same fields, of the same types and, within 2 %,
// the same size.
func (s *stage) compareAnswers(ctx context.Context) error {
	for i := range seriesCount {
		a, err := s.ask(ctx, i)
		if err != nil {
			return err
		}
		s.answers = append(s.answers, a)
	}
	return alike(s.answers)
}

// alike returns an error unless the answers of all series are alike.
func alike(answers []answer) error {
	ours := answers[seriesToken]
	for _, a := range answers {
		if len(a.fields) != len(ours.fields) {
			return fmt.Errorf("%s answers %d fields, %s %d", a.Series, len(a.fields), ours.Series, len(ours.fields))
		}
		for field, value := range ours.fields {
			if other := a.fields[field]; fmt.Sprintf("%T", other) != fmt.Sprintf("%T", value) {
				return fmt.Errorf("%s answers %T for %s, %s %T", a.Series, other, field, ours.Series, value)
			}
		}
		if off := 100 * float64(a.FieldBytes-ours.FieldBytes) / float64(ours.FieldBytes); off > 2 || off < -2 {
			return fmt.Errorf("the fields of %s are %.1f %% larger than those of %s", a.Series, off, ours.Series)
		}
	}
	return nil
}

// ask reads a series as the measured readers do, and returns the answer.
func (s *stage) ask(ctx context.Context, series int) (answer, error) {
	a := answer{Series: seriesNames[series]}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.bed.Vault.Address+"/v1/"+seriesPaths[series], nil)
	if err != nil {
		return a, err
	}
	req.Header.Set("X-Vault-Token", s.tokens[onePolicy])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("reading the %s: %s", a.Series, resp.Status)
	}
	var secret struct{ Data map[string]any }
	if err := json.Unmarshal(body, &secret); err != nil {
		return a, err
	}
	a.ResponseBytes, a.fields = len(body), secret.Data
	if series == seriesKV {
		// KV returns the secret beside its metadata.
		a.fields, _ = secret.Data["data"].(map[string]any)
	}
	fields, err := json.Marshal(a.fields)
	a.FieldBytes = len(fields)
	return a, err
}

// readers connects n readers of a series. Their token has the given policies.
func (s *stage) readers(ctx context.Context, policies string, series, n int) (group []*measure.Reader, err error) {
	for range n {
		r, err := measure.NewReader(ctx, s.bed.Vault.Address, s.tokens[policies], "v1/"+seriesPaths[series])
		if err != nil {
			return group, err
		}
		group = append(group, r)
	}
	return group, nil
}
