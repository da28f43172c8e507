package brokerauth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const endpoint = "https://mcp.test/mcp"

// httpClient is a client whose requests to the MCP server are authorized by s.
func (w *world) httpClient(s *Source) *http.Client {
	transport := w.transport(s, endpoint)
	transport.Base = roundTripper(w.serve)
	return &http.Client{Transport: transport}
}

// transport authorizes the requests to a server by s.
func (w *world) transport(s *Source, server string) *Transport {
	w.t.Helper()
	transport, err := NewTransport(s, server)
	if err != nil {
		w.t.Fatal(err)
	}
	return transport
}

// newRequest makes a request with the test's context.
func newRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// post sends hello to the MCP server.
func post(t *testing.T, client *http.Client) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader("hello"))
	if err != nil {
		t.Error(err)
		return &http.Response{Body: http.NoBody}
	}
	return do(t, client, req)
}

// do sends a request. Without an answer it returns an empty one. Any goroutine may call it.
func do(t *testing.T, client *http.Client, req *http.Request) *http.Response {
	t.Helper()
	response, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return &http.Response{Body: http.NoBody, Request: req}
	}
	return response
}

// wantAnswer checks an answer that has not been read.
func wantAnswer(t *testing.T, response *http.Response, status int, body string) {
	t.Helper()
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	if response.StatusCode != status || string(got) != body {
		t.Errorf("answer %d %q, want %d %q", response.StatusCode, got, status, body)
	}
}

// wantPresented checks the tokens that the server has received, in order.
func (w *world) wantPresented(numbers ...int) {
	w.t.Helper()
	var want []string
	for _, n := range numbers {
		want = append(want, access(n))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.presented, want) {
		w.t.Errorf("the server saw %v, want %v", w.presented, want)
	}
}

// A token is sent to the server's origin only. The caller's request is not changed.
func TestTokenGoesToTheServersOriginOnly(t *testing.T) {
	w := newWorld(t)
	transport := w.transport(w.source(), "https://MCP.test/mcp")
	var sent string
	transport.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
		sent = req.Header.Get("Authorization")
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, nil
	})
	for address, want := range map[string]bool{
		"https://mcp.test/mcp":       true,
		"https://mcp.test":           true,
		"https://Mcp.Test:443/other": true,
		"http://mcp.test/mcp":        false,
		"https://mcp.test:8443/mcp":  false,
		"https://a.mcp.test/mcp":     false,
		"https://test/mcp":           false,
	} {
		req := newRequest(t, http.MethodGet, address, nil)
		sent = ""
		if _, err := transport.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		if got := sent == "Bearer "+access(1); got != want || (sent != "" && !want) {
			t.Errorf("%s: authorized %t, want %t", address, got, want)
		}
		if len(req.Header) != 0 {
			t.Errorf("%s: the request was changed", address)
		}
	}
}

// A host with characters outside of ASCII is another origin, even if a case mapping turns them into ASCII letters, as
// with U+0130 and U+212A. It is the server's origin only if the server's URL spells it the same. IDNA defines its
// ASCII form.
func TestHostThatIsNotASCII(t *testing.T) {
	for _, c := range []struct {
		server, request string
		want            bool
	}{
		{"https://files.test/mcp", "https://f\u0130les.test/mcp", false},
		{"https://files.test/mcp", "https://FILES.test/mcp", true},
		{"https://kiosk.test/mcp", "https://\u212aiosk.test/mcp", false},
		{"https://kiosk.test/mcp", "https://kio\u017fk.test/mcp", false},
		{"https://kiosk.test/mcp", "https://kiosk\u3002test/mcp", false},
		{"https://b\u00fccher.test/mcp", "https://b\u00fccher.test/other", true},
		{"https://b\u00fccher.test/mcp", "https://xn--bcher-kva.test/mcp", true},
		{"https://b\u00fccher.test/mcp", "https://bucher.test/mcp", false},
		{"https://b\u00fccher.test/mcp", "http://b\u00fccher.test/mcp", false},
		{"https://b\u00fccher.test/mcp", "https://B\u00fccher.test/mcp", false},
		{"https://\u212aiosk.test/mcp", "https://kiosk.test/mcp", true}, // the address to which net/http connects
	} {
		w := newWorld(t)
		transport := w.transport(w.source(), c.server)
		authorized := false
		transport.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			authorized = req.Header.Get("Authorization") != ""
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, nil
		})
		if _, err := transport.RoundTrip(newRequest(t, http.MethodGet, c.request, nil)); err != nil {
			t.Fatal(err)
		}
		if authorized != c.want {
			t.Errorf("the token of %+q went to %+q: %t, want %t", c.server, c.request, authorized, c.want)
		}
	}
}

