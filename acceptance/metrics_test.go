package acceptance

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// The example's scrape job, policy and Vault Agent work for the mount and for a second one, over plain HTTP. The
// client is Prometheus's.
func TestExampleScrapes(t *testing.T) {
	t.Parallel()
	b := shared(t)
	u := newConfigured(t, b, "", 5*time.Minute)
	policy := bed.Must(os.ReadFile("../examples/prometheus/policy.hcl"))(t)
	job := exampleJob(t)
	path, second, secondPath := job.target(t, 0).path, job.target(t, 1).mount, job.target(t, 1).path
	bed.OK(t, u.root.Sys().MountWithContext(t.Context(), second, &api.MountInput{Type: bed.PluginName}))
	t.Cleanup(func() { bed.OK(t, u.root.Sys().UnmountWithContext(context.WithoutCancel(t.Context()), second)) })
	rules := string(policy) + strings.ReplaceAll(string(policy), bed.Mount, second)
	scraper := newIdentity(t, b, u.name, rules)
	tokenFile := startExampleAgent(t, b, scraper)

	job.HTTPClientConfig.Authorization.CredentialsFile = tokenFile
	client := bed.Must(promconfig.NewClientFromConfig(job.HTTPClientConfig, job.JobName))(t)
	before := scrape(t, client, b.Vault.Address+path)
	u.token(t, "token/"+u.name)
	u.token(t, "token/"+u.name)
	u.write(t, "role/"+u.name+"/refused", map[string]any{"resource": "https://nowhere.example.com", "verify": false})
	wantStatus(t, u.root, "token/"+u.name+"/refused", http.StatusBadRequest)
	after := scrape(t, client, b.Vault.Address+path)

	// Other tests may increase the counters at the same time.
	for series, most := range map[string]float64{
		`mcp_oauth_token_reads_total{outcome="success"}`:                            2,
		`mcp_oauth_token_reads_total{outcome="refused"}`:                            1,
		`mcp_oauth_token_requests_total{error="invalid_target", outcome="refused"}`: 1,
		`mcp_oauth_token_request_duration_seconds_count{outcome="refused"}`:         1,
	} {
		if grown := after[series] - before[series]; grown < most {
			t.Errorf("%s has grown by %v, want %v or more", series, grown, most)
		}
	}
	status, own := u.read(t, "status/"+u.name), fmt.Sprintf(`{role="", server=%q}`, u.name)
	for series, field := range map[string]string{
		"mcp_oauth_token_expiry_timestamp_seconds":      "expires_at",
		"mcp_oauth_token_refresh_due_timestamp_seconds": "next_rotation",
	} {
		if got, want := int64(after[series+own]), timestamp(t, status, field).Unix(); got != want {
			t.Errorf("%s is %d, want %d as in status/", series, got, want)
		}
	}
	role := fmt.Sprintf(`{role="refused", server=%q}`, u.name)
	if after["mcp_oauth_token_consecutive_failures"+role] != 1 || after["mcp_oauth_token_consecutive_failures"+own] != 0 {
		t.Errorf("the refused role has %v failures, and the config has %v",
			after["mcp_oauth_token_consecutive_failures"+role], after["mcp_oauth_token_consecutive_failures"+own])
	}

	// The second mount counts separately.
	const reads = `mcp_oauth_token_reads_total{outcome="success"}`
	if n, there := scrape(t, client, b.Vault.Address+secondPath)[reads]; n != 0 || !there {
		t.Errorf("the second mount has served %v reads", n)
	}

	checkAuditLog(t, b.Vault.AuditLog, "metrics", "response", "http_raw_body")

	// The policy permits nothing else, and requests need a token.
	for _, path := range []string{"token/" + u.name, "status/" + u.name, "config/" + u.name} {
		wantStatus(t, scraper.Client, path, http.StatusForbidden)
	}
	resp := bed.Must(askMetrics(t.Context(), http.DefaultClient, b.Vault.Address+path))(t)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("without a token the status is %d, want 403", resp.StatusCode)
	}
}

// A Vault Agent's listener serves the metrics without a token.
func TestMetricsThroughAnAgentsListener(t *testing.T) {
	t.Parallel()
	b := shared(t)
	rules := `path "` + bed.Mount + `/metrics" { capabilities = ["read"] }`
	id := newIdentity(t, b, "metricsthroughanagentslistener", rules)
	through := bed.Must(b.NewListener(t.Context(), "agent", id))(t)
	series := scrape(t, http.DefaultClient, through.Address+"/v1/"+bed.Mount+"/metrics")
	builds := 0
	for name, value := range series {
		if strings.HasPrefix(name, "mcp_oauth_build_info{") && value == 1 {
			builds++
		}
	}
	if builds != 1 {
		t.Errorf("%d builds in %d series", builds, len(series))
	}
}

// scrapeJob has the fields of a scrape configuration that the test uses.
type scrapeJob struct {
	JobName          string                      `yaml:"job_name"`
	Scheme           string                      `yaml:"scheme"`
	HTTPClientConfig promconfig.HTTPClientConfig `yaml:",inline"`
	StaticConfigs    []struct {
		Targets []string          `yaml:"targets"`
		Labels  map[string]string `yaml:"labels"`
	} `yaml:"static_configs"`
}

