package mcpoauth

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The security page says which test shows what: each must exist, and no threat be without.
func TestTestsThatTheSecurityPageNamesExist(t *testing.T) {
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	exists := testsOfTheProject(t)
	name := regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)`")
	threats := 0
	inThreats := false
	for line := range strings.Lines(string(page)) {
		named := name.FindAllStringSubmatch(line, -1)
		for _, n := range named {
			if !exists[n[1]] {
				t.Errorf("there is no test %s", n[1])
			}
		}
		switch isRow := strings.HasPrefix(line, "|"); {
		case strings.HasPrefix(line, "| threat |"):
			inThreats = true
		case !isRow:
			inThreats = false
		case inThreats && !strings.HasPrefix(line, "|---"):
			threats++
			if len(named) == 0 {
				t.Errorf("no test shows what answers %s", line)
			}
		}
	}
	if threats == 0 {
		t.Error("the page has no table of threats")
	}
}

// testsOfTheProject are the tests and fuzz targets of all its modules.
func testsOfTheProject(t *testing.T) map[string]bool {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	all := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "node_modules":
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		for _, match := range function.FindAllSubmatch(source, -1) {
			all[string(match[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
