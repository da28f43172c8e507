package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/brokerauth"
)

const message = `{"jsonrpc":"2.0","id":7,"method":"tools/list"}`

// Only the token from Vault identifies the broker to the MCP server.
func TestRequestGoesToTheServerWithTheToken(t *testing.T) {
	w := newWorld(t)
	url := w.start(w.config())
	response := post(t, url+"?a=b", message,
		"Authorization", "Bearer the-client's", "Cookie", "session=the-client's", "Proxy-Authorization", "Basic the-client's",
		"Origin", "http://localhost:3000", "Referer", "http://localhost:3000/", "X-Forwarded-For", "192.0.2.1",
		"Connection", "Upgrade", "Upgrade", "websocket",
		"Mcp-Session-Id", "session-1", "Last-Event-ID", "event-1", "MCP-Protocol-Version", "2025-06-18", "Accept", "text/event-stream")
	if got := text(t, response); response.StatusCode != http.StatusOK || got != message {
		t.Errorf("answer %d %q", response.StatusCode, got)
	}
	saw := w.saw()
	if saw.URL.RequestURI() != "/mcp?a=b" || saw.Method != http.MethodPost || saw.Host != strings.TrimPrefix(w.server.URL, "http://") {
		t.Errorf("the server got %s %s of %s", saw.Method, saw.URL.RequestURI(), saw.Host)
	}
	if got := saw.Header.Values("Authorization"); len(got) != 1 || got[0] != "Bearer "+access(1) {
		t.Error("the server got an Authorization header without Vault's token")
	}
	for _, name := range []string{"Cookie", "Proxy-Authorization", "Origin", "Referer", "X-Forwarded-For", "Upgrade", "Connection"} {
		if got := saw.Header.Values(name); len(got) > 0 {
			t.Errorf("the server got the client's %s", name)
		}
	}
	for name, want := range map[string]string{
		"Mcp-Session-Id": "session-1", "Last-Event-ID": "event-1", "MCP-Protocol-Version": "2025-06-18", "Accept": "text/event-stream",
	} {
		if got := saw.Header.Get(name); got != want {
			t.Errorf("the server got %s %q, want %q", name, got, want)
		}
	}
}

