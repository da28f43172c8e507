package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// tokenPath is the path of the token in the stage's Vault.
const tokenPath = "mcp-oauth/token/files"

// A stage is an MCP server, a Vault, and the two proxies in front of the server.
type stage struct {
	dir    string
	server *httptest.Server
	vault  *httptest.Server
	token  *process // mcp-token-proxy
	bare   *process // a bare ReverseProxy
}

// A process is a running proxy.
type process struct {
	cmd *exec.Cmd
	url string // the MCP server's URL at the proxy
}

func newStage(ctx context.Context) (*stage, error) {
	dir, err := os.MkdirTemp("", "bench-proxy-")
	if err != nil {
		return nil, err
	}
	s := &stage{
		dir:    dir,
		server: httptest.NewServer(http.HandlerFunc(serveMCP)),
		vault:  httptest.NewServer(http.HandlerFunc(serveVault)),
	}
	if s.token, err = s.startToken(ctx); err == nil {
		s.bare, err = s.startBare(ctx)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// build builds a command as make build does, and returns its executable. The bare proxy is not run from this command's
// own executable: a process with the same code at the same addresses finds it in the CPU's caches and branch predictors.
// moduleDir is relative to bench.
func (s *stage) build(ctx context.Context, moduleDir, command string) (string, error) {
	bench, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output() // bench/go.mod
	if err != nil {
		return "", err
	}
	binary := filepath.Join(s.dir, command)
	cmd := bed.GoBuild(ctx, binary, "./cmd/"+command)
	cmd.Dir = filepath.Join(filepath.Dir(string(bench)), moduleDir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", command, err, out)
	}
	return binary, nil
}

// startToken builds and starts an mcp-token-proxy.
func (s *stage) startToken(ctx context.Context) (*process, error) {
	binary, err := s.build(ctx, "..", "mcp-token-proxy")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "-listen="+address, "-upstream="+s.server.URL+"/mcp", "-token-path="+tokenPath)
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+s.vault.URL, "VAULT_TOKEN=bench")
	return start(ctx, cmd, "http://"+address+"/mcp")
}

// startBare builds and starts a bare ReverseProxy.
func (s *stage) startBare(ctx context.Context) (*process, error) {
	binary, err := s.build(ctx, ".", "bare-proxy")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	return start(ctx, exec.CommandContext(ctx, binary, address, s.server.URL), "http://"+address+"/mcp")
}

// start starts a proxy and waits until it answers.
func start(ctx context.Context, cmd *exec.Cmd, through string) (*process, error) {
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, url: through}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, through, strings.NewReader(call))
		if err != nil {
			return nil, err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return p, nil
			}
		}
		<-tick.C
	}
	p.stop()
	return nil, errors.New("a proxy does not answer")
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (s *stage) close() {
	for _, p := range []*process{s.token, s.bare} {
		if p != nil {
			p.stop()
		}
	}
	s.server.CloseClientConnections()
	s.server.Close()
	s.vault.Close()
	os.RemoveAll(s.dir)
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// call is a client's message, a tool call of usual size, and answer is the server's.
var (
	call   = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"forecast","arguments":{"city":"Oslo"}}}`
	answer = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"` + strings.Repeat("cloudy ", 100) + `"}]}}`
)

// serveMCP answers a POST with a message, and a GET with a stream that begins with an event and stays open.
func serveMCP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, ": open\n\n")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// serveVault answers a read of the token.
func serveVault(w http.ResponseWriter, _ *http.Request) {
	now := time.Now().UTC()
	_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{
		"access_token": strings.Repeat("a", 1000), "token_type": "Bearer", "ttl": 240, "token_id": "0123456789abcdef",
		"last_vault_rotation": now.Format(time.RFC3339), "expires_at": now.Add(5 * time.Minute).Format(time.RFC3339),
	}})
}

// openStream opens a stream, and returns when its first event has arrived.
func openStream(ctx context.Context, client *http.Client, through string) (io.Closer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, through, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if _, err := bufio.NewReaderSize(response.Body, 16).ReadString('\n'); err != nil {
		response.Body.Close()
		return nil, err
	}
	return response.Body, nil
}
