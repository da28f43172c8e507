package bed

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
)

// NewAuthServer starts a token endpoint of acceptance/authservers with its options, and returns its URL.
func (b *Bed) NewAuthServer(ctx context.Context, program string, options any) (string, error) {
	dir, err := SourcePath("acceptance", "authservers")
	if err != nil {
		return "", err
	}
	argument, err := json.Marshal(options)
	if err != nil {
		return "", err
	}
	// A process's arguments are seen by all users of the machine: the secret in them guards nothing.
	cmd := exec.Command("node", program, string(argument))
	cmd.Dir = dir
	name := "as-" + strings.TrimSuffix(program, filepath.Ext(program))
	var started struct{ URL string }
	_, err = b.newReady(ctx, name, cmd, &started)
	return started.URL, err
}
