package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCyclesOfFiles(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  []string // parts of the output; empty: no cycle
	}{
		{"names that point one way", map[string]string{
			"a.go": "package p\n\nfunc a() int { return b() + c }\n",
			"b.go": "package p\n\nfunc b() int { return c }\n",
			"c.go": "package p\n\nconst c = 1\n",
		}, nil},
		{"names that point both ways", map[string]string{
			"a.go": "package p\n\nfunc a() int { return b() }\n\nvar x = 1\n",
			"b.go": "package p\n\nfunc b() int { return x }\n",
		}, []string{"p: a cycle of files: a.go b.go\n", "a.go -> b.go: b\n", "b.go -> a.go: x\n"}},
		{"over a third file", map[string]string{
			"a.go": "package p\n\nvar a = b\n",
			"b.go": "package p\n\nvar b = c()\n",
			"c.go": "package p\n\nfunc c() int { type t []int; return len(t(nil)) + d }\n",
			"d.go": "package p\n\nconst d = 1\n\nfunc e() int { return a }\n",
		}, []string{"a.go b.go c.go d.go\n"}},
		{"a method and its type", map[string]string{
			"a.go": "package p\n\ntype t struct{}\n\nfunc (v t) a() { v.b() }\n",
			"b.go": "package p\n\nfunc (v t) b() {}\n",
		}, []string{"a.go -> b.go: b\n", "b.go -> a.go: t\n"}},
		{"a field", map[string]string{
			"a.go": "package p\n\ntype t struct{ field int }\n\nvar a = b()\n",
			"b.go": "package p\n\nfunc b() int { return c().field }\n",
			"c.go": "package p\n\nfunc c() (v t) { return v }\n",
		}, []string{"b.go -> a.go: field\n"}},
		{"tests are left out", map[string]string{
			"a.go":      "package p\n\nvar a = 1\n",
			"a_test.go": "package p\n\nvar b = a\n",
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.files["go.mod"] = "module p\n\ngo 1.26\n"
			dir := written(t, test.files)
			var out strings.Builder
			loaded, err := load(dir, "./...")
			if err != nil {
				t.Fatal(err)
			}
			cycles := check(&out, loaded)
			if want := min(len(test.want), 1); cycles != want {
				t.Errorf("%d cycles; want %d:\n%s", cycles, want, out.String())
			}
			for _, part := range test.want {
				if !strings.Contains(out.String(), part) {
					t.Errorf("the output lacks %q:\n%s", part, out.String())
				}
			}
		})
	}
}

// written returns a new directory with these files.
func written(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPackagesThatDoNotCompileAreAnError(t *testing.T) {
	dir := written(t, map[string]string{"go.mod": "module p\n\ngo 1.26\n", "a.go": "package p\n\nvar a = b\n"})
	if _, err := load(dir, "./..."); err == nil || !strings.Contains(err.Error(), "undefined: b") {
		t.Errorf("the error is %v; want the compiler's", err)
	}
}
