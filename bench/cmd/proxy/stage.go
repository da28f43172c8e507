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
	"net/http/httputil"
	"net/url"
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
	binary := filepath.Join(dir, "mcp-token-proxy")
	if err := build(ctx, binary); err != nil {
		s.close()
		return nil, err
	}
	if s.token, err = s.startToken(ctx, binary); err == nil {
		s.bare, err = s.startBare(ctx)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// build builds mcp-token-proxy as make build does.
func build(ctx context.Context, binary string) error {
	module, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output() // bench/go.mod
	if err != nil {
		return err
	}
	cmd := bed.GoBuild(ctx, binary, "./cmd/mcp-token-proxy")
	cmd.Dir = filepath.Dir(filepath.Dir(string(module)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build mcp-token-proxy: %w\n%s", err, out)
	}
	return nil
}

// startToken starts an mcp-token-proxy.
func (s *stage) startToken(ctx context.Context, binary string) (*process, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "-listen="+address, "-upstream="+s.server.URL+"/mcp", "-token-path="+tokenPath)
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+s.vault.URL, "VAULT_TOKEN=bench")
	return start(ctx, cmd, "http://"+address+"/mcp")
}

// startBare starts this command as a bare ReverseProxy.
func (s *stage) startBare(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-bare="+s.server.URL)
	cmd.Env = append(os.Environ(), "BENCH_LISTEN="+address)
	return start(ctx, cmd, "http://"+address+"/mcp")
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

// serveBare serves a ReverseProxy without additions. Like mcp-token-proxy, it keeps its connections to the server.
func serveBare(ctx context.Context, server string) error {
	target, err := url.Parse(server)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	transport.MaxIdleConns = 0
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport}
	httpServer := &http.Server{Addr: os.Getenv("BENCH_LISTEN"), Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() {
		<-ctx.Done()
		httpServer.Close()
	}()
	if err := httpServer.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
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
