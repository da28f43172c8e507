package bed

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// An SDKServer is a process of an MCP server that uses an SDK in Python or TypeScript, see acceptance/mcpservers.
type SDKServer struct {
	URL      string // of the MCP endpoint
	Resource string // in its metadata

	bed *Bed
	log string
}

// SDKOptions are an SDKServer's options.
type SDKOptions struct {
	Issuer   string   `json:"issuer,omitempty"` // of accepted tokens; empty: requests need no token
	Resource string   `json:"resource"`         // path of the resource identifier: /mcp, or "" for the origin
	Scopes   []string `json:"scopes,omitempty"` // required by every request
}

// InstallSDKServers installs the packages of acceptance/mcpservers. It skips the packages in Python if the machine
// has no Python.
func InstallSDKServers(ctx context.Context, log func(format string, args ...any)) error {
	if _, err := InstallPackages(ctx, "mcpservers", log); err != nil {
		return err
	}
	if _, err := installPython(ctx, log); err != nil && !errors.Is(err, ErrNoPython) {
		return err
	}
	return nil
}

// NewSDKServer starts a program of acceptance/mcpservers. It registers the program's resource at the authorization
// server, with r's scopes and lifetime. It returns ErrNoPython if a program in Python cannot be started.
func (b *Bed) NewSDKServer(ctx context.Context, program string, options SDKOptions, r Resource) (*SDKServer, error) {
	dir, err := InstallPackages(ctx, "mcpservers", b.log)
	if err != nil {
		return nil, err
	}
	command := "node"
	if filepath.Ext(program) == ".py" {
		if command, err = installPython(ctx, b.log); err != nil {
			return nil, err
		}
	}
	argument, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(command, program, string(argument))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "COLUMNS=200", "HOME="+b.Dir)
	name := "mcp-" + strings.TrimSuffix(program, filepath.Ext(program)) + "-server"
	s := &SDKServer{bed: b}
	if s.log, err = b.newReady(ctx, name, cmd, s); err != nil {
		return nil, err
	}
	r.URL = s.Resource
	return s, b.AS.SetResource(ctx, r)
}

// ListTools returns the names of the server's tools. authorization is the header's value; "" sends none.
func (s *SDKServer) ListTools(ctx context.Context, authorization string) ([]string, error) {
	broker := &Broker{endpoint: s.URL, secrecy: s.bed.Secrecy, errors: s.bed.errors}
	broker.header = func() (string, error) { return authorization, nil }
	names, err := broker.ListTools(ctx)
	return names, errors.Join(err, broker.close())
}

// Log returns the server's standard error.
func (s *SDKServer) Log() (string, error) {
	content, err := os.ReadFile(s.log)
	return string(content), err
}
