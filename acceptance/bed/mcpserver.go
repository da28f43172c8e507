package bed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

const mcpPath = "/mcp"

// An MCPServer is an MCP server that accepts a token only if the authorization server has signed it for this server
// and it has not expired, without leeway.
type MCPServer struct {
	URL string // of the MCP endpoint; also the audience of its tokens

	secrecy *Secrecy
	http    *http.Server

	mu      sync.Mutex // guards the fields below
	issuer  Issuer
	keys    *jose.JSONWebKeySet
	names   string // the issuer that the metadata names
	counts  MCPCounts
	jtis    map[string]bool // of accepted tokens
	refused map[string]bool // jtis answered with a 401
}

// An Issuer is an authorization server for an MCP server.
type Issuer struct {
	URL    string // in tokens and metadata
	KeySet string // URL of its signing keys
}

// MCPCounts counts an MCP server's requests.
type MCPCounts struct {
	Requests     int // HTTP requests to the MCP endpoint
	Unauthorized int // of these: with a token, and answered with 401
	Tokens       int // distinct accepted tokens, by jti
}

// MCPOptions decide how clients find the authorization server.
type MCPOptions struct {
	// Quiet omits the challenge from 401 answers. Clients then find the metadata at the well-known URL.
	Quiet bool

	// ChallengeScopes are the scopes in the challenge, which the server requires. Default: none.
	ChallengeScopes []string
}

// startMCPServer starts an MCP server on a free loopback port, with these scopes in its metadata.
func startMCPServer(ctx context.Context, issuer Issuer, scopes []string, opts MCPOptions, secrecy *Secrecy) (*MCPServer, error) {
	keys, err := fetchKeys(ctx, issuer.KeySet)
	if err != nil {
		return nil, fmt.Errorf("keys of the authorization server: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	base := "http://" + listener.Addr().String()
	s := &MCPServer{
		URL:     base + mcpPath,
		issuer:  issuer,
		names:   issuer.URL,
		keys:    keys,
		secrecy: secrecy,
		jtis:    make(map[string]bool),
		refused: make(map[string]bool),
	}
	metadataPath := "/.well-known/oauth-protected-resource" + mcpPath // RFC 9728 section 3.1
	demand := &auth.RequireBearerTokenOptions{Scopes: opts.ChallengeScopes}
	if !opts.Quiet {
		demand.ResourceMetadataURL = base + metadataPath
	}
	guard := auth.RequireBearerToken(s.verify, demand)
	mux := http.NewServeMux()
	mux.HandleFunc(metadataPath, func(w http.ResponseWriter, r *http.Request) {
		auth.ProtectedResourceMetadataHandler(&oauthex.ProtectedResourceMetadata{
			Resource:               s.URL,
			AuthorizationServers:   []string{s.named()},
			ScopesSupported:        scopes,
			BearerMethodsSupported: []string{"header"},
		}).ServeHTTP(w, r)
	})
	mux.Handle(mcpPath, s.count(guard(tools())))
	s.http = &http.Server{Handler: mux}
	go func() { _ = s.http.Serve(listener) }() // returns when the server is closed
	return s, nil
}

func fetchKeys(ctx context.Context, url string) (*jose.JSONWebKeySet, error) {
	keys := new(jose.JSONWebKeySet)
	return keys, Call(ctx, http.MethodGet, url, nil, nil, keys)
}

// tools returns a handler for an MCP server with one tool.
func tools() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "weather", Version: "1.0.0"}, nil)
	type place struct {
		City string `json:"city" jsonschema:"the city to tell the weather of"`
	}
	mcp.AddTool(server, &mcp.Tool{Name: "forecast", Description: "Tells tomorrow's weather."},
		func(_ context.Context, _ *mcp.CallToolRequest, in place) (*mcp.CallToolResult, any, error) {
			text := fmt.Sprintf("Tomorrow in %s: sunny spells.", in.City)
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
		})
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
}

// Name makes the server's metadata name another authorization server, whose tokens it refuses.
func (s *MCPServer) Name(issuer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = issuer
}

// Trust makes the server accept only tokens of another authorization server. Its metadata does not change.
func (s *MCPServer) Trust(issuer Issuer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuer, s.keys = issuer, new(jose.JSONWebKeySet)
}

func (s *MCPServer) named() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names
}

