package acceptance

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// server is the binary that all beds run.
var server = sync.OnceValues(func() (*bed.Binary, error) {
	return bed.FindBinary(context.Background(), os.Getenv("VAULT_BIN"), func(string, ...any) {})
})

// needs skips the test on another product. README.md lists these tests with reasons.
func needs(t *testing.T, product bed.Product) {
	t.Helper()
	only := testsOfOneProduct(t)[t.Name()]
	if only.reason == "" || only.product != product {
		t.Fatalf("acceptance/README.md does not say why this test runs on %s only", product)
	}
	binary := bed.Must(server())(t)
	if binary.Product != product {
		t.Skipf("on %s only: %s", product, only.reason)
	}
}

type onlyOn struct {
	product bed.Product
	reason  string
}

// testsOfOneProduct returns the tests that README.md lists, by name.
func testsOfOneProduct(t *testing.T) map[string]onlyOn {
	t.Helper()
	page := bed.Must(os.ReadFile("README.md"))(t)
	tests := map[string]onlyOn{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `Test") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			tests[strings.Trim(name, " `")] = onlyOn{bed.Product(strings.TrimSpace(cells[2])), strings.TrimSpace(cells[3])}
		}
	}
	return tests
}

var needsOneProduct = regexp.MustCompile(`\bneeds\(t, |\bstandbys\(t\)|\bownCluster\(t, `)

// README.md lists exactly the tests that run on one product.
func TestTheDocsListTestsOfOneProduct(t *testing.T) {
	t.Parallel()
	listed := testsOfOneProduct(t)
	files := bed.Must(filepath.Glob("*_test.go"))(t)
	for _, file := range files {
		source := bed.Must(os.ReadFile(file))(t)
		for _, function := range strings.Split(string(source), "\nfunc ")[1:] {
			name, _, _ := strings.Cut(function, "(")
			one := needsOneProduct.MatchString(function)
			if _, there := listed[name]; strings.HasPrefix(name, "Test") && one != there {
				t.Errorf("%s needs one product: %t, and the page lists it: %t", name, one, there)
			}
			delete(listed, name)
		}
	}
	for name := range listed {
		t.Errorf("acceptance/README.md lists %s, which does not exist", name)
	}
}
