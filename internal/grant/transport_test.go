package grant

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

// errorText returns an error's text, and "" for nil.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// newServer starts a server on loopback without logs.
func newServer(t *testing.T, handler http.HandlerFunc, start func(*httptest.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(s)
	t.Cleanup(s.Close)
	return s
}

// over makes a request over the package's own transport.
func over(s *httptest.Server) *request {
	r := newRequest(nil)
	r.TokenURL = s.URL + "/token?key=query-secret"
	if cert := s.Certificate(); cert != nil {
		r.CACert = pemOf("CERTIFICATE", cert.Raw)
	}
	return r
}

func pemOf(blockType string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

// wantFailure makes a request, which must fail as unavailable.
func wantFailure(t *testing.T, r *request, want string) {
	t.Helper()
	_, err := r.Do(t.Context())
	if _, ok := err.(*UnavailableError); !ok || err.Error() != want {
		t.Errorf("%T %v, want %s", err, err, want)
	}
}

func TestCACertReplacesTheSystemsRoots(t *testing.T) {
	r := over(newServer(t, granted, (*httptest.Server).StartTLS))
	if token, err := r.Do(t.Context()); err != nil || token.AccessToken != "at-1" {
		t.Errorf("%v %v", token, err)
	}
	const untrusted = "TLS: certificate not trusted: set ca_cert to the certificate of the CA that issued it"
	r.CACert = "" // the system does not trust the test server
	wantFailure(t, r, untrusted)
	// SSL_CERT_FILE is read only once, so only the setting can show that the system's roots are excluded.
	r.CACert = selfSigned(t, someday).pem
	own := must(newTransport(&r.Request))(t)
	if pool, _ := ParseCACert(r.CACert); !own.TLSClientConfig.RootCAs.Equal(pool) {
		t.Error("the pool holds more than ca_cert")
	}
	wantFailure(t, r, untrusted)
}

func TestConnectionIsNotKept(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		if !req.Close || req.ProtoMajor != 1 {
			t.Errorf("Connection: close %v, %s", req.Close, req.Proto)
		}
		granted(w, req)
	}, func(s *httptest.Server) {
		s.EnableHTTP2 = true
		s.StartTLS()
	})
	if _, err := over(s).Do(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTLSFailuresAreNamed(t *testing.T) {
	expired := &tls.Config{Certificates: []tls.Certificate{*selfSigned(t, time.Now().Add(-time.Hour)).pair(t)}}
	old := &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	startTLS := func(config *tls.Config) func(*httptest.Server) {
		return func(s *httptest.Server) { s.TLS = config; s.StartTLS() }
	}
	for name, tc := range map[string]struct {
		start         func(*httptest.Server)
		replaced, new string // in the URL
		want          string
	}{
		"another name": {startTLS(&tls.Config{}), "127.0.0.1", "localhost", "TLS: certificate is not valid for localhost"},
		"expired":      {startTLS(expired), "", "", "TLS: certificate has expired or is not yet valid"},
		"old version":  {startTLS(old), "", "", "TLS: refused by the server: protocol version not supported"},
		"http for https": {
			(*httptest.Server).Start, "http:", "https:",
			"TLS: the server does not speak TLS there: check token_url's scheme and port",
		},
		"https for http": {startTLS(&tls.Config{}), "https:", "http:", "not an answer of a token endpoint: check token_url (HTTP 400)"},
	} {
		t.Run(name, func(t *testing.T) {
			r := over(newServer(t, granted, tc.start))
			r.TokenURL = strings.Replace(r.TokenURL, tc.replaced, tc.new, 1)
			wantFailure(t, r, tc.want)
		})
	}
}

// hangUp closes the connection instead of answering.
func hangUp(t *testing.T, end func(net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		end(conn)
		conn.Close()
	}
}

func reset(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }

func TestConnectionFailuresAreNamed(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		s := newServer(t, answering(200, "", goodAnswer), (*httptest.Server).Start)
		s.Close()
		wantFailure(t, over(s), "connection refused")
	})
	// One call is one request, however the connection ends: net/http repeats some requests on kept connections.
	for name, tc := range map[string]struct {
		end  func(net.Conn)
		want string
	}{
		"reset":          {reset, "connection reset"},
		"closed":         {func(net.Conn) {}, "connection closed without an answer"},
		"half an answer": {func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{") }, "connection closed before the answer was complete"},
		"not HTTP":       {func(c net.Conn) { fmt.Fprintf(c, "220 mail %s\r\n", testSecret) }, "the answer is not HTTP: check token_url"},
		"huge headers":   {func(c net.Conn) { fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nA: %s\r\n\r\n", strings.Repeat("a", 300<<10)) }, "the answer's headers are too large"},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			s := newServer(t, func(w http.ResponseWriter, req *http.Request) {
				requests.Add(1)
				hangUp(t, tc.end)(w, req)
			}, (*httptest.Server).Start)
			r := over(s)
			for calls := int32(1); calls <= 3; calls++ {
				wantFailure(t, r, tc.want)
				if requests.Load() != calls {
					t.Errorf("%d requests for %d calls", requests.Load(), calls)
				}
			}
		})
	}
}