// A route is one URL: clients reach neither another path of the server nor another server.
func TestNothingButTheRouteIsReached(t *testing.T) {
	w := newWorld(t)
	url := w.start(w.config())
	base := strings.TrimSuffix(url, "/files")
	for target, want := range map[string]int{
		url:                      http.StatusOK,
		url + "/":                http.StatusOK,
		url + "/admin":           http.StatusNotFound,
		url + "/../admin":        http.StatusNotFound,
		url + "/%2e%2e/admin":    http.StatusNotFound,
		url + "%2fadmin":         http.StatusNotFound,
		base + "/Files":          http.StatusNotFound,
		base + "/":               http.StatusNotFound,
		base + "/http://[::1]/":  http.StatusNotFound,
		base + "//files":         http.StatusNotFound,
		base + "/.well-known/x":  http.StatusNotFound,
		base + "/files?x=/admin": http.StatusOK,
	} {
		before := len(w.serverSaw)
		response := post(t, target, message)
		if response.StatusCode != want && (want != http.StatusNotFound || response.StatusCode/100 != 3) {
			t.Errorf("%s: status %d, want %d", target, response.StatusCode, want)
		}
		if reached := len(w.serverSaw) > before; reached != (want == http.StatusOK) {
			t.Errorf("%s: the server was reached: %t", target, reached)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodOptions, http.MethodTrace, http.MethodPatch, http.MethodHead} {
		before := len(w.serverSaw)
		response := do(t, request(t, method, url, nil))
		if response.StatusCode != http.StatusMethodNotAllowed || len(w.serverSaw) > before {
			t.Errorf("%s: status %d, want 405", method, response.StatusCode)
		}
	}
}

func TestRefusedTokenIsReplaced(t *testing.T) {
	w := newWorld(t)
	w.refused[access(1)] = true
	url := w.start(w.config())
	body := message + strings.Repeat(" ", 1<<20)
	response := do(t, request(t, http.MethodPost, url, io.MultiReader(strings.NewReader(body))))
	if got := text(t, response); response.StatusCode != http.StatusOK || got != body {
		t.Errorf("answer %d of %d bytes, want 200 of %d", response.StatusCode, len(got), len(body))
	}
	if len(w.serverSaw) != 2 || w.number != 2 {
		t.Errorf("%d requests, and token %d; want two and the second", len(w.serverSaw), w.number)
	}
}

// A short body goes out in one write with the header, so the MCP server need not wait for a second packet.
func TestShortBodyIsSentWithTheHeader(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	p, err := newProxy(c, w.logger())
	if err != nil {
		t.Fatal(err)
	}
	ours, server := net.Pipe() // a read returns the bytes of one write
	defer server.Close()
	base := p.routes[0].forward.Transport.(*brokerauth.Transport).Base.(*http.Transport)
	base.DialContext = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
	first := make(chan string, 1)
	go func() {
		packet := make([]byte, 4<<10)
		n, _ := server.Read(packet)
		first <- string(packet[:n])
		server.Close()
	}()
	proxy := httptest.NewServer(p.handler(t.Context()))
	defer proxy.Close()
	post(t, proxy.URL+"/files", message)
	server.Close() // so that the read ends if the proxy has not connected
	if got := <-first; !strings.HasSuffix(got, "\r\n\r\n"+message) {
		t.Errorf("the first write has %d bytes, without the message", len(got))
	}
}

// A client that waits for 100 Continue gets one. The MCP server is not asked for another.
func TestShortBodyAfterContinue(t *testing.T) {
	w := newWorld(t)
	r := request(t, http.MethodPost, w.start(w.config()), strings.NewReader(message), "Expect", "100-continue")
	var interim []int
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			interim = append(interim, code)
			return nil
		},
	}))
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	defer client.CloseIdleConnections()
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := text(t, response); response.StatusCode != http.StatusOK || got != message {
		t.Errorf("answer %d %q", response.StatusCode, got)
	}
	if !slices.Equal(interim, []int{http.StatusContinue}) || w.saw().Header.Get("Expect") != "" {
		t.Errorf("interim responses %v, and Expect %q at the MCP server", interim, w.saw().Header.Get("Expect"))
	}
}

// The MCP server does not get a short body that the client did not finish.
func TestShortBodyThatEndsEarlyIsA400(t *testing.T) {
	w := newWorld(t)
	address := strings.TrimSuffix(strings.TrimPrefix(w.start(w.config()), "http://"), "/files")
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "POST /files HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", address, len(message), message[1:])
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body := text(t, response); response.StatusCode != http.StatusBadRequest || !strings.Contains(body, `"jsonrpc":"2.0"`) {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.serverSaw); n != 0 {
		t.Errorf("the MCP server got %d requests", n)
	}
}

// If a request is longer than its kept part, the client gets the 401. It also gets a 403 for a missing scope.
func TestRefusalsPass(t *testing.T) {
	w := newWorld(t)
	w.refused[access(1)] = true
	c := w.config()
	c.Routes[0].KeptBody = 10
	url := w.start(c)
	response := post(t, url, message)
	if got := text(t, response); response.StatusCode != http.StatusUnauthorized || got != "refused" || response.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("answer %d %q, want the complete 401", response.StatusCode, got)
	}
	w.with(func() {
		w.answer = func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope"`)
			rw.Header().Set("Set-Cookie", "session=server's")
			rw.WriteHeader(http.StatusForbidden)
		}
	})
	response = post(t, url, message)
	if response.StatusCode != http.StatusForbidden || response.Header.Get("WWW-Authenticate") == "" || response.Header.Get("Set-Cookie") != "" {
		t.Errorf("answer %d with %v, want the 403 without its cookie", response.StatusCode, response.Header)
	}
	if w.number != 2 {
		t.Errorf("token %d is held, want the second: a 403 does not replace a token", w.number)
	}
	if log := w.log.String(); !strings.Contains(log, "cannot be sent again") || strings.Contains(log, access(1)) {
		t.Errorf("the log says %q", log)
	}
}