// Refuse makes the server answer the token with this jti with a 401 from now on.
func (s *MCPServer) Refuse(jti string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[jti] = true
}

// Counts returns the counts so far.
func (s *MCPServer) Counts() MCPCounts {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.counts
	counts.Tokens = len(s.jtis)
	return counts
}

// Check returns an error if the server would currently refuse the token.
func (s *MCPServer) Check(token string) error {
	_, err := s.CheckAt(token, time.Now())
	return err
}

// CheckAt returns the token's claims, and an error if the server would have refused the token at the given time.
func (s *MCPServer) CheckAt(token string, at time.Time) (Claims, error) {
	_, private, err := s.parse(token, at)
	return private, err
}

// verify is the auth.TokenVerifier of the endpoint.
func (s *MCPServer) verify(_ context.Context, token string, _ *http.Request) (*auth.TokenInfo, error) {
	s.secrecy.AddToken(token)
	claims, private, err := s.parse(token, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused[claims.ID] {
		return nil, fmt.Errorf("%w: revoked", auth.ErrInvalidToken)
	}
	s.jtis[claims.ID] = true
	return &auth.TokenInfo{
		Scopes: strings.Fields(string(private.Scope)), Expiration: claims.Expiry.Time(), UserID: claims.Subject,
	}, nil
}

// Claims are the claims of access tokens besides those of every JWT (RFC 9068 section 2.2).
type Claims struct {
	Scope    Scope  `json:"scope"`
	ClientID string `json:"client_id"` // the client that got the token
}

// A Scope is the granted scopes, separated by spaces.
type Scope string

// UnmarshalJSON also accepts a list, which Spring Authorization Server writes.
func (s *Scope) UnmarshalJSON(content []byte) error {
	var list []string
	if json.Unmarshal(content, &list) == nil {
		*s = Scope(strings.Join(list, " "))
		return nil
	}
	return json.Unmarshal(content, (*string)(s))
}

// parse checks a token's signature, issuer, audience and, at the given time, expiry (RFC 9068 section 4).
func (s *MCPServer) parse(token string, at time.Time) (claims jwt.Claims, private Claims, err error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256})
	if err != nil {
		return claims, private, errors.New("not a token of this authorization server")
	}
	issuer, keys, err := s.keysWith(parsed.Headers[0].KeyID)
	if err != nil {
		return claims, private, err
	}
	if err := parsed.Claims(keys, &claims, &private); err != nil {
		return claims, private, fmt.Errorf("signature: %w", err)
	}
	if claims.Expiry == nil {
		return claims, private, errors.New("token without expiry")
	}
	if !at.Before(claims.Expiry.Time()) {
		return claims, private, fmt.Errorf("token expired %s ago", at.Sub(claims.Expiry.Time()).Round(time.Millisecond))
	}
	rest := claims
	rest.Expiry = nil // checked above
	err = rest.ValidateWithLeeway(jwt.Expected{
		Issuer: issuer, AnyAudience: jwt.Audience{s.URL}, Time: time.Now(),
	}, 0)
	return claims, private, err
}

// keysWith returns the issuer and its keys. If the id is missing, it fetches the keys again.
func (s *MCPServer) keysWith(id string) (issuer string, keys *jose.JSONWebKeySet, err error) {
	s.mu.Lock()
	from := s.issuer
	keys = s.keys
	s.mu.Unlock()
	if len(keys.Key(id)) > 0 {
		return from.URL, keys, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if keys, err = fetchKeys(ctx, from.KeySet); err != nil {
		return "", nil, fmt.Errorf("keys of the authorization server: %w", err)
	}
	s.mu.Lock()
	if s.issuer == from { // false if Trust was called meanwhile
		s.keys = keys
	}
	s.mu.Unlock()
	return from.URL, keys, nil
}

// count counts the requests to next, and its 401 answers to tokens.
func (s *MCPServer) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := &statusRecorder{ResponseWriter: w}
		next.ServeHTTP(recorder, r)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.counts.Requests++
		if recorder.status == http.StatusUnauthorized && r.Header.Get("Authorization") != "" {
			s.counts.Unauthorized++
		}
	})
}

func (s *MCPServer) close() error { return s.http.Close() }

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Flush passes on the events of streams at once.
func (r *statusRecorder) Flush() {
	_ = http.NewResponseController(r.ResponseWriter).Flush()
}
