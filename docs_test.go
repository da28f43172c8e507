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

// Every threat on the security page is in threatTests with its tests, and the reverse.
func TestEveryThreatHasATest(t *testing.T) {
	page := readText(t, "docs/security.md")
	exists, threats := testsOfTheProject(t), map[string]bool{}
	inThreats := false
	for line := range strings.Lines(page) {
		switch isRow := strings.HasPrefix(line, "|"); {
		case strings.HasPrefix(line, "| threat |"):
			inThreats = true
		case !isRow:
			inThreats = false
		case inThreats && !strings.HasPrefix(line, "|---"):
			threat, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
			threats[threat] = true
			if len(threatTests[threat]) == 0 {
				t.Errorf("threatTests has no test for %q", threat)
			}
		}
	}
	for threat, tests := range threatTests {
		if !threats[threat] {
			t.Errorf("the page does not have the threat %q", threat)
		}
		for _, name := range tests {
			if !exists[name] {
				t.Errorf("%s: there is no test %s", threat, name)
			}
		}
	}
}

var (
	mdFence = regexp.MustCompile("(?s)```.*?```")
	mdLink  = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	mdTitle = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// Every link from a page to a file or heading of the project has a target.
func TestLinksLeadSomewhere(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md", "*/README.md", "*/*/README.md"} {
		pages = append(pages, must(filepath.Glob(pattern))(t)...)
	}
	links := 0
	for _, page := range pages {
		text := readText(t, page)
		for _, link := range mdLink.FindAllStringSubmatch(mdFence.ReplaceAllString(text, ""), -1) {
			file, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(file, ":") {
				continue
			}
			links++
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s: %v", page, link[1], err)
			} else if anchor != "" && !anchorsOf(readText(t, target))[anchor] {
				t.Errorf("%s: there is no heading %s", page, link[1])
			}
		}
	}
	if links < 50 {
		t.Errorf("%d links were found", links)
	}
}

// anchorsOf returns the anchors of a page's headings, as GitHub makes them.
func anchorsOf(page string) map[string]bool {
	anchors := map[string]bool{}
	for _, title := range mdTitle.FindAllStringSubmatch(mdFence.ReplaceAllString(page, ""), -1) {
		anchor := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(title[1]), "")
		anchors[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	return anchors
}

// Every test named in the documentation exists.
func TestTestsThatTheDocsNameExist(t *testing.T) {
	pages := must(filepath.Glob("docs/*.md"))(t)
	exists := testsOfTheProject(t)
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md", "SECURITY.md", "acceptance/README.md") {
		for _, n := range testName.FindAllStringSubmatch(readText(t, page), -1) {
			if !exists[n[1]] {
				t.Errorf("%s: there is no test %s", page, n[1])
			}
		}
	}
}

// testsOfTheProject returns the tests and fuzz targets of all modules.
func testsOfTheProject(t *testing.T) map[string]bool {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	all := map[string]bool{}
	noError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
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
	}))
	return all
}

// No placeholder for an unmeasured figure is committed.
func TestNoFigureIsMissing(t *testing.T) {
	pages := must(filepath.Glob("docs/*.md"))(t)
	if len(pages) == 0 {
		t.Fatal("there are no pages")
	}
	for _, page := range pages {
		if strings.Contains(readText(t, page), "NEW FIGURE") {
			t.Errorf("%s: a figure is missing", page)
		}
	}
}
