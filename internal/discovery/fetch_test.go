package discovery

import (
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// newServer starts a TLS server on loopback. Its certificate is also valid for *.example.com.
func newServer(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// from is a request over the network with trust in all test servers.
func from(s *httptest.Server, issuer string) *request {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return &request{Request: Request{Issuer: issuer, CACert: string(ca), Timeout: 10 * time.Second}, network: network{proxy: http.ProxyFromEnvironment}}
}

// fromServer is a request from an MCP server's URL.
func fromServer(s *httptest.Server, url string) *request {
	r := from(s, "")
	r.ServerURL = url
	return r
}

// newSelf starts a server whose handler needs its URL.
func newSelf(t *testing.T, handler func(own string) http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := newServer(t, nil)
	s.Config.Handler = handler(s.URL)
	return s
}

// at returns the URL of a server under another host name.
func at(s *httptest.Server, host string) string {
	return "https://" + host + ":" + port(s)
}

func port(s *httptest.Server) string {
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	return port
}

func TestLoopbackServerEarnsLoopbackAndNoMore(t *testing.T) {
	var server, as *httptest.Server
	as = newServer(t, func(w http.ResponseWriter, _ *http.Request) { answers(serverDoc(as.URL))(w, nil) })
	server = newServer(t, func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/.well-known/oauth-protected-resource") {
			answers(resourceDoc(server.URL+"/mcp", "https://10.0.0.1", "https://[::ffff:192.168.0.1]", "https://169.254.169.254", as.URL))(w, req)
			return
		}
		challenges("")(w, req)
	})
	r := fromServer(server, server.URL+"/mcp")
	got, err := r.Do(t.Context())
	if err != nil || got.TokenURL != as.URL+"/token" || got.Policy != (Policy{Loopback: true}) {
		t.Errorf("%+v %v", got, err)
	}
	as.Close()
	_, err = r.Do(t.Context())
	const private = " (private) is not called without allow_private_addresses=true"
	wantAttempts(t, err,
		server.URL+"/mcp: asked without a token: HTTP 401 (GET, server/discover, initialize); no challenge names resource_metadata",
		"https://10.0.0.1/.well-known/oauth-authorization-server: 10.0.0.1"+private,
		"https://[::ffff:192.168.0.1]/.well-known/oauth-authorization-server: 192.168.0.1"+private,
		"https://169.254.169.254/.well-known/oauth-authorization-server: 169.254.169.254 (link-local) is never called",
		as.URL+"/.well-known/oauth-authorization-server: connection refused",
	)
}

func TestNamesAreCheckedWhenDialled(t *testing.T) {
	var asked atomic.Int32
	as := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusNotFound)
	})
	asURL := at(as, "as.example.com")
	server := newSelf(t, func(own string) http.HandlerFunc { return answers(resourceDoc(own, asURL)) })
	const (
		never  = ") is never called"
		permit = ") is not called without allow_private_addresses=true"
	)
	for _, c := range []struct {
		name         string
		addrs        []string
		allowPrivate bool
		asked        int32
		want         []string // the reasons, one for each tried well-known URL
	}{
		{"private", []string{"10.0.0.1"}, false, 0, []string{"10.0.0.1 (private" + permit}},
		{"private the second time", []string{"127.0.0.1", "10.0.0.1"}, false, 1, []string{"HTTP 404", "10.0.0.1 (private" + permit}},
		{"metadata the second time", []string{"127.0.0.1", "169.254.169.254"}, true, 1, []string{"HTTP 404", "169.254.169.254 (link-local" + never}},
		{"metadata of a cloud", []string{"169.254.169.254"}, true, 0, []string{"169.254.169.254 (link-local" + never}},
		{"metadata of a cloud in IPv6", []string{"fd00:ec2::254"}, true, 0, []string{"fd00:ec2::254 (cloud metadata" + never}},
		{"unspecified", []string{"0.0.0.0"}, true, 0, []string{"0.0.0.0 (unspecified" + never}},
		{"mapped", []string{"::ffff:10.0.0.1"}, false, 0, []string{"10.0.0.1 (private" + permit}},
		{"mapped metadata", []string{"::ffff:169.254.169.254"}, true, 0, []string{"169.254.169.254 (link-local" + never}},
		{"NAT64", []string{"64:ff9b::7f00:1"}, true, 0, []string{"64:ff9b::7f00:1 (loopback" + never}},
		{"permitted", []string{"127.0.0.1"}, false, 2, []string{"HTTP 404", "HTTP 404"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked.Store(0)
			n := &names{addrs: map[string][]string{"as.example.com": c.addrs}}
			r := from(server, "")
			r.ServerURL, r.AllowPrivate, r.resolver = server.URL, c.allowPrivate, n.resolver(t)
			_, err := r.Do(t.Context())
			want := []string{server.URL + ": asked without a token: HTTP 200 (GET, server/discover, initialize); no challenge names resource_metadata"}
			for i, path := range []string{"oauth-authorization-server", "openid-configuration"}[:len(c.want)] {
				want = append(want, asURL+"/.well-known/"+path+": "+c.want[i])
			}
			wantAttempts(t, err, want...)
			if got := asked.Load(); got != c.asked {
				t.Errorf("the server was asked %d times", got)
			}
		})
	}
}

