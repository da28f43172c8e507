package mcpoauth

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// mcpServer is an MCP server on loopback whose metadata (RFC 9728) names its authorization servers.
type mcpServer struct {
	*httptest.Server

	mu      sync.Mutex // guards the fields below
	issuers []string   // authorization_servers
	more    fields     // of its metadata
	calls   int
}

// newMCPServer starts an MCP server that accepts tokens of as, and makes as discoverable.
func newMCPServer(t *testing.T, as *authServer, metadata fields) *mcpServer {
	t.Helper()
	as.describes(metadata)
	s := &mcpServer{issuers: []string{as.URL}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// wants makes the metadata name another authorization server instead.
func (s *mcpServer) wants(as *authServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuers = []string{as.URL}
}

// says adds to the server's metadata.
func (s *mcpServer) says(more fields) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more = more
}

func (s *mcpServer) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *mcpServer) url() string { return s.URL + "/mcp" }

func (s *mcpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	const wellKnown = "/.well-known/oauth-protected-resource"
	if !strings.HasPrefix(r.URL.Path, wellKnown) {
		w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="`+s.URL+wellKnown+`/mcp"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_ = json.NewEncoder(w).Encode(with(fields{"resource": s.url(), "authorization_servers": s.issuers}, s.more))
}

// client is the shortest config of a client for the server.
func (s *mcpServer) client() fields {
	return fields{"server_url": s.url(), "client_id": "vault", "client_secret": secret}
}