// A request on a kept connection is not repeated either.
func TestOneRequestOnAKeptConnectionThatBreaks(t *testing.T) {
	var requests atomic.Int32
	s := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		if requests.Add(1) == 1 {
			granted(w, req)
			return
		}
		hangUp(t, reset)(w, req)
	}, (*httptest.Server).Start)
	kept := &http.Transport{}
	defer kept.CloseIdleConnections()
	r := over(s)
	r.over = kept
	must(r.Do(t.Context()))(t)
	if _, err := r.Do(t.Context()); err == nil {
		t.Error("no error")
	}
	if requests.Load() != 2 {
		t.Errorf("%d requests for 2 calls", requests.Load())
	}
}

// Each call's connection is closed and its goroutines end, however the call ends.
func TestNothingIsLeftBehind(t *testing.T) {
	handlers := map[string]http.HandlerFunc{
		"token":    granted,
		"refused":  answering(401, "application/json", `{"error":"invalid_client"}`),
		"redirect": http.RedirectHandler("/", 307).ServeHTTP,
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
		"silent": hang,
		"stops half-way": func(w http.ResponseWriter, req *http.Request) {
			fmt.Fprint(w, "{")
			w.(http.Flusher).Flush()
			hang(w, req)
		},
	}
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			closed := make(chan struct{}, 16)
			s := newServer(t, handler, func(s *httptest.Server) {
				s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
					if state == http.StateClosed {
						closed <- struct{}{}
					}
				}
				s.StartTLS()
			})
			r := over(s)
			if name == "silent" || name == "stops half-way" {
				r.Timeout = 200 * time.Millisecond
			}
			_, err := r.Do(t.Context())
			select {
			case <-closed:
			case <-time.After(10 * time.Second):
				t.Errorf("the connection stays open after %v", err)
			}
			waitForNoClientGoroutines(t)
		})
	}
	t.Run("caller leaves while dialling", func(t *testing.T) {
		// The listener never answers, so the TLS handshake hangs.
		l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
		defer l.Close()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = bufio.NewReader(c).ReadByte() // a TLS handshake begins
				cancel()
				_, _ = io.Copy(io.Discard, c) // ends when the client closes
				c.Close()
			}
		}()
		r := newRequest(nil)
		r.TokenURL = "https://" + l.Addr().String()
		if _, err := r.Do(ctx); err != context.Canceled {
			t.Errorf("%v", err)
		}
		waitForNoClientGoroutines(t)
	})
}

// waitForNoClientGoroutines waits until all goroutines of HTTP clients have ended.
func waitForNoClientGoroutines(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "net/http.(*persistConn)") && !strings.Contains(stacks, "net/http.(*Transport)") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running:\n%s", stacks)
		}
	}
}

