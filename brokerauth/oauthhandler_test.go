package brokerauth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// exchange is a request with the header given and the MCP server's answer to it.
func exchange(t *testing.T, authorization string, status int) (*http.Request, *http.Response, *body) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	content := &body{Reader: strings.NewReader("refused")}
	return req, &http.Response{StatusCode: status, Body: content, Request: req}, content
}

func TestHandlerReplacesTheTokenThatTheRequestHad(t *testing.T) {
	w := newWorld(t)
	s := w.source()
	source, err := s.TokenSource(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	req, response, content := exchange(t, "Bearer "+first.AccessToken, http.StatusUnauthorized)
	if err := s.Authorize(t.Context(), req, response); err != nil {
		t.Fatal(err)
	}
	if !content.closed {
		t.Error("the response's body was not closed")
	}
	if content.Reader.(*strings.Reader).Len() != len("refused") {
		t.Error("the response's body, which may never end, was read")
	}
	if second, err := source.Token(); err != nil || second.AccessToken != access(2) {
		t.Errorf("the next token is not the second: %v", err)
	}
	w.wantCalls(2, 1)
}

func TestHandlerSaysWhyThereIsNoUseInTryingAgain(t *testing.T) {
	for name, c := range map[string]struct {
		authorization string
		status        int
		cooldown      time.Duration
		want          string
	}{
		"403":      {"Bearer " + access(1), http.StatusForbidden, 0, "would have the same scopes"},
		"no token": {"", http.StatusUnauthorized, 0, "without a token"},
		"cooldown": {"Bearer " + access(1), http.StatusUnauthorized, 24 * time.Hour, "refused token " + tokenID(access(1))},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cooldown = c.cooldown
			req, response, content := exchange(t, c.authorization, c.status)
			err := w.source().Authorize(t.Context(), req, response)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), access(1)) {
				t.Error("the error holds the token")
			}
			if errors.Is(err, ErrNotReplaced) != (c.cooldown > 0) {
				t.Errorf("%v: ErrNotReplaced %t", err, errors.Is(err, ErrNotReplaced))
			}
			if !content.closed {
				t.Error("the response's body was not closed")
			}
		})
	}
}

// A wait for Vault ends with the context that the token source was made with. The SDK's is that of the
// connection, not of the call.
func TestTokenSourceWaitsNoLongerThanItsContext(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		w.latency = 5 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		var source oauth2.TokenSource
		source, err := w.source().TokenSource(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := source.Token(); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's end", err)
		}
	})
}
