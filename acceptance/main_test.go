// Package acceptance tests the plugin's main job on real parts: Vault, Vault Agent, an
// authorization server, MCP servers and brokers, see package bed.
package acceptance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Most tests share one bed, and have their own client, MCP server and names. A test that stops Vault starts its own
// bed.
var (
	startShared sync.Once
	sharedBed   *bed.Bed
	errShared   error
)

func shared(t *testing.T) *bed.Bed {
	t.Helper()
	startShared.Do(func() {
		sharedBed, errShared = bed.Start(context.Background(), bed.Options{})
	})
	if errShared != nil {
		t.Fatal(errShared)
	}
	sharedBed.ShowLogs(t)
	return sharedBed
}

// TestMain closes the shared beds, and fails the run if a log or an error text holds a client secret or a token.
func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		// The tests mostly wait for refreshes, so more of them run at once than the machine has CPUs.
		_ = parallel.Value.Set("4")
	}
	code := m.Run()
	for _, shared := range []*bed.Bed{sharedBed, sharedStandbys} {
		if shared == nil {
			continue
		}
		report, err := shared.Close()
		fmt.Printf("looked for %d secrets and tokens in %d bytes of %d logs\n", report.Values, report.Bytes, report.Files)
		if err != nil {
			fmt.Println("FAIL: closing the bed:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// readStatus returns the HTTP status of reading a path below the mount.
func readStatus(ctx context.Context, client *api.Client, path string) int {
	secret, err := client.Logical().ReadWithContext(ctx, bed.Mount+"/"+path)
	return status(secret, err)
}

// listStatus returns the HTTP status of listing a path below the mount.
func listStatus(ctx context.Context, client *api.Client, path string) int {
	secret, err := client.Logical().ListWithContext(ctx, bed.Mount+"/"+path)
	return status(secret, err)
}

// wantStatus fails the test unless a path below the mount is read with the HTTP status.
func wantStatus(t *testing.T, client *api.Client, path string, want int) {
	t.Helper()
	if got := readStatus(t.Context(), client, path); got != want {
		t.Errorf("read %s: status %d, want %d", path, got, want)
	}
}

// An answer is a response to ask.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask makes a request without Vault's client: a POST of JSON if body is set, otherwise a GET.
func ask(ctx context.Context, url, body string, header http.Header) (answer, error) {
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(request.Header, header)
	response, err := bed.HTTPClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(content)}, err
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		bed.OK(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
}

// stopAtEnd stops a process when the test ends, and fails the test if the process has ended before.
func stopAtEnd(t *testing.T, name string, process *bed.Process) {
	t.Helper()
	t.Cleanup(func() {
		select {
		case <-process.Done():
			t.Errorf("%s ended by itself", name)
		default:
		}
		bed.OK(t, process.Stop())
	})
}

// status returns the HTTP status of an answer from Vault's client, which returns neither an answer nor an error for a
// 404.
func status(secret *api.Secret, err error) int {
	if refused, ok := errors.AsType[*api.ResponseError](err); ok {
		return refused.StatusCode
	}
	switch {
	case err != nil:
		return 0
	case secret == nil:
		return http.StatusNotFound
	default:
		return http.StatusOK
	}
}
