package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPictureHasTheEdgesThatDoNotFollowFromOthers(t *testing.T) {
	dir := written(t, map[string]string{
		"go.mod":  "module example.com/p\n\ngo 1.26\n",
		"a.go":    "package p\n\nimport \"example.com/p/q\"\n\nvar a = b + c + q.Q\n",
		"b.go":    "package p\n\nvar b = c\n",
		"c.go":    "package p\n\nvar c = 1\n",
		"q/q.go":  "package q\n\nvar Q = 1\n",
		"page.md": "before\n" + begin + "old\n" + end + "after\n",
	})
	page := filepath.Join(dir, "page.md")
	loaded, err := load(dir, "./...")
	if err != nil {
		t.Fatal(err)
	}
	const want = "before\n" + begin +
		"```mermaid\nflowchart TD\np-->q\n```\n\n```mermaid\nflowchart TD\na-->b\nb-->c\n```\n" + end + "after\n"
	for range 2 { // drawing again changes nothing
		if err := draw(page, loaded); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(page); err != nil || string(got) != want {
			t.Fatalf("the page is\n%s%v\nwant\n%s", got, err, want)
		}
	}
	if err := os.WriteFile(page, []byte("no marks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := draw(page, loaded); err == nil || !strings.Contains(err.Error(), "lacks the line") {
		t.Errorf("the error for a page without a place is %v", err)
	}
}