// Documents may name URLs of the operator's own origin. For them, its name must resolve to the same kind of address
// as for the first request.
func TestOwnOriginThatResolvesElsewhereIsNotFollowed(t *testing.T) {
	var documents atomic.Int32
	server := newServer(t, nil)
	url := at(server, "mcp.example.com")
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/.well-known/") {
			documents.Add(1)
		}
		challenges(`resource_metadata="`+url+`/admin/delete?x=1"`)(w, req)
	})
	for _, c := range []struct{ later, want string }{
		{"10.255.255.1", "10.255.255.1 (private) is not called without allow_private_addresses=true"},
		{"169.254.169.254", "169.254.169.254 (link-local) is never called"},
	} {
		n := &names{addrs: map[string][]string{"mcp.example.com": {"127.0.0.1", c.later}}}
		r := from(server, "")
		r.ServerURL, r.resolver = url, n.resolver(t)
		wantAttempts(t, errorOf(r.Do(t.Context())), url+"/admin/delete: "+c.want, url+"/.well-known/oauth-protected-resource: "+c.want)
	}
	if n := documents.Load(); n != 0 {
		t.Errorf("%d documents were asked for", n)
	}
}

func TestAnswersThatDoNotEnd(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		reason  string
	}{
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for chunk := make([]byte, 64<<10); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "the answer is larger than 1 MiB"},
		"too large when unpacked": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			packed := gzip.NewWriter(w)
			_, _ = packed.Write(make([]byte, 2*maxBody))
			packed.Close()
		}, "the answer is larger than 1 MiB"},
		"cut short":    {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "9") }, "connection closed before the answer was complete"},
		"not there":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "connection closed without an answer"},
		"huge headers": {status(200, "X", strings.Repeat("x", 300<<10)), "the answer's headers are too large"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, c.handler)
			r := from(s, s.URL)
			wantAttempts(t, errorOf(r.Do(t.Context())), s.URL+"/.well-known/oauth-authorization-server: "+c.reason, s.URL+"/.well-known/openid-configuration: "+c.reason)
		})
	}
}

func TestAnswerThatIsTooSlow(t *testing.T) {
	for name, first := range map[string]string{"before its headers": "", "in its body": "{"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s := newServer(t, func(w http.ResponseWriter, req *http.Request) {
				if first != "" {
					_, _ = io.WriteString(w, first)
					_ = http.NewResponseController(w).Flush()
				}
				cancel() // like a timeout, which a test in fake time covers
				<-req.Context().Done()
			})
			_, err := from(s, s.URL).Do(ctx)
			const want = "/.well-known/oauth-authorization-server: no answer before the time for the whole discovery was over"
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), s.URL+want) {
				t.Error(err)
			}
		})
	}
}

