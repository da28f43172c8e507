package mcpoauth

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// mcpServer is an MCP server on loopback that wants tokens of an authorization server,
// and says so (RFC 9728).
type mcpServer struct {
	*httptest.Server

	mu      sync.Mutex // guards the fields below
	issuers []string   // authorization_servers
	more    fields     // of its metadata
	calls   int
}

// newMCPServer starts an MCP server that wants tokens of as, which becomes
// discoverable.
func newMCPServer(t *testing.T, as *authServer, metadata fields) *mcpServer {
	t.Helper()
	as.describes(metadata)
	s := &mcpServer{issuers: []string{as.URL}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// wants makes the server want tokens of another authorization server.
func (s *mcpServer) wants(as *authServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuers = []string{as.URL}
}

// says sets more of the server's metadata.
func (s *mcpServer) says(more fields) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more = more
}

// called is the number of requests that came.
func (s *mcpServer) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// url is the server's URL, as its clients call it.
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

// client is the config of a client of the server: what an operator has at hand.
func (s *mcpServer) client() fields {
	return fields{"server_url": s.url(), "client_id": "vault", "client_secret": secret}
}

// describes makes the server discoverable: its metadata names its issuer and its token
// endpoint, and what more says; a nil there leaves a member out.
func (as *authServer) describes(more fields) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.metadata = with(fields{"issuer": as.URL, "token_endpoint": as.URL + "/token"}, more)
	maps.DeleteFunc(as.metadata, func(_ string, value any) bool { return value == nil })
}

// looked is the number of requests for the metadata.
func (as *authServer) looked() int {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.looks
}

// serveMetadata answers requests at RFC 8414's well-known URL; not OpenID's.
func (as *authServer) serveMetadata(w http.ResponseWriter, r *http.Request) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.looks++
	if as.metadata == nil || r.URL.Path != "/.well-known/oauth-authorization-server" {
		http.NotFound(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(as.metadata)
}
