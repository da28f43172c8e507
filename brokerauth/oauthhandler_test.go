package brokerauth

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// sdkPost sends a POST as the MCP Go SDK does with a handler: it sets the header if the handler has a token, sends
// the request, and calls Authorize if the answer is 401 or 403.
func sdkPost(t *testing.T, transport *Transport) error {
	t.Helper()
	if source, err := transport.TokenSource(t.Context()); source != nil || err != nil {
		t.Fatalf("the handler has a token source, or %v: net/http would forward its header to other hosts", err)
	}
	req := newRequest(t, http.MethodPost, endpoint, strings.NewReader("hello"))
	content := &body{}
	response, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
	if err != nil {
		return err
	}
	content.Reader, response.Body = response.Body, content
	defer response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized && response.StatusCode != http.StatusForbidden {
		return nil
	}
	err = transport.Authorize(t.Context(), req, response)
	if err == nil {
		t.Error("the SDK is told to repeat a request that the transport has repeated: another 401 would end the session")
	}
	if !content.closed {
		t.Error("the response's body was not closed")
	}
	return err
}

// The handler returns the reason for each 401, and makes as few requests to Vault as the transport alone.
func TestHandlerSaysWhyA401IsTheAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(*world)
		want    string
		kept    bool // the error is ErrNotReplaced
		status  int  // of the *Error
		refused int  // the number of the token in the error
	}{
		"cooldown": {
			trouble: func(w *world) { w.issued, w.cooldown = time.Now(), time.Hour },
			want:    "less than 10 seconds old", kept: true, refused: 1,
		},
		"the next one is refused as well": {
			trouble: func(w *world) { w.refused[access(2)] = true },
			want:    "had just replaced another refused token", kept: true, refused: 2,
		},
		"no permission": {
			trouble: func(w *world) { w.status[http.MethodPut] = http.StatusForbidden },
			want:    "refresh mcp-oauth/refresh/weather: Vault answered 403", status: http.StatusForbidden, refused: 1,
		},
		"Vault sealed": {
			trouble: func(w *world) { w.status[http.MethodPut] = http.StatusServiceUnavailable },
			want:    "Vault answered 503", status: http.StatusServiceUnavailable, refused: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.refused[access(1)] = true
			c.trouble(w)
			transport := w.httpClient(w.source()).Transport.(*Transport)
			err := sdkPost(t, transport)
			if err == nil || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), "refused token "+tokenID(access(c.refused))) {
				t.Fatalf("got %v, want %q of token %s", err, c.want, tokenID(access(c.refused)))
			}
			if strings.Contains(err.Error(), "secret-") {
				t.Error("the error holds the token")
			}
			if errors.Is(err, ErrNotReplaced) != c.kept {
				t.Errorf("%v: ErrNotReplaced: %t", err, !c.kept)
			}
			if failure, ok := errors.AsType[*Error](err); ok != (c.status != 0) || (ok && failure.StatusCode != c.status) {
				t.Errorf("%v: want status %d of an *Error", err, c.status)
			}
			if refreshes := w.called(http.MethodPut); refreshes != 1 {
				t.Errorf("%d refreshes for one refused token, want one", refreshes)
			}
		})
	}
}

func TestHandlerReturnsNoErrorIfTheTokenIsReplaced(t *testing.T) {
	w := newWorld(t)
	w.refused[access(1)] = true
	if err := sdkPost(t, w.httpClient(w.source()).Transport.(*Transport)); err != nil {
		t.Error(err)
	}
	w.wantPresented(1, 2)
	w.wantCalls(2, 1)
}

// The handler adds no requests if a server refuses each token.
func TestHandlerAddsNothingToTheStreak(t *testing.T) {
	cost := map[string]int{}
	for name, ask := range map[string]func(*testing.T, *Transport){
		"with": func(t *testing.T, transport *Transport) { _ = sdkPost(t, transport) },
		"without": func(t *testing.T, transport *Transport) {
			post(t, &http.Client{Transport: transport}).Body.Close()
		},
	} {
		story(t, func(t *testing.T, w *world) {
			w.picky = true
			transport := w.httpClient(w.source()).Transport.(*Transport)
			for range 5 {
				ask(t, transport)
				pass(time.Nanosecond)
			}
			pass(streakFirst)
			for range 5 {
				ask(t, transport)
			}
			cost[name] = w.called(http.MethodPut)
		})
	}
	if cost["with"] != 2 || cost["without"] != 2 {
		t.Errorf("%v refreshes, want one at once and one after half a minute", cost)
	}
}

func TestHandlerSaysThatAnotherTokenWouldNotHelp(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		want   string
	}{
		"403":                      {http.StatusForbidden, "another token of mcp-oauth/token/weather would have the same scopes"},
		"401 to another's request": {http.StatusUnauthorized, "a request without a token"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			req := newRequest(t, http.MethodPost, endpoint, nil)
			transport := w.httpClient(w.source()).Transport.(*Transport)
			for _, request := range []*http.Request{req, nil} {
				content := &body{Reader: strings.NewReader("refused")}
				err := transport.Authorize(t.Context(), req, &http.Response{StatusCode: c.status, Body: content, Request: request})
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if !content.closed || content.Reader.(*strings.Reader).Len() != len("refused") {
					t.Errorf("the response's body was closed: %t; want it closed and unread", content.closed)
				}
			}
			w.wantCalls(0, 0)
		})
	}
}
