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

// A Fault is what goes wrong at a FaultProxy, in words.
type Fault string

// The faults. RetryAfter is what the answers that ask to be left alone say.
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

	// Repeat is no outage: while it lasts, whoever asks the same again is handed the same token,
	// with what is left of its lifetime, until shortly before it expires.
	Repeat Fault = "repeated token"

	RetryAfter = 3 * time.Second

	// repeatMargin is how long before its end a token is repeated no more.
	repeatMargin = 2 * time.Second
)

// Outages are the faults that leave the client without a token.
var Outages = []Fault{
	Refused, NoHandshake, NoAnswer, UnknownCA, TooManyRequests, TooManyRequestsDate, Unavailable,
	UnavailableDate, ServerError, SlowBody, CutBody, Garbage, WebPage, InvalidClient,
}

// Hangs reports whether the client comes to know of the fault by its own timeout only.
func (f Fault) Hangs() bool { return f == NoHandshake || f == NoAnswer || f == SlowBody }

// AsksToWait reports whether the fault's answers carry a Retry-After.
func (f Fault) AsksToWait() bool {
	return f == TooManyRequests || f == TooManyRequestsDate || f == Unavailable || f == UnavailableDate
}

// An Attempt is one connection made to a FaultProxy. There is one request to each.
type Attempt struct {
	Time  time.Time // when it was accepted
	Fault Fault     // what it met
}

// A FaultProxy stands before the authorization server, speaks HTTPS, and has the fault that it is
// told to have. What it does with a connection is settled when it accepts it, and each connection
// carries one request only, so a kept connection cannot get round a fault.
type FaultProxy struct {
	address string // of the listener, for life
	ca      *CA
	server  *http.Server
	work    sync.WaitGroup // of the listeners, and of the connections without a handshake

	mu       sync.Mutex // guards the fields below
	fault    Fault
	switched chan struct{} // closed when fault changes
	listener net.Listener  // nil while connections are refused, and when closed
	closed   bool
	attempts []Attempt
	answers  map[question]tokenAnswer // the last token that each question brought
}

// question is what a client asks for: who it is, and the form that it sends.
type question struct{ authorization, form string }

// questionKey is where a request's context has its question.
type questionKey struct{}

// tokenAnswer is an answer of the authorization server that holds a token.
type tokenAnswer struct {
	contentType string
	members     map[string]any
	expires     time.Time
}

// left is what is left of the token's lifetime, in whole seconds.
func (a tokenAnswer) left() int64 { return int64(time.Until(a.expires) / time.Second) }

// NewFaultProxy starts a proxy before the bed's authorization server, as yet without a fault.
func (b *Bed) NewFaultProxy() (*FaultProxy, error) {
	p, err := startFaultProxy(b.AS)
	if err != nil {
		return nil, err
	}
	b.onClose(p.close)
	return p, nil
}

func startFaultProxy(as *AuthorizationServer) (*FaultProxy, error) {
	ca, err := NewCA()
	if err != nil {
		return nil, err
	}
	own, err := serverCertificate(ca)
	if err != nil {
		return nil, err
	}
	otherCA, err := NewCA()
	if err != nil {
		return nil, err
	}
	foreign, err := serverCertificate(otherCA)
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
	p := &FaultProxy{address: fmt.Sprintf("127.0.0.1:%d", ports[0]), ca: ca, fault: NoFault, switched: make(chan struct{}), answers: make(map[question]tokenAnswer)}
	quiet := log.New(io.Discard, "", 0) // every fault would be a line of it
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		// A kept connection to a server that is restarted would be a fault that nobody asked for.
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

func serverCertificate(ca *CA) (*tls.Certificate, error) {
	c, err := ca.Server()
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(c.PEM), []byte(c.KeyPEM))
	return &pair, err
}

// TokenURL is the address of the token endpoint behind the proxy.
func (p *FaultProxy) TokenURL() string { return "https://" + p.address + "/token" }

// CA is the certificate of the proxy's CA, in PEM.
func (p *FaultProxy) CA() string { return p.ca.PEM }

// Set gives the proxy another fault, for the connections to come. Those that hang are closed. The
// error is that its port was taken while connections to it were refused.
func (p *FaultProxy) Set(f Fault) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	if f == p.fault {
		return nil
	}
	close(p.switched)
	p.switched = make(chan struct{})
	p.fault = f
	if f == Refused {
		err := p.listener.Close()
		p.listener = nil
		return err
	}
	if p.listener != nil {
		return nil
	}
	// A connection out of this machine may have been given the port for a moment.
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
		_ = p.server.ServeTLS(&faultListener{Listener: listener, proxy: p}, "", "") // ends with the listener
	})
	return nil
}