// A scrapeTarget is one mount of the job.
type scrapeTarget struct{ mount, path string }

// target returns the n-th mount of the job. Prometheus takes the path from the label __metrics_path__, and drops
// labels with this prefix.
func (j scrapeJob) target(t *testing.T, n int) scrapeTarget {
	t.Helper()
	entry := j.StaticConfigs[n]
	target := scrapeTarget{mount: entry.Labels["mount"], path: entry.Labels["__metrics_path__"]}
	if len(entry.Targets) != 1 || len(entry.Labels) != 2 || target.path != "/v1/"+target.mount+"/metrics" {
		t.Fatalf("the entry is %+v", entry)
	}
	return target
}

// exampleJob reads the example's scrape job, with the second mount from its comment.
func exampleJob(t *testing.T) scrapeJob {
	t.Helper()
	content := example(t, "prometheus/prometheus.yml")
	content, comment, ok := strings.Cut(content, "# Another mount")
	if !ok {
		t.Fatal("the example has no second mount")
	}
	_, comment, _ = strings.Cut(comment, "\n")
	content += "\n" + strings.ReplaceAll(comment, "      # ", "      ")
	var config struct {
		Global    map[string]model.Duration `yaml:"global"`
		RuleFiles []string                  `yaml:"rule_files"`
		Jobs      []scrapeJob               `yaml:"scrape_configs"`
	}
	bed.OK(t, yaml.UnmarshalStrict([]byte(content), &config))
	if len(config.Jobs) != 1 || len(config.RuleFiles) != 1 {
		t.Fatalf("%d scrape jobs and %d files of rules, want one of each", len(config.Jobs), len(config.RuleFiles))
	}
	if _, err := os.Stat(filepath.Join("..", "examples", "prometheus", config.RuleFiles[0])); err != nil {
		t.Error(err)
	}
	job := config.Jobs[0]
	bed.OK(t, job.HTTPClientConfig.Validate())
	if job.HTTPClientConfig.Authorization == nil || job.Scheme != "https" || len(job.StaticConfigs) != 2 {
		t.Fatalf("the job is %+v", job)
	}
	if one, two := job.target(t, 0).mount, job.target(t, 1).mount; one != bed.Mount || two == one {
		t.Fatalf("the job's mounts are %s and %s", one, two)
	}
	return job
}

// startExampleAgent starts the example's Vault Agent for id, and returns the path of its token file.
func startExampleAgent(t *testing.T, b *bed.Bed, id *bed.Identity) string {
	t.Helper()
	content := bed.Must(os.ReadFile("../examples/prometheus/agent.hcl"))(t)
	dir := filepath.Join(b.Dir, "agent-prometheus") // kept as long as the agent
	bed.OK(t, os.Mkdir(dir, 0o700))
	config := string(content)
	for example, here := range map[string]string{
		"https://vault.example.com:8200":  b.Vault.Address,
		"/var/lib/vault-agent-prometheus": dir,
	} {
		if !strings.Contains(config, example) {
			t.Fatalf("the example does not name %s", example)
		}
		config = strings.ReplaceAll(config, example, here)
	}
	writeFiles(t, dir, map[string]string{"role-id": id.RoleID, "secret-id": id.SecretID, "agent.hcl": config})
	cmd := b.Vault.CLI(context.Background(), "", "agent", "-config="+filepath.Join(dir, "agent.hcl"))
	bed.Must(b.NewProcess("agent-prometheus", cmd))(t)
	tokenFile := filepath.Join(dir, "token")
	bed.Eventually(t, 30*time.Second, func() error {
		token, err := os.ReadFile(tokenFile)
		if err == nil && len(token) == 0 {
			err = fmt.Errorf("%s is empty", tokenFile)
		}
		return err
	})
	return tokenFile
}

func askMetrics(ctx context.Context, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	// Prometheus 3 sends this header.
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.2")
	return client.Do(req)
}

func scrape(t *testing.T, client *http.Client, url string) map[string]float64 {
	t.Helper()
	values := bed.Must(tryScrape(t.Context(), client, url))(t)
	return values
}

// tryScrape scrapes a server that may not answer yet.
func tryScrape(ctx context.Context, client *http.Client, url string) (map[string]float64, error) {
	resp, err := askMetrics(ctx, client, url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	const want = "text/plain; version=0.0.4; charset=utf-8"
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != want {
		return nil, fmt.Errorf("status %d, %q; want 200 and %q", resp.StatusCode, got, want)
	}
	all, err := samples(resp.Body)
	values := map[string]float64{}
	for _, sample := range all {
		values[sample.Metric.String()] = float64(sample.Value)
	}
	return values, err
}

// samples parses metrics in Prometheus's text format.
func samples(text io.Reader) (model.Vector, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return nil, err
	}
	return expfmt.ExtractSamples(&expfmt.DecodeOptions{}, slices.Collect(maps.Values(families))...)
}
