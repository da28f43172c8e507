package bed

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A Fault is a fault of a FaultProxy, in words.
type Fault string

// The faults. RetryAfter is the wait in their Retry-After headers.
const (
	NoFault             Fault = "none"
	Refused             Fault = "connection refused"
	NoHandshake         Fault = "no answer to the TLS handshake"
	NoAnswer            Fault = "no answer to the request"
	UnknownCA           Fault = "certificate of another CA"
	TooManyRequests     Fault = "429 with seconds"
	TooManyRequestsDate Fault = "429 with a date"
	Unavailable         Fault = "503 with seconds"
	UnavailableDate     Fault = "503 with a date"
	ServerError         Fault = "500"
	SlowBody            Fault = "slow body"
	CutBody             Fault = "cut body"
	Garbage             Fault = "garbage"
	WebPage             Fault = "web page"
	InvalidClient       Fault = "invalid_client"

	// Repeat is not an outage: an identical request gets the same token with its remaining lifetime, until shortly
	// before the token's end.
	Repeat Fault = "repeated token"

	RetryAfter = 3 * time.Second

	// repeatMargin is the remaining lifetime below which a token is not repeated.
	repeatMargin = 2 * time.Second
)

// Outages are the faults in which the client gets no token.
var Outages = []Fault{
	Refused, NoHandshake, NoAnswer, UnknownCA, TooManyRequests, TooManyRequestsDate, Unavailable,
	UnavailableDate, ServerError, SlowBody, CutBody, Garbage, WebPage, InvalidClient,
}

// AsksToWait reports whether the fault's answers have a Retry-After header.
func (f Fault) AsksToWait() bool {
	return f == TooManyRequests || f == TooManyRequestsDate || f == Unavailable || f == UnavailableDate
}

// An Attempt is a connection to a FaultProxy, with one request.
type Attempt struct {
	Time  time.Time // when the connection was accepted
	Fault Fault     // the connection's fault
}

// A FaultProxy is an HTTPS proxy in front of the authorization server that can inject faults. A connection keeps the
// fault of its start and carries a single request, so a client cannot avoid a fault by keeping a connection.
type FaultProxy struct {
	address string // of the listener; never changes
	ca      *CA
	server  *http.Server
	work    sync.WaitGroup // listeners, and connections without a handshake

	mu       sync.Mutex // guards the fields below
	fault    Fault
	present  context.Context    // ends when the fault changes
	changed  context.CancelFunc // ends present
	listener net.Listener       // nil while connections are refused, and when closed
	closed   bool
	attempts []Attempt
	answers  map[question]tokenAnswer // by question: the last token
}

// question is a token request: its authorization and form.
type question struct{ authorization, form string }

type questionKey struct{}

// tokenAnswer is an answer of the authorization server with a token.
type tokenAnswer struct {
	contentType string
	members     map[string]any
	expires     time.Time
}

// left returns the token's remaining lifetime in whole seconds.
func (a tokenAnswer) left() int64 { return int64(time.Until(a.expires) / time.Second) }

// NewFaultProxy starts a proxy in front of the bed's authorization server, without a fault.
func (b *Bed) NewFaultProxy() (*FaultProxy, error) {
	p, err := startFaultProxy(b.AS)
	if err != nil {
		return nil, err
	}
	b.onClose(p.close)
	return p, nil
}

