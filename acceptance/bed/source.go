package bed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// modulePath is the first line of this module's go.mod.
const modulePath = "module github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance"

// moduleDir finds the directory of this module from the working directory, which go test and
// go run set to somewhere inside it.
var moduleDir = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte(modulePath+"\n")) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("run this from within the acceptance directory: the bed builds the plugin and Vault from the sources beside it")
		}
		dir = parent
	}
})

// sourcePath is the absolute path of a file or directory, given relative to the repository's root.
func sourcePath(elem ...string) (string, error) {
	dir, err := moduleDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(append([]string{filepath.Dir(dir)}, elem...)...), nil
}

// cacheDir is where built binaries are kept between runs, outside of the checkout.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no directory to keep built binaries in: %w", err)
	}
	dir = filepath.Join(dir, "vault-plugin-mcp-oauth")
	return dir, os.MkdirAll(dir, 0o755)
}
