package bed

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A ScriptedServer is an HTTP server on loopback whose answers the test sets. A real authorization server does not
// hang or limit on demand, and is slow with thousands of tokens.
//
// Each connection carries one request, so a kept connection never outlives a change of the script.
type ScriptedServer struct {
	address string // of the listener; never changes
	secrecy *Secrecy
	server  *http.Server
	serving sync.WaitGroup // of the listeners

	mu       sync.Mutex // guards the fields below
	answer   http.HandlerFunc
	changed  context.CancelFunc // ends present
	present  context.Context    // ends when the answer changes
	listener net.Listener       // nil while connections are refused, and after closing
	requests []ScriptedRequest
	open     int
}

// A ScriptedRequest is a request that the server received.
type ScriptedRequest struct {
	Time     time.Time
	Path     string
	ClientID string // from the Basic header; may be empty
	Scope    string // requested scopes
	Open     int    // requests being answered, including this one
}

// NewScriptedServer starts a server that refuses every token request until Set.
func (b *Bed) NewScriptedServer() (*ScriptedServer, error) {
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	s := &ScriptedServer{address: fmt.Sprintf("127.0.0.1:%d", ports[0]), secrecy: b.Secrecy}
	s.server = &http.Server{
		Handler:  http.HandlerFunc(s.serve),
		ErrorLog: log.New(io.Discard, "", 0), // each broken connection would add a line
	}
	s.server.SetKeepAlivesEnabled(false)
	s.Set(RefuseWith(http.StatusBadRequest, "invalid_request", nil))
	if err := s.Up(); err != nil {
		return nil, err
	}
	b.onClose(s.close)
	return s, nil
}

// URL returns the address of a path with a leading slash.
func (s *ScriptedServer) URL(path string) string { return "http://" + s.address + path }

// TokenURL is the address of the token endpoint.
func (s *ScriptedServer) TokenURL() string { return s.URL("/token") }

// Set changes the answer to new requests, and ends the context of waiting ones.
func (s *ScriptedServer) Set(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		s.changed()
	}
	s.present, s.changed = context.WithCancel(context.Background())
	s.answer = answer
}

// Down makes the server refuse connections.
func (s *ScriptedServer) Down() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	err := s.listener.Close()
	s.listener = nil
	return err
}

// Up makes the server accept connections. It returns an error if another process took its port.
func (s *ScriptedServer) Up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	return Poll(context.Background(), 10*time.Second, func() error {
		listener, err := net.Listen("tcp", s.address)
		if err != nil {
			return err
		}
		s.listener = listener
		s.serving.Go(func() { _ = s.server.Serve(listener) }) // returns when the listener closes
		return nil
	})
}

// Requests returns the requests so far, oldest first.
func (s *ScriptedServer) Requests() []ScriptedRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Open returns the number of open requests.
func (s *ScriptedServer) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

func (s *ScriptedServer) serve(w http.ResponseWriter, r *http.Request) {
	// net/http ends the request's context with the connection only if the body has been read.
	if err := r.ParseForm(); err != nil {
		panic(http.ErrAbortHandler)
	}
	client, _, _ := r.BasicAuth()
	s.mu.Lock()
	s.open++
	s.requests = append(s.requests, ScriptedRequest{
		Time: time.Now(), Path: r.URL.Path, ClientID: client, Scope: r.PostForm.Get("scope"), Open: s.open,
	})
	answer, present := s.answer, s.present
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(present, cancel)()
	answer(w, r.WithContext(context.WithValue(ctx, connectionKey{}, r.Context())))
}

// connectionKey is the context key of a connection's own context, which outlives a change of the script.
type connectionKey struct{}

func (s *ScriptedServer) close() error {
	s.mu.Lock()
	s.changed()
	s.listener = nil
	s.mu.Unlock()
	err := s.server.Close()
	s.serving.Wait()
	return err
}

// Issue answers with a token that has this lifetime, in whole seconds.
func (s *ScriptedServer) Issue(lifetime time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.AnswerToken(w, rand.Text(), map[string]any{
			"expires_in": int64(lifetime / time.Second), "scope": r.PostForm.Get("scope"),
		})
	}
}

// AnswerToken answers with a token and additional members (RFC 6749 section 5.1).
func (s *ScriptedServer) AnswerToken(w http.ResponseWriter, token string, members map[string]any) {
	s.secrecy.AddToken(token)
	answer := map[string]any{"access_token": token, "token_type": "Bearer"}
	maps.Copy(answer, members)
	answerJSON(w, http.StatusOK, answer)
}

// RefuseWith answers with a status, an OAuth error code (RFC 6749 section 5.2) and headers.
func RefuseWith(status int, code string, headers map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Basic")
		}
		answerJSON(w, status, map[string]string{"error": code})
	}
}

// LimitFor answers with a status and a Retry-After, in whole seconds.
func LimitFor(status int, d time.Duration) http.HandlerFunc {
	return RefuseWith(status, "slow_down", map[string]string{"Retry-After": strconv.Itoa(int(d / time.Second))})
}

// Hang does not answer. It breaks the connection when the script changes or the client gives up.
func Hang(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// NeverAnswer does not answer, even after a change of the script: only the client's timeout ends the request.
func NeverAnswer(_ http.ResponseWriter, r *http.Request) {
	connection, _ := r.Context().Value(connectionKey{}).(context.Context)
	<-connection.Done()
	panic(http.ErrAbortHandler)
}

// Reset breaks the connection at once.
func Reset(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// After answers after d.
func After(d time.Duration, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			answer(w, r)
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
