package discovery

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestServerThatResolvesInsideOnceEarnsNothing(t *testing.T) {
	// The name resolves to an internal address for the challenge and to an external one for the document. If
	// discovery looked only at the document's address, the server would pass. The external address is a proxy's here,
	// which proves nothing.
	as := newServer(t, http.NotFound)
	server := newServer(t, nil)
	r := fromServer(server, at(server, "mcp.example.com"))
	n := &names{addrs: map[string][]string{"mcp.example.com": {"127.0.0.1"}}}
	r.resolver = n.resolver(t)
	proxy, tunnels := newProxy(t)
	r.proxy = func(req *http.Request) (*url.URL, error) {
		if strings.HasPrefix(req.URL.Path, "/.well-known/") {
			return proxy, nil
		}
		return nil, nil
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/.well-known/") {
			answers(resourceDoc(r.ServerURL, as.URL))(w, req)
			return
		}
		challenges("")(w, req)
	})
	wantAttempts(t, errorOf(r.Do(t.Context())),
		r.ServerURL+": asked without a token: HTTP 401 (GET, server/discover, initialize); no challenge names resource_metadata",
		as.URL+"/.well-known/oauth-authorization-server: 127.0.0.1 (loopback) is not called without allow_private_addresses=true",
	)
	if got := tunnels(); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// newProxy starts a proxy that connects every request to loopback. asked returns the methods and hosts of the
// requests.
func newProxy(t *testing.T) (at *url.URL, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var hosts []string // guarded by mu
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		hosts = append(hosts, req.Method+" "+req.Host)
		mu.Unlock()
		_, port, _ := net.SplitHostPort(req.Host)
		to, err := (&net.Dialer{}).DialContext(req.Context(), "tcp", "127.0.0.1:"+port)
		if req.Method != http.MethodConnect || err != nil {
			http.Error(w, "secret words of the proxy", http.StatusBadGateway)
			return
		}
		defer to.Close()
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(to, buffered)
			to.Close()
		}()
		_, _ = io.Copy(conn, to)
	}))
	t.Cleanup(s.Close)
	at, _ = url.Parse(s.URL)
	return at, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(hosts)
	}
}

func TestProxyIsForTheOperatorsOwnURLs(t *testing.T) {
	as := newServer(t, nil)
	asURL := at(as, "as.example.com")
	as.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answers(serverDoc(asURL))(w, nil) })
	server := newServer(t, nil)
	serverURL := at(server, "mcp.example.com") // only the proxy can resolve it
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		answers(resourceDoc(serverURL, asURL))(w, req)
	})
	proxy, asked := newProxy(t)
	n := &names{addrs: map[string][]string{"as.example.com": {"127.0.0.1"}}}
	r := from(server, "")
	r.ServerURL, r.resolver, r.proxy = serverURL, n.resolver(t), http.ProxyURL(proxy)
	_, err := r.Do(t.Context())
	// The proxy is on loopback. This gives the server no permission for private addresses.
	wantAttempts(t, err,
		serverURL+": asked without a token: HTTP 200 (GET, server/discover, initialize); no challenge names resource_metadata",
		asURL+"/.well-known/oauth-authorization-server: 127.0.0.1 (loopback) is not called without allow_private_addresses=true",
	)
	r.AllowPrivate = true
	if got, err := r.Do(t.Context()); err != nil || got.TokenURL != asURL+"/token" {
		t.Errorf("%+v %v", got, err)
	}
	wantAsked(t, slices.Compact(asked()), "CONNECT mcp.example.com:"+port(server))
	r.ServerURL = "https://mcp.example.com:1/"
	wantAttempts(t, errorOf(r.Do(t.Context())), "https://mcp.example.com:1/: proxy: refused to connect: HTTP 502")
}

// Discovery cannot see the address to which a proxy connects, but it never requests a forbidden address from the
// proxy.
func TestProxyIsNotAskedForForbiddenAddresses(t *testing.T) {
	proxy, asked := newProxy(t)
	for _, serverURL := range []string{"http://169.254.169.254/latest/meta-data", "https://100.100.100.200/mcp"} {
		r := &request{Request{ServerURL: serverURL, AllowInsecureHTTP: true, AllowPrivate: true, Timeout: 5 * time.Second}, network{proxy: http.ProxyURL(proxy)}}
		if _, err := r.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "is never called") {
			t.Errorf("%s: %v", serverURL, err)
		}
	}
	wantAsked(t, asked())
}

func TestProxyOfTheEnvironment(t *testing.T) {
	if serverURL := os.Getenv("DISCOVERY_TEST_SERVER_URL"); serverURL != "" {
		r := &Request{ServerURL: serverURL, CACert: os.Getenv("DISCOVERY_TEST_CA"), Timeout: time.Minute} // longer than the wait for a silent resolver
		_, err := r.Do(t.Context())
		fmt.Printf("%v\n", err)
		return
	}
	server := newSelf(t, func(own string) http.HandlerFunc { return answers(resourceDoc(own, "https://as.invalid")) })
	proxy, asked := newProxy(t)
	search := func(serverURL string) string {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfTheEnvironment$")
		cmd.Env = append(os.Environ(), "DISCOVERY_TEST_SERVER_URL="+serverURL, "DISCOVERY_TEST_CA="+from(server, "").CACert,
			"HTTP_PROXY="+proxy.String(), "HTTPS_PROXY="+proxy.String(), "NO_PROXY=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if got := search("https://mcp.invalid/mcp"); !strings.Contains(got, "https://mcp.invalid/mcp: proxy: refused to connect: HTTP 502") {
		t.Error(got)
	}
	wantAsked(t, asked(), "CONNECT mcp.invalid:443")
	if got := search(server.URL); !strings.Contains(got, "as.invalid/.well-known/oauth-authorization-server: DNS lookup failed") {
		t.Error(got)
	}
	if got := asked(); len(got) != 1 {
		t.Errorf("the proxy was asked for %q", got)
	}
}

// HTTP 407 comes from the proxy, not from the server.
func TestProxyThatAsksForCredentials(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Proxy-Authenticate", "Basic")
		http.Error(w, "secret words of the proxy", http.StatusProxyAuthRequired)
	}))
	t.Cleanup(proxy.Close)
	at, _ := url.Parse(proxy.URL)
	const reason = ": proxy: HTTP 407: the proxy asks for credentials, not the server: write them into the proxy's URL in Vault's environment (HTTPS_PROXY)"
	for _, scheme := range []string{"http", "https"} { // the proxy answers the request, or refuses the tunnel
		r := &request{Request{ServerURL: scheme + "://mcp.invalid/mcp", AllowInsecureHTTP: true, Timeout: 10 * time.Second}, network{proxy: http.ProxyURL(at)}}
		wantAttempts(t, errorOf(r.Do(t.Context())), r.ServerURL+reason)
		r = &request{Request{Issuer: scheme + "://as.invalid", AllowInsecureHTTP: true, Timeout: 10 * time.Second}, network{proxy: http.ProxyURL(at)}}
		wantAttempts(t, errorOf(r.Do(t.Context())), r.Issuer+"/.well-known/oauth-authorization-server"+reason)
	}
}
