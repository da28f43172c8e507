package acceptance

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// server is the binary that all beds run.
var server = sync.OnceValues(func() (*bed.Binary, error) {
	return bed.FindBinary(context.Background(), os.Getenv("VAULT_BIN"), func(string, ...any) {})
})

// needs skips the test unless the server is this product. docs/openbao.md lists such tests with the reason.
func needs(t *testing.T, product bed.Product) {
	t.Helper()
	page, err := os.ReadFile("../docs/openbao.md")
	if err != nil {
		t.Fatal(err)
	}
	var reason string
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) == 5 && strings.TrimSpace(cells[1]) == "`"+t.Name()+"`" && strings.TrimSpace(cells[2]) == string(product) {
			reason = strings.TrimSpace(cells[3])
		}
	}
	if reason == "" {
		t.Fatalf("docs/openbao.md does not say why this test runs on %s only", product)
	}
	binary, err := server()
	if err != nil {
		t.Fatal(err)
	}
	if binary.Product != product {
		t.Skipf("on %s only: %s", product, reason)
	}
}