func TestEventStreamIsNotReadToItsEnd(t *testing.T) {
	s := newServer(t, nil)
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == "/.well-known/oauth-authorization-server":
			answers(serverDoc(s.URL))(w, req)
		case req.URL.Path == "/.well-known/oauth-protected-resource":
			answers(resourceDoc(s.URL, s.URL))(w, req)
		case req.URL.Path != "/":
			http.NotFound(w, req)
		case req.Method == http.MethodPost:
			challenges("")(w, req)
		default:
			w.Header().Set("Content-Type", "text/event-stream")
			http.NewResponseController(w).Flush()
			<-req.Context().Done()
		}
	})
	r := fromServer(s, s.URL)
	if got, err := r.Do(t.Context()); err != nil || got.Issuer != s.URL {
		t.Errorf("%+v %v", got, err)
	}
}

func TestRedirectToLoopbackIsNotFollowed(t *testing.T) {
	var asked atomic.Int32
	inside := newServer(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	s := newServer(t, status(302, "Location", inside.URL+"/secret?token=x"))
	r := fromServer(s, s.URL)
	_, err := r.Do(t.Context())
	const reason = ": HTTP 302: redirects, as here to "
	to := inside.URL + "/secret, are not followed"
	wantAttempts(t, err,
		s.URL+": asked without a token"+reason+to+" (GET, server/discover, initialize); no challenge names resource_metadata",
		s.URL+"/.well-known/oauth-protected-resource"+reason+to,
	)
	wantAttempts(t, errorOf(from(s, s.URL).Do(t.Context())),
		s.URL+"/.well-known/oauth-authorization-server"+reason+to,
		s.URL+"/.well-known/openid-configuration"+reason+to,
	)
	if asked.Load() != 0 {
		t.Error("the redirect was followed")
	}
}

func TestServerThatIsNotReachedIsNotAskedAgain(t *testing.T) {
	s := newServer(t, http.NotFound)
	r := from(s, s.URL)
	r.CACert = "" // the system does not trust the test server
	wantTemporary(t, wantFailed(t, errorOf(r.Do(t.Context())), s.URL+"/.well-known/oauth-authorization-server: "+
		"TLS: certificate not trusted: set ca_cert to the certificate of the CA that issued it"), false)
	r = from(s, "https://169.254.169.254") // never called, even if the operator wrote it
	wantAttempts(t, errorOf(r.Do(t.Context())), "https://169.254.169.254/.well-known/oauth-authorization-server: 169.254.169.254 (link-local) is never called")
	s.Close()
	r = fromServer(s, s.URL)
	wantTemporary(t, wantFailed(t, errorOf(r.Do(t.Context())), s.URL+": connection refused"), true)
}

// An attacker between the plugin and the first authorization server must not be able to make discovery use the next
// one.
func TestAuthorizationServerWithATLSFaultIsNotPassedOver(t *testing.T) {
	first := newServer(t, nil)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	second := newSelf(t, func(own string) http.HandlerFunc { return answers(serverDoc(own)) })
	first.Close() // at the end, because another server could get its port
	for _, down := range []string{first.URL, strings.Replace(plain.URL, "http:", "https:", 1)} {
		server := newSelf(t, func(own string) http.HandlerFunc { return answers(resourceDoc(own, down, second.URL)) })
		r := fromServer(server, server.URL)
		if got, err := r.Do(t.Context()); err == nil || !strings.Contains(err.Error(), down) {
			t.Errorf("%+v %v", got, err)
		}
	}
}

func TestClearTextStaysInLoopback(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/.well-known/oauth-protected-resource") {
			answers(resourceDoc(s.URL+"/mcp", "http://as.example.com", s.URL))(w, req)
			return
		}
		answers(serverDoc(s.URL))(w, req)
	}))
	t.Cleanup(s.Close)
	r := &Request{ServerURL: s.URL + "/mcp", Timeout: 10 * time.Second}
	got, err := r.Do(t.Context())
	if err != nil || got.TokenURL != s.URL+"/token" || got.Policy != (Policy{Loopback: true}) {
		t.Errorf("%+v %v", got, err)
	}
}
