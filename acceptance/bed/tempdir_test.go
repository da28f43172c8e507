package bed

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A bed removes the directories of beds whose process has ended without closing them, and no others.
func TestDirectoriesOfEndedProcessesAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ours, err := newTempDir()
	if err != nil {
		t.Fatal(err)
	}
	ended, err := newTempDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ended.path, "vault.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ended.lock.Close(); err != nil { // as the end of its process does
		t.Fatal(err)
	}
	starting := filepath.Join(os.TempDir(), tempDirPrefix+"starting")
	if err := os.Mkdir(starting, 0o700); err != nil { // it has no lock yet
		t.Fatal(err)
	}
	another, err := newTempDir()
	if err != nil {
		t.Fatal(err)
	}
	check := func(want ...string) {
		t.Helper()
		got, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("there are %q, want %q", got, want)
		}
	}
	check(ours.path, starting, another.path)
	if err := ours.remove(); err != nil {
		t.Fatal(err)
	}
	check(starting, another.path)
	if err := another.remove(); err != nil {
		t.Fatal(err)
	}
}
