package bed

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
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
	if _, err := cmd.StdinPipe(); err != nil { // the server ends when this closes
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	name := b.unique("as-" + strings.TrimSuffix(program, filepath.Ext(program)))
	process, err := b.NewProcess(name, cmd)
	if err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, process.Kill)()
	var started struct{ URL string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &started)
	}
	if err != nil {
		return "", fmt.Errorf("%s did not start, see %s: %w", program, filepath.Join(b.LogDir(), name+".log"), err)
	}
	return started.URL, nil
}
