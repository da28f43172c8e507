package mcpoauth

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testName is the name of a test in the documentation.
var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)`")

// The security page says of every threat which test shows its answer.
func TestEveryThreatHasATest(t *testing.T) {
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	threats := 0
	inThreats := false
	for line := range strings.Lines(string(page)) {
		switch isRow := strings.HasPrefix(line, "|"); {
		case strings.HasPrefix(line, "| threat |"):
			inThreats = true
		case !isRow:
			inThreats = false
		case inThreats && !strings.HasPrefix(line, "|---"):
			threats++
			if !testName.MatchString(line) {
				t.Errorf("no test shows what answers %s", line)
			}
		}
	}
	if threats == 0 {
		t.Error("the page has no table of threats")
	}
}

// Every test that the documentation names exists.
func TestTestsThatTheDocsNameExist(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	exists := testsOfTheProject(t)
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md", "SECURITY.md", "acceptance/README.md") {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range testName.FindAllSubmatch(content, -1) {
			if !exists[string(n[1])] {
				t.Errorf("%s: there is no test %s", page, n[1])
			}
		}
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

// A figure that is yet to be measured is not committed.
func TestNoFigureIsMissing(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "NEW FIGURE") {
			t.Errorf("%s: a figure is missing", page)
		}
	}
}
