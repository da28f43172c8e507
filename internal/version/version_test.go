package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionIsTheTagOrNamesTheCommit(t *testing.T) {
	const (
		full    = "0123456789abcdef0123456789abcdef01234567"
		numbers = "0123456789012345a123456789abcdef01234567" // a number in a version may not begin with 0
		number  = "1234567890123456789012345678901234567890"
		zeros   = "0123456789012345678901234567890123456789"
	)
	recorded := func(version, revision string) *debug.BuildInfo {
		info := &debug.BuildInfo{Main: debug.Module{Version: version}}
		if revision != "" {
			info.Settings = []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: "false"}}
		}
		return info
	}
	changed := func(version, revision string) *debug.BuildInfo {
		info := recorded(version, revision)
		info.Settings[2].Value = "true"
		return info
	}
	for name, row := range map[string]struct {
		release, commit string
		info            *debug.BuildInfo
		want            string
	}{
		"a release":                    {"v0.2.0", "", recorded("(devel)", ""), "v0.2.0"},
		"make build":                   {"", full, recorded("(devel)", ""), "v0.2.0-dev.0123456789ab"},
		"make build at a tag":          {"", full, recorded("v0.2.0", full), "v0.2.0-dev.0123456789ab"},
		"make build of changes":        {"", full, changed("v0.2.0+dirty", full), "v0.2.0-dev.0123456789ab.dirty"},
		"go build":                     {"", "", recorded("v0.0.0-20261129120000-0123456789ab", full), "v0.2.0-dev.0123456789ab"},
		"a commit of digits":           {"", "", recorded("(devel)", number), "v0.2.0-dev.123456789012"},
		"a commit of a 0 and digits":   {"", "", recorded("(devel)", numbers), "v0.2.0-dev.0123456789012345a"},
		"make build of it":             {"", numbers, recorded("(devel)", numbers), "v0.2.0-dev.0123456789012345a"},
		"a commit without a letter":    {"", "", recorded("(devel)", zeros), "v0.2.0-dev." + zeros},
		"go build after a release":     {"", "", recorded("v0.2.1-0.20261129120000-0123456789ab", full), "v0.2.0-dev.0123456789ab"},
		"go build of a changed tag":    {"", "", changed("v0.2.0+dirty", full), "v0.2.0-dev.0123456789ab.dirty"},
		"go install of a tag":          {"", "", recorded("v0.2.0", ""), "v0.2.0"},
		"go install of a candidate":    {"", "", recorded("v0.2.0-rc.1", ""), "v0.2.0-rc.1"},
		"go build without git":         {"", "", recorded("(devel)", ""), "v0.2.0-dev"},
		"a build that records nothing": {"", "", nil, "v0.2.0-dev"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := of(row.release, row.commit, row.info); got != row.want {
				t.Errorf("the version is %s, want %s", got, row.want)
			}
		})
	}
}

// The Makefile and goreleaser's configuration set variables of this package by name. The linker does not check the
// names.
func TestTheLinkerSetsTheVersion(t *testing.T) {
	const name = "github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version"
	for file, flag := range map[string]string{
		"Makefile":         "-X " + name + ".commit=",
		".goreleaser.yaml": "-X " + name + ".release={{ .Tag }}",
	} {
		content, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil || !strings.Contains(string(content), flag) {
			t.Errorf("%s does not have %q: %v", file, flag, err)
		}
	}
	dir := t.TempDir()
	for flag, want := range map[string]string{"commit=0123456789abcdef0123456789abcdef01234567": next + "-dev.0123456789ab", "release=v1.2.3": "v1.2.3"} {
		binary := filepath.Join(dir, "mcp-token-proxy")
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-X "+name+"."+flag, "-o", binary, "../../cmd/mcp-token-proxy")
		build.Env = append(build.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		out, err := exec.CommandContext(t.Context(), binary, "-version").Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("with %s the binary reports %q, want %q: %v", flag, got, want, err)
		}
	}
}
