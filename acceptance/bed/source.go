package bed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

const rootModule = "module github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth"

// rootDir finds the repository's root above the working directory.
var rootDir = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte(rootModule+"\n")) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("run this from within the checkout: the bed builds the plugin and Vault from the sources there")
		}
		dir = parent
	}
})

// SourcePath returns the absolute path of a file or directory of the repository.
func SourcePath(elem ...string) (string, error) {
	dir, err := rootDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(append([]string{dir}, elem...)...), nil
}

func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no directory to keep built binaries in: %w", err)
	}
	dir = filepath.Join(dir, "vault-plugin-mcp-oauth")
	return dir, os.MkdirAll(dir, 0o755)
}
