package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// check runs the command on the test binary, in which golang.org/x/mod is linked.
func check(t *testing.T, db string) (string, error) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = run(t.Context(), []string{"-db", db, binary}, &out, &out)
	return out.String(), err
}

func TestDatabaseKnowsAVulnerability(t *testing.T) {
	for name, row := range map[string]struct {
		module     string
		vulnerable bool
	}{
		"of a linked module":  {"golang.org/x/mod", true},
		"of a missing module": {"example.com/other", false},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := check(t, database(t, row.module))
			if (err != nil) != row.vulnerable || strings.Contains(out, "GO-2026-0001") != row.vulnerable {
				t.Errorf("%v, and it prints:\n%s", err, out)
			}
			if strings.Contains(out, "can't be reached") {
				t.Errorf("the database got no query:\n%s", out)
			}
		})
	}
}

func TestMinimumVersionsStandInForTheDatabase(t *testing.T) {
	old := minimum
	defer func() { minimum = old }()
	for version, vulnerable := range map[string]bool{"v0.1.0": false, "v999.0.0": true} {
		minimum = []fixed{{"golang.org/x/mod", version, "GO-2026-0002"}, {"example.com/other", "v999.0.0", "GO-2026-0003"}}
		out, err := check(t, "http://127.0.0.1:1")
		if !strings.Contains(out, "http://127.0.0.1:1 can't be reached") || !strings.Contains(out, "with 2 minimum versions instead") {
			t.Errorf("the output does not say that the database is out of reach:\n%s", out)
		}
		if (err != nil) != vulnerable || vulnerable && !strings.Contains(err.Error(), "has GO-2026-0002, which v999.0.0 fixes") {
			t.Errorf("with the minimum %s: %v", version, err)
		}
	}
}

// Minimum versions are used only if the database is out of reach. Another failure of the check is an error.
func TestFailedCheckIsAnError(t *testing.T) {
	t.Run("broken", func(t *testing.T) {
		db := database(t, "golang.org/x/mod")
		if err := os.WriteFile(filepath.Join(strings.TrimPrefix(db, "file://"), "ID", "GO-2026-0001.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := check(t, db); err == nil || strings.Contains(out, "minimum versions") {
			t.Errorf("%v, and it prints:\n%s", err, out)
		}
	})
	t.Run("served by another site", func(t *testing.T) {
		site := httptest.NewServer(http.NotFoundHandler())
		defer site.Close()
		if out, err := check(t, site.URL); err == nil || strings.Contains(out, "minimum versions") {
			t.Errorf("%v, and it prints:\n%s", err, out)
		}
	})
}

// If a database accepts connections and does not answer, it is out of reach.
func TestDatabaseThatHangs(t *testing.T) {
	old := probeTimeout
	defer func() { probeTimeout = old }()
	probeTimeout = 100 * time.Millisecond
	answer := make(chan struct{})
	site := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-answer }))
	defer site.Close()
	defer close(answer)
	if out, _ := check(t, site.URL); !strings.Contains(out, "can't be reached") {
		t.Errorf("the output does not say that the database is out of reach:\n%s", out)
	}
}

func TestMinimumIsTheFixedVersion(t *testing.T) {
	for _, fix := range minimum {
		for version, vulnerable := range map[string]bool{"v0.0.1": true, fix.version + "-rc.1": true, fix.version: false, "v999.0.0": false} {
			found := belowMinimum(map[string]string{fix.module: version}, minimum)
			if (len(found) == 1) != vulnerable {
				t.Errorf("%s %s: %v", fix.module, version, errors.Join(found...))
			}
		}
	}
}

func TestNoGoBinary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{file}, &out, &out); err == nil || !strings.Contains(err.Error(), "build information") {
		t.Errorf("%v", err)
	}
}

// database writes a vulnerability database with one vulnerability, in all versions of a module, and returns its URL.
func database(t *testing.T, module string) string {
	t.Helper()
	dir := t.TempDir()
	for file, content := range map[string]string{
		"index/db.json":      `{"modified":"2026-11-01T00:00:00Z"}`,
		"index/modules.json": `[{"path":"` + module + `","vulns":[{"id":"GO-2026-0001","modified":"2026-11-01T00:00:00Z"}]}]`,
		"index/vulns.json":   `[{"id":"GO-2026-0001","modified":"2026-11-01T00:00:00Z"}]`,
		"ID/GO-2026-0001.json": `{"schema_version":"1.3.1","id":"GO-2026-0001","modified":"2026-11-01T00:00:00Z",
			"published":"2026-11-01T00:00:00Z","summary":"a test","details":"a test","affected":[{"package":{"name":"` + module + `","ecosystem":"Go"},
			"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}],
			"ecosystem_specific":{"imports":[{"path":"` + module + `/semver"}]}}],"database_specific":{"url":"https://pkg.go.dev/vuln/GO-2026-0001"}}`,
	} {
		path := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return "file://" + filepath.ToSlash(dir)
}
