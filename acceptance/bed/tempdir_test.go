package bed

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A bed removes exactly the directories of beds whose process ended without closing them.
func TestDirectoriesOfEndedProcessesAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ours := Must(newTempDir())(t)
	ended := Must(newTempDir())(t)
	OK(t, os.WriteFile(filepath.Join(ended.path, "vault.log"), nil, 0o600))
	OK(t, ended.lock.Close()) // as when its process ends
	starting := filepath.Join(os.TempDir(), tempDirPrefix+"starting")
	OK(t, os.Mkdir(starting, 0o700)) // not locked yet
	another := Must(newTempDir())(t)
	check := func(want ...string) {
		t.Helper()
		got := Must(filepath.Glob(filepath.Join(os.TempDir(), "*")))(t)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("there are %q, want %q", got, want)
		}
	}
	check(ours.path, starting, another.path)
	OK(t, ours.remove())
	check(starting, another.path)
	OK(t, another.remove())
}
