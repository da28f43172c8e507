package brokerauth

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

// stream hides the type of a body's reader, so that the request has neither GetBody nor a length.
func stream(s string) *body { return &body{Reader: io.MultiReader(strings.NewReader(s))} }

// postStream sends a body that can be read once to the MCP server.
func (w *world) postStream(client *http.Client, content *body) *http.Response {
	w.t.Helper()
	return do(w.t, client, newRequest(w.t, http.MethodPost, endpoint, content))
}

// A request without GetBody, as in a proxy, is sent again with the kept part of its body.
func TestBodyIsKeptForTheSecondRequest(t *testing.T) {
	for name, limit := range map[string]int64{"by default": 0, "up to the limit": 5} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.refused[access(1)] = true
			client := w.httpClient(w.source())
			client.Transport.(*Transport).KeptBody = limit
			content := stream("hello")
			wantAnswer(t, w.postStream(client, content), http.StatusOK, "hello")
			w.wantPresented(1, 2)
			content.wantClosed(t)
		})
	}
}

// A longer body is sent once, whole, and the client gets the 401. The next request has the new token.
func TestLongBodyIsNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		limit  int64
		length int64 // as the request states it
	}{
		"one byte too long":   {4, -1},
		"it says so":          {4, 5},
		"nothing is kept":     {-1, 5},
		"nothing is kept, -1": {-1, -1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.refused[access(1)] = true
			client := w.httpClient(w.source())
			client.Transport.(*Transport).KeptBody = c.limit
			content := stream("hello")
			req := newRequest(t, http.MethodPost, endpoint, content)
			req.ContentLength = c.length
			wantAnswer(t, do(t, client, req), http.StatusUnauthorized, "refused")
			content.wantClosed(t)
			wantAnswer(t, post(t, client), http.StatusOK, "hello")
			w.wantPresented(1, 2)
			w.with(func(w *world) {
				if w.bodies[0] != "hello" {
					t.Errorf("the server got %q", w.bodies[0])
				}
			})
		})
	}
}

// A server may refuse a token before it has read the body, or even before the client has sent it.
func TestBodyThatWasNotReadIsSentWhole(t *testing.T) {
	for name, read := range map[string]int{"not at all": 0, "half": 3} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			client := w.httpClient(w.source())
			content := stream("hello")
			client.Transport.(*Transport).Base = roundTripper(func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("Authorization") != "Bearer "+access(1) {
					return w.serve(req)
				}
				if _, err := io.ReadFull(req.Body, make([]byte, read)); err != nil {
					t.Error(err)
				}
				req.Body.Close()
				if content.closed {
					t.Error("the body was closed before it was sent again")
				}
				return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody, Request: req}, nil
			})
			wantAnswer(t, w.postStream(client, content), http.StatusOK, "hello")
			content.wantClosed(t)
		})
	}
}

// net/http may still read the body of the first request while the second is sent. The second reader gets the bytes
// that the first one reads.
func TestBodyThatIsStillBeingReadIsSentWhole(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		client := w.httpClient(w.source())
		send, content := io.Pipe()
		content2 := &body{Reader: send}
		go func() {
			for _, part := range []string{"he", "l", "lo"} {
				pass(time.Second)
				_, _ = content.Write([]byte(part))
			}
			content.Close()
		}()
		client.Transport.(*Transport).Base = roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Authorization") != "Bearer "+access(1) {
				return w.serve(req)
			}
			stale := make(chan error, 1)
			go func() {
				_, err := io.ReadAll(req.Body)
				stale <- err
				req.Body.Close()
			}()
			pass(1500 * time.Millisecond) // the reader waits for the second part
			time.AfterFunc(time.Hour/60, func() {
				if err := <-stale; !errors.Is(err, http.ErrBodyReadAfterClose) {
					t.Errorf("the first request's body ended with %v", err)
				}
			})
			return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody, Request: req}, nil
		})
		wantAnswer(t, w.postStream(client, content2), http.StatusOK, "hello")
		pass(time.Hour)
		content2.wantClosed(t)
	})
}

// The kept bytes are dropped when the answer arrives, because a stream may last for days.
func TestKeptBodyIsLetGo(t *testing.T) {
	content := &body{Reader: strings.NewReader("hello, world")}
	kept := keepBody(content, 100)
	first, err := kept.open()
	if err != nil {
		t.Fatal(err)
	}
	five := make([]byte, 5)
	if _, err := io.ReadFull(first, five); err != nil || string(five) != "hello" {
		t.Fatalf("%q, %v", five, err)
	}
	second, err := kept.open()
	if err != nil {
		t.Fatal(err)
	}
	kept.finish()
	if _, err := kept.open(); err == nil {
		t.Error("a body was opened after its kept bytes were dropped")
	}
	if _, err := first.Read(five); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("the first body was read after the second was opened: %v", err)
	}
	if rest, err := io.ReadAll(second); err != nil || string(rest) != "hello, world" {
		t.Errorf("%q, %v", rest, err)
	}
	if kept.kept != nil {
		t.Error("bytes already read are still kept")
	}
	if content.closed {
		t.Error("the body was closed before its reader")
	}
	second.Close()
	content.wantClosed(t)
}

// An httputil.ReverseProxy uses a Transport, over real connections. The client does not notice a refused token, and
// the trailer of its request arrives.
func TestReverseProxyOnATransport(t *testing.T) {
	w := newWorld(t)
	w.refused[access(1)] = true
	var trailers []string
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		content, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		trailers = append(trailers, req.Trailer.Get("Checksum"))
		token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
		w.with(func(w *world) {
			w.presented = append(w.presented, token)
			if w.refused[token] {
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = rw.Write(content)
		})
	}))
	defer server.Close()
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Trailer = r.In.Trailer
		},
		Transport: w.transport(w.source(), server.URL),
	})
	defer proxy.Close()

	content := bytes.Repeat([]byte("hello"), 100_000)
	req := newRequest(t, http.MethodPost, proxy.URL, io.MultiReader(bytes.NewReader(content)))
	req.Trailer = http.Header{"Checksum": {"abc"}}
	wantAnswer(t, do(t, proxy.Client(), req), http.StatusOK, string(content))
	w.wantPresented(1, 2)
	if len(trailers) != 2 || trailers[0] != "abc" || trailers[1] != "abc" {
		t.Errorf("the server got the trailers %q", trailers)
	}
}
