package bed

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// An SDKServer is an MCP server of an SDK in Python or TypeScript, in a process of its own: see
// acceptance/mcpservers.
type SDKServer struct {
	URL      string // of the MCP endpoint
	Resource string // as its metadata publishes it

	bed *Bed
	log string
}

// SDKOptions are an SDKServer's options.
type SDKOptions struct {
	Issuer   string   `json:"issuer,omitempty"` // of the tokens that it takes; "" makes it open to everybody
	Resource string   `json:"resource"`         // path of the resource identifier: /mcp, or "" for the origin
	Scopes   []string `json:"scopes,omitempty"` // that every request needs
}

// InstallSDKServers installs the packages of acceptance/mcpservers. Without a Python those in Python are left out.
func InstallSDKServers(ctx context.Context, log func(format string, args ...any)) error {
	if _, err := InstallPackages(ctx, "mcpservers", log); err != nil {
		return err
	}
	if _, err := installPython(ctx, log); err != nil && !errors.Is(err, ErrNoPython) {
		return err
	}
	return nil
}

// NewSDKServer starts a program of acceptance/mcpservers, and makes what it publishes a resource of the
// authorization server, with r's scopes and lifetime. ErrNoPython says why one in Python can't be started.
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
	if _, err := cmd.StdinPipe(); err != nil { // the server ends when this closes
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	name := b.unique("mcp-"+strings.TrimSuffix(program, filepath.Ext(program))) + "-server" // unique again for NewProcess
	process, err := b.NewProcess(name, cmd)
	if err != nil {
		return nil, err
	}
	s := &SDKServer{bed: b, log: filepath.Join(b.LogDir(), name+".log")}
	stop := context.AfterFunc(ctx, process.Kill)
	defer stop()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, s)
	}
	if err != nil {
		return nil, fmt.Errorf("%s did not start, see %s: %w", program, s.log, err)
	}
	r.URL = s.Resource
	return s, b.AS.SetResource(ctx, r)
}

// ListTools returns the names of the server's tools. authorization is the value of the header; "" sends none.
func (s *SDKServer) ListTools(ctx context.Context, authorization string) ([]string, error) {
	client := mcp.NewClient(&mcp.Implementation{Name: "broker", Version: "1.0.0"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: s.URL,
		HTTPClient: &http.Client{Transport: s.bed.errors.transport(roundTripper(func(req *http.Request) (*http.Response, error) {
			if authorization != "" {
				req = req.Clone(req.Context())
				req.Header.Set("Authorization", authorization)
			}
			return http.DefaultTransport.RoundTrip(req)
		}))},
		DisableStandaloneSSE: true,
		MaxRetries:           -1,
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer session.Close()
	result, err := session.ListTools(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list tools: %w", err)
	}
	var names []string
	for _, tool := range result.Tools {
		names = append(names, tool.Name)
	}
	return names, nil
}

// Log is what the server has said on its standard error.
func (s *SDKServer) Log() (string, error) {
	content, err := os.ReadFile(s.log)
	return string(content), err
}