// Attempts returns the connections accepted so far, oldest first. Of one that is refused the proxy
// does not know.
func (p *FaultProxy) Attempts() []Attempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.attempts)
}

// begin records an attempt, and gives the fault that it meets and what ends its hanging.
func (p *FaultProxy) begin() (fault Fault, switched <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts = append(p.attempts, Attempt{Time: time.Now(), Fault: p.fault})
	return p.fault, p.switched
}

func (p *FaultProxy) close() error {
	p.mu.Lock()
	if !p.closed {
		close(p.switched)
	}
	p.closed, p.listener = true, nil
	p.mu.Unlock()
	err := p.server.Close()
	p.work.Wait()
	return err
}

// faultListener settles what each connection will meet.
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
		fault, switched := l.proxy.begin()
		if fault != NoHandshake {
			return &faultConn{Conn: conn, fault: fault, switched: switched}, nil
		}
		l.proxy.work.Go(func() { swallow(conn, switched) })
	}
}

// swallow reads whatever comes, until the client gives up or the fault is over.
func swallow(conn net.Conn, switched <-chan struct{}) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
	}()
	select {
	case <-gone:
	case <-switched:
	}
	conn.Close()
	<-gone
}

// faultConn is a connection with what it meets.
type faultConn struct {
	net.Conn
	fault    Fault
	switched <-chan struct{}
}

type faultConnKey struct{}

// serve answers the request of a connection, next if that has no fault.
func (p *FaultProxy) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	conn, ok := r.Context().Value(faultConnKey{}).(*faultConn)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	if conn.fault == NoFault || conn.fault == Repeat {
		p.pass(w, r, next, conn.fault == Repeat)
		return
	}
	// Only when the request has been read does its context tell that the client is gone.
	_, _ = io.Copy(io.Discard, r.Body)
	seconds := strconv.Itoa(int(RetryAfter / time.Second))
	// Dates are in whole seconds; up, so that it is RetryAfter at least.
	date := time.Now().Add(RetryAfter + time.Second).UTC().Format(http.TimeFormat)
	switch conn.fault {
	case TooManyRequests:
		wait(w, http.StatusTooManyRequests, seconds)
	case TooManyRequestsDate:
		wait(w, http.StatusTooManyRequests, date)
	case Unavailable:
		wait(w, http.StatusServiceUnavailable, seconds)
	case UnavailableDate:
		wait(w, http.StatusServiceUnavailable, date)
	case ServerError:
		http.Error(w, "out of memory", http.StatusInternalServerError)
	case SlowBody:
		trickle(w, r, conn.switched)
	case CutBody:
		body := `{"access_token":"cut`
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(2*len(body))) // net/http closes the connection
		_, _ = io.WriteString(w, body)
	case Garbage:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte{0x00, 0xff, 0x1f, 0x8b, 0x08, 0x00, 0xfe, 0x0a})
	case WebPage:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>Sign in</title><form action=/login></form>")
	case InvalidClient:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("WWW-Authenticate", "Basic") // RFC 6749 section 5.2
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"invalid_client","error_description":"client authentication failed"}`)
	default: // NoAnswer, and whatever may be made up
		hang(r, conn.switched)
	}
}

// wait answers that the client is to come back later.
func wait(w http.ResponseWriter, status int, retryAfter string) {
	w.Header().Set("Retry-After", retryAfter)
	http.Error(w, "busy", status)
}

// hang ends when the client gives up or the fault is over, and breaks the connection.
func hang(r *http.Request, switched <-chan struct{}) {
	select {
	case <-r.Context().Done():
	case <-switched:
	}
	panic(http.ErrAbortHandler)
}

// trickle answers with blanks, which may begin any JSON, until the client gives up or the fault is
// over, and breaks the connection.
func trickle(w http.ResponseWriter, r *http.Request, switched <-chan struct{}) {
	w.Header().Set("Content-Type", "application/json")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := io.WriteString(w, " ")
		err = errors.Join(err, http.NewResponseController(w).Flush())
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		select {
		case <-tick.C:
			continue
		case <-r.Context().Done():
		case <-switched:
		}
		panic(http.ErrAbortHandler)
	}
}

// pass has the authorization server answer, or repeats what it answered to the same question.
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

// remember keeps an answer that holds a token.
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
		return nil // not a token: keys, say
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

// remembered is the token that a question brought last; none when that is about to expire.
func (p *FaultProxy) remembered(q question) (tokenAnswer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer, ok := p.answers[q]
	return answer, ok && time.Until(answer.expires) > repeatMargin
}
