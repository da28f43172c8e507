package bed

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// A tempDir is a bed's temporary directory. Its file "lock" is locked until the process ends.
type tempDir struct {
	path string
	lock *os.File
}

const tempDirPrefix = "mcp-oauth-bed-"

// newTempDir makes a directory. It removes directories of ended processes, because go test does not clean up when it
// times out.
func newTempDir() (*tempDir, error) {
	removeAbandoned()
	path, err := os.MkdirTemp("", tempDirPrefix)
	if err != nil {
		return nil, err
	}
	// The file gets its name after it is locked, so other beds never see it unlocked.
	unnamed := filepath.Join(path, "lock.new")
	lock, err := os.Create(unnamed)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = os.Rename(unnamed, filepath.Join(path, "lock"))
	}
	d := &tempDir{path, lock}
	if err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

func (d *tempDir) remove() error {
	return errors.Join(os.RemoveAll(d.path), d.lock.Close())
}

// removeAbandoned removes directories whose lock is free, except those of other users.
func removeAbandoned() {
	locks, _ := filepath.Glob(filepath.Join(os.TempDir(), tempDirPrefix+"*", "lock"))
	for _, path := range locks {
		lock, err := os.Open(path)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		_ = lock.Close()
	}
}