// Each event of a stream arrives before the next is sent. If the server breaks the stream, the client's stream
// breaks.
func TestStreamsAreFlushedAndCut(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, media := range []string{"text/event-stream", "application/json"} {
			t.Run(method+" "+media, func(t *testing.T) {
				w := newWorld(t)
				next := make(chan bool)
				w.answer = func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Content-Type", media)
					for <-next {
						_, _ = io.WriteString(rw, "data: event\n")
						_ = http.NewResponseController(rw).Flush()
					}
					panic(http.ErrAbortHandler)
				}
				url := w.start(w.config())
				go func() { next <- true }()
				response := do(t, request(t, method, url, http.NoBody))
				lines := bufio.NewReader(response.Body)
				for i := range 3 {
					if i > 0 {
						next <- true
					}
					if line, err := lines.ReadString('\n'); err != nil || line != "data: event\n" {
						t.Fatalf("%q, %v", line, err)
					}
				}
				next <- false
				if rest, err := io.ReadAll(lines); err == nil || len(rest) > 0 {
					t.Errorf("the stream ended with %q and without an error", rest)
				}
			})
		}
	}
}

// If a client disconnects, its request at the server ends.
func TestClientThatGoesEndsTheServersStream(t *testing.T) {
	w := newWorld(t)
	ended := make(chan struct{})
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
		close(ended)
	}
	response := do(t, request(t, http.MethodGet, w.start(w.config()), nil))
	response.Body.Close()
	<-ended
}

func TestTrailersPass(t *testing.T) {
	w := newWorld(t)
	w.answer = func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		rw.Header().Set("Trailer", "Checksum")
		_, _ = io.WriteString(rw, "hello")
		rw.Header().Set("Checksum", "of the answer to "+r.Trailer.Get("Checksum"))
	}
	r := request(t, http.MethodPost, w.start(w.config()), io.MultiReader(strings.NewReader(message)))
	r.Trailer = http.Header{"Checksum": {"the request"}}
	response := do(t, r)
	if got := text(t, response); got != "hello" || response.Trailer.Get("Checksum") != "of the answer to the request" {
		t.Errorf("%q with the trailer %v", got, response.Trailer)
	}
}

// Without a token, the answer is a 503 with a time for the next attempt, and with the reason as a JSON-RPC error.
func TestWithoutVaultTheTokenServesUntilItEnds(t *testing.T) {
	w := newWorld(t)
	url := w.start(w.config())
	if response := post(t, url, message); response.StatusCode != http.StatusOK {
		t.Fatalf("status %d", response.StatusCode)
	}
	w.with(func() { w.away = true })
	if response := post(t, url, message); response.StatusCode != http.StatusOK {
		t.Errorf("status %d while the token is valid", response.StatusCode)
	}

	other := newWorld(t)
	other.away = true
	url = other.start(other.config())
	for range 2 {
		response := post(t, url, message)
		var answer struct {
			Version string `json:"jsonrpc"`
			ID      int    `json:"id"`
			Error   struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		}
		body := text(t, response)
		if err := json.Unmarshal([]byte(body), &answer); err != nil || response.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%q is not JSON: %v", body, err)
		}
		if answer.Version != "2.0" || answer.ID != 7 || answer.Error.Code == 0 || !strings.Contains(answer.Error.Message, "Vault answered 503: Vault is sealed") {
			t.Errorf("%s", body)
		}
		seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
		if response.StatusCode != http.StatusServiceUnavailable || err != nil || seconds < 1 || seconds > 30 {
			t.Errorf("status %d, Retry-After %q", response.StatusCode, response.Header.Get("Retry-After"))
		}
	}
	if n := len(other.serverSaw); n != 0 {
		t.Errorf("the MCP server got %d requests without a token", n)
	}
	if n := strings.Count(other.log.String(), "there is no access token"); n != 1 {
		t.Errorf("the log has the error %d times", n)
	}
	response := post(t, url, "no JSON")
	if body := text(t, response); !strings.Contains(body, `"id":null`) {
		t.Errorf("%s: want the id null", body)
	}
}

func TestServerThatIsAwayIsA502(t *testing.T) {
	w := newWorld(t)
	w.server.Close()
	response := post(t, w.start(w.config()), message)
	if body := text(t, response); response.StatusCode != http.StatusBadGateway || !strings.Contains(body, "connection refused") || !strings.Contains(body, `"jsonrpc":"2.0"`) {
		t.Errorf("%d %s", response.StatusCode, body)
	}
}
