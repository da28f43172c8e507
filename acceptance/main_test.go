// Package acceptance tests the plugin's main job on real parts: Vault, Vault Agent, an
// authorization server, MCP servers and brokers, see package bed.
package acceptance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// Most tests share one bed: each has a client, an MCP server and names of its own there. A test
// that stops Vault starts a bed for itself.
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

// TestMain closes the shared beds after the last test, and fails the run if one finds a
// client secret or an access token in a log or in an error text.
func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		// The tests wait for tokens to be refreshed more than they compute.
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

// readStatus is the HTTP status of reading a path below the mount.
func readStatus(ctx context.Context, client *api.Client, path string) int {
	secret, err := client.Logical().ReadWithContext(ctx, bed.Mount+"/"+path)
	return status(secret, err)
}

// listStatus is the HTTP status of listing a path below the mount.
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

// status undoes what Vault's client library makes of a response: a 404 is neither secret nor error.
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
