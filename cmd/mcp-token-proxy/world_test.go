package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is a Vault with the plugin, and an MCP server, both as HTTP handlers.
type world struct {
	t      *testing.T
	vault  *httptest.Server
	server *httptest.Server

	mu        sync.Mutex // guards the fields below
	number    int        // of Vault's current token
	lifetime  time.Duration
	away      bool // Vault answers 503
	refused   map[string]bool
	vaultSaw  []string // Vault tokens
	serverSaw []*http.Request
	bodies    []string
	answer    http.HandlerFunc // the MCP server's answer to accepted requests; default: it echoes the body

	log *bytes.Buffer // the proxy's log; read after the proxy has ended
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Setenv("VAULT_TOKEN", "vault-token")
	t.Setenv("VAULT_MAX_RETRIES", "0")
	w := &world{t: t, number: 1, lifetime: time.Hour, refused: map[string]bool{}, log: &bytes.Buffer{}}
	w.vault = httptest.NewServer(http.HandlerFunc(w.serveVault))
	w.server = httptest.NewServer(http.HandlerFunc(w.serveMCP))
	t.Cleanup(w.vault.Close)
	t.Cleanup(func() {
		w.server.CloseClientConnections()
		w.server.Close()
	})
	return w
}

func (w *world) with(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) serveVault(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.vaultSaw = append(w.vaultSaw, r.Header.Get("X-Vault-Token"))
	var data map[string]any
	switch {
	case w.away:
		rw.WriteHeader(http.StatusServiceUnavailable)
		_, _ = rw.Write([]byte(`{"errors":["Vault is sealed"]}`))
		return
	case r.URL.Path == "/v1/mcp-oauth/token/files":
		now := time.Now().UTC().Truncate(time.Second)
		data = map[string]any{
			"access_token": access(w.number), "token_type": "Bearer", "token_id": tokenID(w.number),
			"ttl": 1, "last_vault_rotation": now.Format(time.RFC3339), "expires_at": now.Add(w.lifetime).Format(time.RFC3339),
		}
	case r.URL.Path == "/v1/mcp-oauth/refresh/files":
		var body struct {
			ID string `json:"token_id"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.t.Error(err)
		}
		if body.ID == tokenID(w.number) {
			w.number++
		}
		data = map[string]any{"token_id": tokenID(w.number), "refreshed": true}
	default:
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(rw).Encode(map[string]any{"data": data})
}

func (w *world) serveMCP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	refused := w.refused[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	answer := w.answer
	w.serverSaw = append(w.serverSaw, r.Clone(context.Background()))
	w.mu.Unlock()
	if refused {
		rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		rw.WriteHeader(http.StatusUnauthorized)
		_, _ = rw.Write([]byte("refused"))
		return
	}
	if answer != nil {
		answer(rw, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	w.with(func() { w.bodies = append(w.bodies, string(body)) })
	_, _ = rw.Write(body)
}

// saw returns the last request to the MCP server.
func (w *world) saw() *http.Request {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.serverSaw) == 0 {
		w.t.Fatal("the MCP server got no request")
	}
	return w.serverSaw[len(w.serverSaw)-1]
}

// config is one route, named files, to the MCP server.
func (w *world) config() *config {
	return &config{
		Listeners: []listener{{Type: "tcp", Address: "127.0.0.1:0"}},
		Vault:     vaultConfig{Address: w.vault.URL},
		Routes:    []routeConfig{{Name: "files", Upstream: w.server.URL + "/mcp", TokenPath: "mcp-oauth/token/files"}},
	}
}

// start serves a configuration, and returns the URL of the route.
func (w *world) start(c *config) string {
	w.t.Helper()
	if err := c.validate(); err != nil {
		w.t.Fatal(err)
	}
	p, err := newProxy(c, w.logger())
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewServer(p.handler(w.t.Context()))
	w.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL + "/files"
}

func (w *world) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w.log, nil)) }

func access(n int) string { return fmt.Sprintf("secret-%d", n) }

func tokenID(n int) string {
	sum := sha256.Sum256([]byte(access(n)))
	return hex.EncodeToString(sum[:8])
}

// request makes a request with headers, given as alternating names and values.
func request(t *testing.T, method, url string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func do(t *testing.T, r *http.Request) *http.Response {
	t.Helper()
	// Following a redirect would reach the MCP server directly.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func text(t *testing.T, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func post(t *testing.T, url, body string, headers ...string) *http.Response {
	t.Helper()
	return do(t, request(t, http.MethodPost, url, strings.NewReader(body), headers...))
}

// tokensVaultSaw returns the Vault tokens in the requests to Vault, in order.
func (w *world) tokensVaultSaw() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.vaultSaw)
}

// writeFile writes a file that only its owner can read.
func writeFile(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
