package bed

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The remains of an aborted build do not affect the next build.
func TestCachedBuildsAgainAfterAnAbortedBuild(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	cached := func(build func(dir string) error) (string, error) {
		return Cached(t.Context(), "tool-", []byte("pin"), t.Logf, build)
	}
	errAborted := errors.New("aborted")
	var leftover string
	if _, err := cached(func(dir string) error { leftover = dir; return errAborted }); !errors.Is(err, errAborted) {
		t.Fatalf("got %v, want the error of the build", err)
	}
	OK(t, os.MkdirAll(filepath.Join(leftover, "half"), 0o700))
	builds := 0
	for range 2 {
		path := Must(cached(func(dir string) error { builds++; return os.Mkdir(dir, 0o700) }))(t)
		if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
			t.Errorf("the cache has %v of the aborted build: %v", entries, err)
		}
	}
	if _, err := os.Stat(leftover); builds != 1 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%d builds, want one; the leftover file of the aborted build: %v", builds, err)
	}
}