// Go reads the environment's proxy once per process, so another process makes the request.
func TestProxyOfTheEnvironment(t *testing.T) {
	if tokenURL := os.Getenv("GRANT_TEST_TOKEN_URL"); tokenURL != "" {
		r := newRequest(nil)
		r.TokenURL = tokenURL
		if os.Getenv("GRANT_TEST_CONTROL") != "" {
			r.Control = func(_, address string, _ syscall.RawConn) error {
				return &UnavailableError{Reason: "not to " + address}
			}
		}
		r.Proxied = os.Getenv("GRANT_TEST_PROXIED") != ""
		_, err := r.Do(t.Context())
		fmt.Printf("result: %v\n", err)
		return
	}
	var host atomic.Value
	proxy := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodConnect {
			http.Error(w, "not for you", http.StatusProxyAuthRequired)
			return
		}
		host.Store(req.Host)
		granted(w, req)
	}, (*httptest.Server).Start)
	ask := func(tokenURL string, env ...string) string {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfTheEnvironment$")
		withUser := strings.Replace(proxy.URL, "http://", "http://user:proxy-secret@", 1)
		cmd.Env = append(os.Environ(), "GRANT_TEST_TOKEN_URL="+tokenURL, "HTTP_PROXY="+withUser, "HTTPS_PROXY="+withUser, "NO_PROXY=")
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		result, _, _ := strings.Cut(string(out), "\n")
		return result
	}
	if got := ask("http://as.example.com/token"); got != "result: <nil>" || host.Load() != "as.example.com" {
		t.Errorf("%s, asked for %v", got, host.Load())
	}
	if got := ask("https://as.example.com/token"); got != "result: "+reach.ProxyRefusal(http.StatusProxyAuthRequired) {
		t.Error(got)
	}
	// A URL from the operator goes through the proxy, or under Control if it has no proxy.
	if got := ask("http://as.example.com/token", "GRANT_TEST_CONTROL=1", "GRANT_TEST_PROXIED=1"); got != "result: <nil>" || host.Load() != "as.example.com" {
		t.Errorf("%s, asked for %v", got, host.Load())
	}
	host.Store("")
	if got := ask("http://192.0.2.1/token", "GRANT_TEST_CONTROL=1", "GRANT_TEST_PROXIED=1", "NO_PROXY=192.0.2.1"); got != "result: not to 192.0.2.1:80" || host.Load() != "" {
		t.Errorf("%s, asked for %v", got, host.Load())
	}
	// A proxy could connect to an address that Control refuses.
	for tokenURL, want := range map[string]string{
		"http://192.0.2.1/token":     "result: not to 192.0.2.1:80",
		"https://[2001:db8::1]:8443": "result: not to [2001:db8::1]:8443",
	} {
		if got := ask(tokenURL, "GRANT_TEST_CONTROL=1"); got != want || host.Load() != "" {
			t.Errorf("%s: %s, and the proxy was asked for %q", tokenURL, got, host.Load())
		}
	}
}

func TestCauseHoldsNoTextOfTheError(t *testing.T) {
	op := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{op(syscall.ECONNREFUSED), "connection refused"},
		{op(syscall.ECONNRESET), "connection reset"},
		{op(syscall.EPIPE), "connection reset"},
		{op(syscall.EHOSTUNREACH), "no route to host"},
		{op(syscall.ENETUNREACH), "network unreachable"},
		{op(syscall.ETIMEDOUT), "connection timed out"},
		{op(os.ErrDeadlineExceeded), "timed out"},
		{io.EOF, "connection closed without an answer"},
		{io.ErrUnexpectedEOF, "connection closed before the answer was complete"},
		{&net.DNSError{Name: "as.invalid", IsNotFound: true, Server: "10.0.0.1"}, "DNS lookup failed: no such host as.invalid"},
		{&net.DNSError{Name: "as.invalid", IsTimeout: true}, "DNS lookup failed for as.invalid"},
		{&net.OpError{Op: "proxyconnect", Err: op(syscall.ECONNREFUSED)}, "proxy: connection refused"},
		{&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}}, "TLS: certificate is not valid"},
		{errors.New("tls: query-secret"), "TLS: handshake failed: TLS 1.2 or later is needed"},
		{errors.New("query-secret"), "the request failed"},
	} {
		wrapped := fmt.Errorf("Post \"https://as.example.com/?key=query-secret\": %w", tc.err)
		for _, err := range []error{tc.err, wrapped} {
			if got := cause(err); got != tc.want {
				t.Errorf("%v: %q, want %q", err, got, tc.want)
			}
		}
	}
}

// endless is an endless body. It counts the bytes read.
type endless struct{ read int }

func (b *endless) Read(p []byte) (int, error) {
	b.read += len(p)
	return copy(p, bytes.Repeat([]byte(" "), len(p))), nil
}

func (b *endless) Close() error { return nil }

func TestEndlessBodyIsReadUpToTheLongestAnswer(t *testing.T) {
	for status, want := range map[int]string{
		200: "the answer is larger than 1 MiB (HTTP 200)",
		400: "the answer is larger than 1 MiB (HTTP 400)",
		503: "HTTP 503",
		302: "redirected: set token_url to the final URL (HTTP 302)",
	} {
		body := &endless{}
		wantFailure(t, responding(status, http.Header{}, body), want)
		if body.read > 2*maxAnswer { // a read may request more than it gets
			t.Errorf("HTTP %d: %d bytes were read", status, body.read)
		}
	}
}
