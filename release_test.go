package mcpoauth

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A release first checks its tag, in goreleaser's hook. make release-check does not run this hook.
func TestReleaseTagIsTheVersion(t *testing.T) {
	const changelog, unreleased = "# Changelog\n\n## [1.2.3] - 2026-01-02\n", "# Changelog\n\n## [Unreleased]\n"
	for _, test := range []struct {
		tag, version, changelog string
		want                    string // in the error; empty: no error
	}{
		{"v1.2.3", "v1.2.3", changelog, ""},
		{"v1.2.4", "v1.2.3", changelog, "the tag is v1.2.4, and the next version is v1.2.3"},
		{"1.2.3", "v1.2.3", changelog, "the tag is 1.2.3"},
		{"v1.2.3-rc1", "v1.2.3", changelog, "the tag is v1.2.3-rc1"},
		{"v1.2.3", "v1.2.3", unreleased, "CHANGELOG.md has no entry for 1.2.3"},
		{"v1.2", "v1.2", changelog, "CHANGELOG.md has no entry for 1.2"},
		{"", "v1.2.3", changelog, "a tag"},
	} {
		t.Run(test.tag+" of "+test.version, func(t *testing.T) {
			dir := releaseSource(t, test.version, test.changelog)
			out, err := exec.CommandContext(t.Context(), "bash", filepath.Join(dir, "scripts", "release-check"), "tag", test.tag).CombinedOutput()
			if good := test.want == ""; (err == nil) != good || !strings.Contains(string(out), test.want) {
				t.Errorf("%v, %q; want %q", err, out, test.want)
			}
		})
	}

	contains(t, "the hook", readText(t, ".goreleaser.yaml"), "\n    - scripts/release-check tag {{ .Tag }}\n")
	contains(t, "the workflow", readText(t, ".github/workflows/release.yml"), " goreleaser release --clean\n") // without --skip
}

// make release-check checks the tag of a tagged commit, whether the tag is annotated or lightweight: a fresh checkout
// of a pushed tag has a lightweight one.
func TestReleaseCheckSeesTheCommitsTag(t *testing.T) {
	for kind, flags := range map[string][]string{"lightweight": nil, "annotated": {"-a", "-m", "a release"}} {
		for _, test := range []struct{ tag, changelog, want string }{
			{"v1.2.4", "## [1.2.3]\n", "the tag is v1.2.4, and the next version is v1.2.3"},
			// Without the tag, this would be accepted as a future release.
			{"v1.2.3", "## [Unreleased]\n", "CHANGELOG.md has no entry for 1.2.3"},
		} {
			t.Run(kind+" "+test.tag, func(t *testing.T) {
				dir := releaseSource(t, "v1.2.3", test.changelog)
				for _, args := range [][]string{
					{"init", "-q"},
					{"add", "."},
					{"commit", "-q", "-m", "a commit"},
					slices.Concat([]string{"tag"}, flags, []string{test.tag}),
				} {
					cmd := exec.CommandContext(t.Context(), "git", slices.Concat(
						[]string{"-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"}, args)...)
					cmd.Dir = dir
					cmd.Env = append(cmd.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Fatalf("git %s: %v\n%s", args[0], err, out)
					}
				}
				out, err := exec.CommandContext(t.Context(), "bash", filepath.Join(dir, "scripts", "release-check")).CombinedOutput()
				if err == nil || !strings.Contains(string(out), test.want) {
					t.Errorf("%v, %q; want %q", err, out, test.want)
				}
			})
		}
	}
}

// releaseSource makes a directory of the files for the check of the tag.
func releaseSource(t *testing.T, version, changelog string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"scripts/release-check": readText(t, "scripts/release-check"),
		versionFile:             regexp.MustCompile(`v[0-9]+\.[0-9]+\.[0-9]+`).ReplaceAllString(versionSource(t), version),
		"CHANGELOG.md":          changelog,
	} {
		path := filepath.Join(dir, name)
		noError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		noError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return dir
}

// versionFile holds the next version. The check reads it as text.
const versionFile = "internal/version/version.go"

func versionSource(t *testing.T) string {
	t.Helper()
	source := readText(t, versionFile)
	contains(t, versionFile, source, "\nconst next = \"v")
	return source
}
