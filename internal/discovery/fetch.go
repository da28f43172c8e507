package discovery

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/reach"
)

const (
	userAgent = "vault-plugin-mcp-oauth"
	maxBody   = 1 << 20 // bytes of a document, after decompression
)

// call is one HTTP request of a search.
type call struct {
	method string
	url    *url.URL
	header http.Header // beside the usual headers; may be nil
	body   string
	// policy is the policy of the document that named the URL. It does not apply to the operator's own origin.
	policy Policy
	// head skips the body: an MCP server may answer with an endless event stream.
	head bool
}

// answer is the answer to a call.
type answer struct {
	status int
	header http.Header
	body   []byte
	policy Policy // for the URLs in this answer
}

// failure is why a call failed.
type failure struct {
	reason    string
	temporary bool
	// down is set if the server was called, and was busy or did not answer completely.
	down bool
	// unreached is set if the connection failed. Other URLs of the origin would fail too.
	unreached bool
}

// refuse records why the document at a URL is not used.
func (s *search) refuse(u *url.URL, reason string) {
	s.attempts = append(s.attempts, Attempt{URL: shownURL(u), Reason: reason})
}

// notFound returns the error of a search that ends without a result.
func (s *search) notFound(ctx context.Context) *Error {
	return &Error{Attempts: s.attempts, Ended: reach.Ended(ctx)}
}

// fail records why the document at a URL could not be fetched.
func (s *search) fail(u *url.URL, f *failure) {
	s.attempts = append(s.attempts, Attempt{URL: shownURL(u), Reason: f.reason, Temporary: f.temporary, down: f.down})
}

// do makes one request, bounded in size and time. It does not follow redirects.
func (s *search) do(ctx context.Context, c call) (*answer, *failure) {
	own := origin(c.url) == s.origin
	if reason := s.callable(c.url, c.policy); reason != "" {
		return nil, &failure{reason: reason, unreached: true}
	}
	timed, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	var remote atomic.Pointer[net.Addr] // set by a goroutine that may outlive the request
	traced := httptrace.WithClientTrace(timed, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			addr := info.Conn.RemoteAddr()
			remote.Store(&addr)
		},
	})
	req, err := http.NewRequestWithContext(traced, c.method, c.url.String(), strings.NewReader(c.body))
	if err != nil {
		return nil, &failure{reason: "is not a URL"}
	}
	req.GetBody = nil // http.Transport cannot send the request again without it
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	for name, values := range c.header {
		req.Header[name] = values
	}
	transport, proxied := s.transport(req, own, c.policy)
	// An http.Client would follow redirects, and its errors contain the URL.
	resp, err := transport.RoundTrip(req)
	from := hostAddr(c.url.Hostname())
	if p := remote.Load(); own && p != nil && !proxied {
		if tcp, ok := (*p).(*net.TCPAddr); ok {
			from = tcp.AddrPort().Addr()
			// Documents may name URLs of this origin too: then its name must not resolve to another kind of address.
			s.own = policyFor(from)
		}
	}
	if err != nil {
		unreached := remote.Load() == nil && s.base == nil
		return nil, s.failed(ctx, timed, err, unreached)
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header, policy: c.policy}
	if own {
		a.policy = policyFor(from)
	}
	if a.status == http.StatusProxyAuthRequired {
		return nil, &failure{reason: reach.ProxyRefusal(a.status), unreached: proxied}
	}
	if c.head {
		return a, nil
	}
	// At the timeout the connection closes. If the server notices, it may end an incomplete answer properly.
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1)); err != nil || reach.Ended(timed) != nil {
		return nil, s.failed(ctx, timed, err, false)
	}
	if len(a.body) > maxBody {
		return nil, &failure{reason: "the answer is larger than 1 MiB"}
	}
	return a, nil
}

// document fetches a metadata document. Every status but 200 is a failure.
func (s *search) document(ctx context.Context, u *url.URL, policy Policy) (*answer, *failure) {
	a, fail := s.do(ctx, call{method: http.MethodGet, url: u, policy: policy})
	switch {
	case fail != nil:
		return nil, fail
	case a.status != http.StatusOK:
		busy := reach.Busy(a.status)
		return nil, &failure{reason: statusText(u, a), temporary: busy, down: busy}
	}
	return a, nil
}

// callable returns why a URL must not be called, or "". It checks what can be checked without a lookup, also for
// token endpoints, which are called later. The guard checks the address when dialling.
func (s *search) callable(u *url.URL, policy Policy) string {
	addr := hostAddr(u.Hostname())
	if addr.IsValid() {
		if err := s.guard(origin(u) == s.origin, policy).Check(addr); err != nil {
			return err.Error()
		}
	}
	// http to loopback stays on this host. The check above has allowed loopback.
	if u.Scheme != "https" && !s.AllowInsecureHTTP && !addr.Unmap().IsLoopback() {
		return "uses http to a host other than loopback"
	}
	return ""
}

// guard returns the policy for a URL: the policy of the operator's own origin, or of the document that named the URL.
func (s *search) guard(own bool, policy Policy) Policy {
	if own {
		policy = s.own
	}
	return policy.Or(s.AllowPrivate)
}

// transport returns the transport for a request. proxied reports whether it uses a proxy of the environment.
func (s *search) transport(req *http.Request, own bool, policy Policy) (_ http.RoundTripper, proxied bool) {
	if s.base != nil {
		return s.base, false
	}
	// Only the operator's own origin may use a proxy: the guard would check just the proxy's address, and the proxy
	// would call any URL.
	dialer := &net.Dialer{Resolver: s.resolver, Control: s.guard(own, policy).Control}
	t := reach.NewTransport(s.roots)
	t.DialContext = dialer.DialContext
	if own {
		if proxy, err := s.proxy(req); err != nil || proxy != nil {
			// The connection goes to the proxy, which the owner of the environment chose.
			dialer.Control = nil
			t.Proxy = func(*http.Request) (*url.URL, error) { return proxy, err }
			proxied = true
		}
	}
	return t, proxied
}

// failed returns why a request failed.
func (s *search) failed(ctx, timed context.Context, err error, unreached bool) *failure {
	if reach.Ended(ctx) != nil {
		return &failure{reason: "no answer before the time for the whole discovery was over", temporary: true, down: true, unreached: unreached}
	}
	if reach.Ended(timed) != nil {
		return &failure{reason: fmt.Sprintf("timed out after %s", s.Timeout), temporary: true, down: true, unreached: unreached}
	}
	reason, temporary := cause(err)
	_, guarded := errors.AsType[*AddressError](err)
	return &failure{reason: reason, temporary: temporary, down: !guarded, unreached: unreached}
}

// statusText returns the status of an answer. For a redirect it adds the location, without its secret parts.
// Redirects are not followed: they would bypass the guard's exceptions, and metadata is at its well-known URL.
func statusText(from *url.URL, a *answer) string {
	if a.status/100 != 3 {
		return fmt.Sprintf("HTTP %d", a.status)
	}
	to, err := from.Parse(a.header.Get("Location"))
	if err != nil || to.Host == "" || a.header.Get("Location") == "" {
		return fmt.Sprintf("HTTP %d: redirects are not followed", a.status)
	}
	return fmt.Sprintf("HTTP %d: redirects, as here to %s, are not followed", a.status, shownURL(to))
}

// rootsOf reads the PEM of Request.CACert; nil means the system's roots.
func rootsOf(pem string) (*x509.CertPool, bool) {
	if pem == "" {
		return nil, true
	}
	pool := x509.NewCertPool()
	return pool, pool.AppendCertsFromPEM([]byte(pem))
}