func TestRedirectElsewhereCarriesNoToken(t *testing.T) {
	w := newWorld(t)
	response := do(t, w.httpClient(w.source()), newRequest(t, http.MethodGet, "https://mcp.test/moved", nil))
	wantAnswer(t, response, http.StatusOK, "") // elsewhere.test returns the header that it received
	w.wantPresented(1)
	if host := response.Request.URL.Host; host != "elsewhere.test" {
		t.Errorf("the redirect led to %s", host)
	}
}

func TestRefusedTokenIsReplacedAndTheRequestSentAgain(t *testing.T) {
	w := newWorld(t)
	w.refused[access(1)] = true
	client := w.httpClient(w.source())
	wantAnswer(t, post(t, client), http.StatusOK, "hello")
	w.wantPresented(1, 2)
	wantAnswer(t, post(t, client), http.StatusOK, "hello")
	w.wantPresented(1, 2, 2)
	w.with(func(w *world) {
		if !slices.Equal(w.bodies, []string{"hello", "hello", "hello"}) {
			t.Errorf("the server got %q", w.bodies)
		}
	})
	w.wantCalls(2, 1)
}

// A request without a body, or with http.NoBody, can always be sent again.
func TestRequestWithoutBodyIsSentAgain(t *testing.T) {
	for name, body := range map[string]io.Reader{"nil": nil, "NoBody": http.NoBody} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.refused[access(1)] = true
			req := newRequest(t, http.MethodGet, endpoint, body)
			req.GetBody = nil
			wantAnswer(t, do(t, w.httpClient(w.source()), req), http.StatusOK, "")
			w.wantPresented(1, 2)
		})
	}
}

// If the body is gone, the client gets the complete 401. The next request has the new token.
func TestBodyThatIsGoneIsNotSentAgain(t *testing.T) {
	w := newWorld(t)
	w.refused[access(1)] = true
	client := w.httpClient(w.source())
	req := newRequest(t, http.MethodPost, endpoint, strings.NewReader("hello"))
	req.GetBody = func() (io.ReadCloser, error) { return nil, errLost }
	response := do(t, client, req)
	if why := Refusal(response); !errors.Is(why, errLost) {
		t.Errorf("the refusal is %v, want the error that the body is gone", why)
	}
	wantAnswer(t, response, http.StatusUnauthorized, "refused")
	wantAnswer(t, post(t, client), http.StatusOK, "hello")
	w.wantPresented(1, 2)
	w.wantCalls(2, 1)
}

// Without a new token, the client gets the complete 401, and the request is sent once.
func TestWithoutNewTokenThe401IsTheAnswer(t *testing.T) {
	for name, trouble := range map[string]func(*world){
		"cooldown":      func(w *world) { w.issued, w.cooldown = time.Now(), time.Hour },
		"no permission": func(w *world) { w.status[http.MethodPut] = http.StatusForbidden },
		"Vault sealed":  func(w *world) { w.status[http.MethodPut] = http.StatusServiceUnavailable },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				trouble(w)
				w.refused[access(1)] = true
				client := w.httpClient(w.source())
				wantAnswer(t, post(t, client), http.StatusUnauthorized, "refused")
				w.wantPresented(1)
				wantAnswer(t, post(t, client), http.StatusUnauthorized, "refused")
				w.wantPresented(1, 1)
				w.wantCalls(1, 1) // the second request came within the window
			})
		})
	}
}

func TestSecond401IsTheAnswer(t *testing.T) {
	w := newWorld(t)
	w.refused[access(1)], w.refused[access(2)] = true, true
	wantAnswer(t, post(t, w.httpClient(w.source())), http.StatusUnauthorized, "refused")
	w.wantPresented(1, 2)
	w.wantCalls(2, 1)
}

func TestRequestsThatSeeOne401CostOneRefresh(t *testing.T) {
	holding(t, func(t *testing.T, w *world, s *Source) {
		w.with(func(w *world) { w.refused[access(1)], w.latency = true, time.Second })
		client := w.httpClient(s)
		parallel(100, func() { wantAnswer(t, post(t, client), http.StatusOK, "hello") })
		w.wantCalls(2, 1)
	})
}