func startFaultProxy(as *AuthorizationServer) (*FaultProxy, error) {
	ca, own, err := serverCertificate()
	if err != nil {
		return nil, err
	}
	_, foreign, err := serverCertificate()
	if err != nil {
		return nil, err
	}
	upstream, err := url.Parse(as.Issuer)
	if err != nil {
		return nil, err
	}
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	p := &FaultProxy{address: fmt.Sprintf("127.0.0.1:%d", ports[0]), ca: ca, fault: NoFault, answers: make(map[question]tokenAnswer)}
	p.present, p.changed = context.WithCancel(context.Background())
	quiet := log.New(io.Discard, "", 0) // each fault would add a line
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		// After a restart of the server, a kept connection would add a fault of its own.
		Transport:      &http.Transport{DisableKeepAlives: true},
		ModifyResponse: p.remember,
		ErrorLog:       quiet,
	}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	p.server = &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, proxy) }),
		Protocols: http1,
		ErrorLog:  quiet,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				if conn, ok := hello.Conn.(*faultConn); ok && conn.fault == UnknownCA {
					return foreign, nil
				}
				return own, nil
			},
		},
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, faultConnKey{}, conn.(*tls.Conn).NetConn())
		},
	}
	p.server.SetKeepAlivesEnabled(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.open(); err != nil {
		return nil, err
	}
	return p, nil
}

func serverCertificate() (*CA, *tls.Certificate, error) {
	ca, err := NewCA()
	if err != nil {
		return nil, nil, err
	}
	c, err := ca.Server()
	if err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair([]byte(c.PEM), []byte(c.KeyPEM))
	return ca, &pair, err
}

// TokenURL is the address of the token endpoint behind the proxy.
func (p *FaultProxy) TokenURL() string { return "https://" + p.address + "/token" }

// CA is the certificate of the proxy's CA, in PEM.
func (p *FaultProxy) CA() string { return p.ca.PEM }

// Set changes the fault of new connections, and closes hanging ones. It returns an error if another process took the
// port while connections were refused.
func (p *FaultProxy) Set(f Fault) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	if f == p.fault {
		return nil
	}
	p.changed()
	p.present, p.changed = context.WithCancel(context.Background())
	p.fault = f
	if f == Refused {
		err := p.listener.Close()
		p.listener = nil
		return err
	}
	if p.listener != nil {
		return nil
	}
	// For a moment, another connection may hold the port.
	return Poll(context.Background(), 10*time.Second, p.open)
}

// open listens. mu is held.
func (p *FaultProxy) open() error {
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return err
	}
	p.listener = listener
	p.work.Go(func() {
		_ = p.server.ServeTLS(&faultListener{Listener: listener, proxy: p}, "", "") // returns when the listener closes
	})
	return nil
}

// Attempts returns the accepted connections, oldest first. Refused connections are not recorded.
func (p *FaultProxy) Attempts() []Attempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.attempts)
}

// begin records an attempt, and returns its fault and the fault's context.
func (p *FaultProxy) begin() (Fault, context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts = append(p.attempts, Attempt{Time: time.Now(), Fault: p.fault})
	return p.fault, p.present
}

func (p *FaultProxy) close() error {
	p.mu.Lock()
	p.changed()
	p.closed, p.listener = true, nil
	p.mu.Unlock()
	err := p.server.Close()
	p.work.Wait()
	return err
}

// faultListener sets the fault of each connection.
type faultListener struct {
	net.Listener
	proxy *FaultProxy
}

func (l *faultListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		fault, present := l.proxy.begin()
		if fault != NoHandshake {
			return &faultConn{Conn: conn, fault: fault, present: present}, nil
		}
		l.proxy.work.Go(func() { swallow(present, conn) })
	}
}

// swallow reads until the client gives up or the fault ends.
func swallow(present context.Context, conn net.Conn) {
	defer context.AfterFunc(present, func() { conn.Close() })()
	_, _ = io.Copy(io.Discard, conn)
	conn.Close()
}

type faultConn struct {
	net.Conn
	fault   Fault
	present context.Context
}

type faultConnKey struct{}

// serve answers a connection's request according to its fault, and without a fault passes it to next.
func (p *FaultProxy) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	conn, ok := r.Context().Value(faultConnKey{}).(*faultConn)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	if conn.fault == NoFault || conn.fault == Repeat {
		p.pass(w, r, next, conn.fault == Repeat)
		return
	}
	// net/http ends the request's context with the connection only if the body has been read.
	_, _ = io.Copy(io.Discard, r.Body)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(conn.present, cancel)()
	answer, ok := faultAnswers[conn.fault]
	if !ok { // Refused, and the connection was accepted just before
		panic(http.ErrAbortHandler)
	}
	answer(w, r.WithContext(ctx))
}

