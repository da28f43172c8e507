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
	header http.Header // more than the usual ones; may be nil
	body   string
	// policy is what the document that named the URL earned for it. It is not used for the operator's
	// own origin, which no other party chose.
	policy Policy
	// head wants no body: an MCP server's may be an event stream without an end.
	head bool
}

// answer is what came back from a call.
type answer struct {
	status int
	header http.Header
	body   []byte
	policy Policy // for URLs that this answer names
}

// failure is why a call got no answer.
type failure struct {
	reason    string
	temporary bool
	// down is set if the server was asked, and gave no whole answer, or one about the moment.
	down bool
	// unreached is set if no connection came about. Other URLs of the origin would fare no better.
	unreached bool
}

// refuse notes why a URL was not taken.
func (s *search) refuse(u *url.URL, reason string) {
	s.attempts = append(s.attempts, Attempt{URL: shownURL(u), Reason: reason})
}

// notFound is the error of the search as it stands.
func (s *search) notFound(ctx context.Context) *Error {
	return &Error{Attempts: s.attempts, Ended: reach.Ended(ctx)}
}

// fail notes why a URL gave no document.
func (s *search) fail(u *url.URL, f *failure) {
	s.attempts = append(s.attempts, Attempt{URL: shownURL(u), Reason: f.reason, Temporary: f.temporary, down: f.down})
}

// do makes one request: bounded in size and time, without following redirects.
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
	req.GetBody = nil // what http.Transport would need to send the request again
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	for name, values := range c.header {
		req.Header[name] = values
	}
	transport, proxied := s.transport(req, own, c.policy)
	// Not over an http.Client, which would follow redirects, and whose errors hold the URL.
	resp, err := transport.RoundTrip(req)
	from := hostAddr(c.url.Hostname())
	if p := remote.Load(); own && p != nil && !proxied {
		if tcp, ok := (*p).(*net.TCPAddr); ok {
			from = tcp.AddrPort().Addr()
			// Documents choose URLs of this origin too: its name must not lead elsewhere for those.
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
	// The server sees that the connection closes when the time is over, and may still end its answer in
	// good order: it is not the whole one.
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1)); err != nil || reach.Ended(timed) != nil {
		return nil, s.failed(ctx, timed, err, false)
	}
	if len(a.body) > maxBody {
		return nil, &failure{reason: "the answer is larger than 1 MiB"}
	}
	return a, nil
}

// document gets a metadata document. Whatever is not a plain 200 is no document.
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

// callable says why a URL must not be called, or "". What can be told without a lookup is told here, and
// holds for token endpoints too, which are called later; the rest shows when dialling.
func (s *search) callable(u *url.URL, policy Policy) string {
	addr := hostAddr(u.Hostname())
	if addr.IsValid() {
		if err := s.guard(origin(u) == s.origin, policy).Check(addr); err != nil {
			return err.Error()
		}
	}
	// http to loopback is read by no other host; whether loopback may be called was the question above.
	if u.Scheme != "https" && !s.AllowInsecureHTTP && !addr.Unmap().IsLoopback() {
		return "uses http to a host other than loopback"
	}
	return ""
}

// guard is the policy for a URL: that of the operator's own origin, or that which the document that named it
// earned.
func (s *search) guard(own bool, policy Policy) Policy {
	if own {
		policy = s.own
	}
	return policy.Or(s.AllowPrivate)
}

// transport returns what a request goes over, and whether that is a proxy of the environment.
func (s *search) transport(req *http.Request, own bool, policy Policy) (_ http.RoundTripper, proxied bool) {
	if s.base != nil {
		return s.base, false
	}
	// The guard would see a proxy's address, and who runs the proxy would do the calling.
	dialer := &net.Dialer{Resolver: s.resolver, Control: s.guard(own, policy).Control}
	t := reach.NewTransport(s.roots)
	t.DialContext = dialer.DialContext
	if own {
		if proxy, err := s.proxy(req); err != nil || proxy != nil {
			// What is dialled is the proxy, which the environment's owner chose.
			dialer.Control = nil
			t.Proxy = func(*http.Request) (*url.URL, error) { return proxy, err }
			proxied = true
		}
	}
	return t, proxied
}

// failed says what kept an answer from coming.
func (s *search) failed(ctx, timed context.Context, err error, unreached bool) *failure {
	if reach.Ended(ctx) != nil {
		return &failure{reason: "no answer before the time for the whole search was over", temporary: true, down: true, unreached: unreached}
	}
	if reach.Ended(timed) != nil {
		return &failure{reason: fmt.Sprintf("timed out after %s", s.Timeout), temporary: true, down: true, unreached: unreached}
	}
	reason, temporary := cause(err)
	_, guarded := errors.AsType[*AddressError](err)
	return &failure{reason: reason, temporary: temporary, down: !guarded, unreached: unreached}
}

// statusText is the status of an answer. Of a redirect it says where to, without what may be secret: it is not
// followed, as it would lead around the guard's exceptions, and metadata is at its well-known URL.
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

// rootsOf reads the PEM of Request.CACert; nil are the system's roots.
func rootsOf(pem string) (*x509.CertPool, bool) {
	if pem == "" {
		return nil, true
	}
	pool := x509.NewCertPool()
	return pool, pool.AppendCertsFromPEM([]byte(pem))
}