// The transport returns answers other than 401 unchanged.
func TestOtherAnswersAndErrorsPass(t *testing.T) {
	w := newWorld(t)
	client := w.httpClient(w.source())
	transport := client.Transport.(*Transport)
	transport.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusForbidden, Body: http.NoBody, Request: req}, nil
	})
	wantAnswer(t, post(t, client), http.StatusForbidden, "")
	transport.Base = roundTripper(func(*http.Request) (*http.Response, error) { return nil, errLost })
	response, err := client.Get(endpoint)
	if !errors.Is(err, errLost) {
		response.Body.Close()
		t.Errorf("got %v, want %v", err, errLost)
	}
	w.wantCalls(1, 0)
}

// body is a request's body that reports whether it was closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

func (b *body) wantClosed(t *testing.T) {
	t.Helper()
	if !b.closed {
		t.Error("the body was not closed")
	}
}

// Without a token, the request is not sent, and its body is closed.
func TestRequestWithoutTokenIsNotSent(t *testing.T) {
	w := newWorld(t)
	w.status[http.MethodGet] = http.StatusForbidden
	content := &body{Reader: strings.NewReader("hello")}
	_, err := w.httpClient(w.source()).Do(newRequest(t, http.MethodPost, endpoint, content))
	if failure, ok := errors.AsType[*Error](err); !ok || failure.StatusCode != http.StatusForbidden {
		t.Errorf("got %v, want the *Error of the read", err)
	}
	content.wantClosed(t)
	w.wantPresented()
}

// A 401 that the client does not get is closed, which frees its connection. It is not read, because its body may
// never end.
func TestBodyOfThe401IsClosedUnread(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		end := make(chan struct{})
		time.AfterFunc(time.Hour, func() { close(end) })
		refusal := &body{Reader: reader(func([]byte) (int, error) { <-end; return 0, io.EOF })}
		client := w.httpClient(w.source())
		client.Transport.(*Transport).Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") == "Bearer "+access(1) {
				return &http.Response{StatusCode: http.StatusUnauthorized, Body: refusal, Request: req}, nil
			}
			return w.serve(req)
		})
		before := time.Now()
		wantAnswer(t, post(t, client), http.StatusOK, "hello")
		if waited := time.Since(before); waited != 0 || !refusal.closed {
			t.Errorf("the answer took %s; the body was closed: %t", waited, refusal.closed)
		}
	})
}

// reader turns a function into an io.Reader.
type reader func([]byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }

// If a caller gives up while its token is replaced, it gets the context's error: for a 401 the MCP Go SDK would call
// its handler, and end the session because the call's context is done. The replacement goes on.
func TestCallerWhoGivesUpIsToldSoInPlaceOfThe401(t *testing.T) {
	for name, c := range map[string]struct {
		latency time.Duration // of the MCP server
		refused []int
		waited  time.Duration
	}{
		"while it is being replaced":     {0, []int{1}, time.Second},
		"before the next one is refused": {800 * time.Millisecond, []int{1, 2}, 1600 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			holding(t, func(t *testing.T, w *world, s *Source) {
				w.with(func(w *world) {
					for _, n := range c.refused {
						w.refused[access(n)] = true
					}
					if c.latency == 0 {
						w.latency = 5 * time.Second
					}
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				req := newRequest(t, http.MethodPost, endpoint, strings.NewReader("hello")).WithContext(ctx)
				transport := w.httpClient(s).Transport.(*Transport)
				var last *body
				transport.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
					pass(c.latency)
					response, err := w.serve(req)
					last = &body{Reader: response.Body}
					response.Body = last
					return response, err
				})
				before := time.Now()
				response, err := transport.RoundTrip(req)
				if !errors.Is(err, context.DeadlineExceeded) || response != nil {
					t.Errorf("got %v, want the caller's deadline and no answer", err)
				}
				if waited := time.Since(before); waited != c.waited || !last.closed {
					t.Errorf("the caller waited %s, want %s; the 401's body was closed: %t", waited, c.waited, last.closed)
				}
				pass(5 * time.Second)
				w.wantToken(s, 2)
			})
		})
	}
}

func TestTransportNeedsAnHTTPURL(t *testing.T) {
	s := newWorld(t).source()
	for _, address := range []string{"", "mcp.test", "/mcp", "ftp://mcp.test/", "https://", "https://:secret@%zz", "https://\ufffd.test/"} {
		transport, err := NewTransport(s, address)
		if err == nil || transport != nil {
			t.Errorf("%q is accepted", address)
		} else if strings.Contains(err.Error(), "secret") {
			t.Error("the error holds the password")
		}
	}
	if transport, err := NewTransport(s, endpoint); err != nil || transport.base() != http.DefaultTransport {
		t.Errorf("the base is not the default transport: %v", err)
	}
}
