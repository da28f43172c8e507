package bed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// withFileLock runs f while it holds the lock file at path. go test runs packages in several processes, which share
// binaries and node_modules. If the holder dies, the kernel releases the lock. A wait is logged.
func withFileLock(ctx context.Context, path string, log func(format string, args ...any), f func() error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	for waiting := false; ; {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return err
		}
		if !waiting {
			waiting = true
			log("waiting for another process that holds %s", path)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return f()
}
