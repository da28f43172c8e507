package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These are the flags of a release in .goreleaser.yaml.
var releaseFlags = []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid= -X github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/version.release=v1.2.3"}

// A user can rebuild a release and compare: with the flags of a release, the binary does not depend on the checkout's
// directory. The second build finds all packages in the build cache and only links them, so this test does not show
// that the compiler is deterministic. scripts/release-check shows it for all files of each platform; it begins with
// an empty cache and takes minutes.
func TestBuildDoesNotDependOnTheCheckoutsPlace(t *testing.T) {
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(checkout, ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range releaseFlags {
		value := strings.Replace(strings.TrimPrefix(flag, "-ldflags="), "v1.2.3", "{{ .Tag }}", 1)
		if !bytes.Contains(config, []byte("- "+value+"\n")) {
			t.Errorf(".goreleaser.yaml does not build with %q", value)
		}
	}

	// The compiler treats a link to the checkout as another directory. Without -trimpath, its path is in the binary.
	dir := t.TempDir()
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.Symlink(checkout, elsewhere); err != nil {
		t.Fatal(err)
	}
	var binaries [2][]byte
	for i, place := range []string{checkout, elsewhere} {
		binary := filepath.Join(dir, "plugin")
		args := append([]string{"build", "-o", binary}, releaseFlags...)
		cmd := exec.CommandContext(t.Context(), "go", append(args, "./cmd/vault-plugin-mcp-oauth")...)
		cmd.Dir = place // Environ sets PWD, from which go takes the directory's name
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build in %s: %v\n%s", place, err, out)
		}
		if binaries[i], err = os.ReadFile(binary); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(binary); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(binaries[i], []byte(place)) {
			t.Errorf("the binary built in %s contains this path", place)
		}
	}
	if !bytes.Equal(binaries[0], binaries[1]) {
		t.Error("two builds of the same source differ")
	}
}
