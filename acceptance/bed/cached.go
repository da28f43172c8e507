package bed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// Cached returns the path of a file or directory in the user's cache directory, named by prefix and a digest of the
// pin. If it is missing, build makes it, in one process at a time.
func Cached(ctx context.Context, prefix string, pin []byte, log func(string, ...any), build func(path string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(pin)
	path := filepath.Join(cache, prefix+hex.EncodeToString(hash[:4]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	err = withFileLock(ctx, path+".lock", log, func() error {
		if _, err := os.Stat(path); err == nil {
			return nil // another process has made it meanwhile
		}
		partial := path + ".partial" // for the holder of the lock only; a killed holder may have left it
		if err := os.RemoveAll(partial); err != nil {
			return err
		}
		defer os.RemoveAll(partial)
		if err := build(partial); err != nil {
			return err
		}
		return os.Rename(partial, path) // atomic, so other processes never see a partial result
	})
	return path, err
}
