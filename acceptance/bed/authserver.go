package bed

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
)

// NewAuthServer starts a program of acceptance/authservers with its options, and returns the URL of its token
// endpoint.
func (b *Bed) NewAuthServer(ctx context.Context, program string, options any) (string, error) {
	dir, err := SourcePath("acceptance", "authservers")
	if err != nil {
		return "", err
	}
	argument, err := json.Marshal(options)
	if err != nil {
		return "", err
	}
	// All users of the machine can see a process's arguments, so the secret among them protects nothing.
	cmd := exec.Command("node", program, string(argument))
	cmd.Dir = dir
	name := "as-" + strings.TrimSuffix(program, filepath.Ext(program))
	var started struct{ URL string }
	_, err = b.newReady(ctx, name, cmd, &started)
	return started.URL, err
}