// faultAnswers are the handlers for the faults. The request's context ends with the fault.
var faultAnswers = map[Fault]http.HandlerFunc{
	NoAnswer:            Hang,
	TooManyRequests:     retryLater(http.StatusTooManyRequests, retrySeconds),
	TooManyRequestsDate: retryLater(http.StatusTooManyRequests, retryDate),
	Unavailable:         retryLater(http.StatusServiceUnavailable, retrySeconds),
	UnavailableDate:     retryLater(http.StatusServiceUnavailable, retryDate),
	ServerError: func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "out of memory", http.StatusInternalServerError)
	},
	SlowBody:      trickle,
	CutBody:       answerWith("application/json", `{"access_token":"cut`, 100),
	Garbage:       answerWith("application/json", "\x00\xff\x1f\x8b\x08\x00\xfe\x0a", 0),
	WebPage:       answerWith("text/html", "<!DOCTYPE html><title>Sign in</title>", 0),
	InvalidClient: RefuseWith(http.StatusUnauthorized, "invalid_client", nil),
}

func retrySeconds() string { return strconv.Itoa(int(RetryAfter / time.Second)) }

// retryDate returns a date in whole seconds that is at least RetryAfter away.
func retryDate() string {
	return time.Now().Add(RetryAfter + time.Second).UTC().Format(http.TimeFormat)
}

func retryLater(status int, retryAfter func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", retryAfter())
		http.Error(w, "busy", status)
	}
}

// answerWith answers with a body. If missing is above 0, net/http closes the connection before the body's end.
func answerWith(contentType, body string, missing int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)+missing))
		_, _ = io.WriteString(w, body)
	}
}

// trickle sends blanks, which may begin JSON, and breaks the connection when the fault ends.
func trickle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	for {
		_, err := io.WriteString(w, " ")
		err = errors.Join(err, http.NewResponseController(w).Flush(), Sleep(r.Context(), 200*time.Millisecond))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// pass forwards the request or, if repeat is set, repeats the last answer to the same question.
func (p *FaultProxy) pass(w http.ResponseWriter, r *http.Request, next http.Handler, repeat bool) {
	form, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	q := question{r.Header.Get("Authorization"), string(form)}
	if repeat {
		if answer, ok := p.remembered(q); ok {
			w.Header().Set("Content-Type", answer.contentType)
			again := maps.Clone(answer.members)
			again["expires_in"] = answer.left()
			_ = json.NewEncoder(w).Encode(again)
			return
		}
	}
	r = r.WithContext(context.WithValue(r.Context(), questionKey{}, q))
	r.Body = io.NopCloser(bytes.NewReader(form))
	next.ServeHTTP(w, r)
}

func (p *FaultProxy) remember(resp *http.Response) error {
	q, asked := resp.Request.Context().Value(questionKey{}).(question)
	if !asked || resp.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var members map[string]any
	if json.Unmarshal(body, &members) != nil || members["access_token"] == nil {
		return nil // an answer without a token, such as keys
	}
	lifetime, _ := members["expires_in"].(float64)
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.answers, func(_ question, a tokenAnswer) bool { return a.left() <= 0 })
	p.answers[q] = tokenAnswer{
		contentType: resp.Header.Get("Content-Type"),
		members:     members,
		expires:     time.Now().Add(time.Duration(lifetime * float64(time.Second))),
	}
	return nil
}

// remembered returns the last token for a question, unless it is about to expire.
func (p *FaultProxy) remembered(q question) (tokenAnswer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer, ok := p.answers[q]
	return answer, ok && time.Until(answer.expires) > repeatMargin
}
