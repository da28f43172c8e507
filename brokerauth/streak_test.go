package brokerauth

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"
)

// ask requests a path of the MCP server through a transport, and returns the status of the answer.
func (w *world) ask(client *http.Client, path string) int {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "https://mcp.test"+path, nil)
	if err != nil {
		w.t.Error(err)
		return 0
	}
	response := do(w.t, client, req)
	response.Body.Close()
	return response.StatusCode
}

// If an MCP server refuses each token for an hour, the authorization server gets a few requests, not one every few
// seconds. This holds with a transport and without one, if another tool accepts each token, even before the retry, if
// a proxy answers some requests, if the plugin also replaces tokens by itself, and if the authorization server
// repeats a token.
func TestServerThatRefusesEachTokenCostsFewOfThem(t *testing.T) {
	byTransport := func(w *world, s *Source) func() {
		client := w.httpClient(s)
		return func() { w.ask(client, "/mcp") }
	}
	// byProxy puts a proxy between the broker and the server. The proxy gives each third answer itself.
	byProxy := func(status int) func(*world, *Source) func() {
		return func(w *world, s *Source) func() {
			transport := w.httpClient(s).Transport.(*Transport)
			requests := 0
			transport.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
				if requests++; requests%3 == 0 {
					return &http.Response{StatusCode: status, Body: http.NoBody, Request: req}, nil
				}
				return w.serve(req)
			})
			client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			}}
			return func() { w.ask(client, "/mcp") }
		}
	}
	for name, c := range map[string]struct {
		by      func(*world, *Source) func()
		rotated bool
		repeats bool
	}{
		"503 between": {by: byProxy(http.StatusServiceUnavailable)},
		"429 between": {by: byProxy(http.StatusTooManyRequests)},
		"302 between": {by: byProxy(http.StatusFound)},
		"one tool, slower than the other": {by: func(w *world, s *Source) func() {
			transport := w.httpClient(s).Transport.(*Transport)
			transport.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
				if req.URL.Path == "/mcp" {
					pass(50 * time.Millisecond)
				} else {
					pass(5 * time.Millisecond)
				}
				return w.serve(req)
			})
			client := &http.Client{Transport: transport}
			return func() {
				var both sync.WaitGroup
				defer both.Wait()
				both.Go(func() { w.ask(client, "/mcp") })
				for range 15 { // during the other request and its retry
					if status := w.ask(client, "/any"); status != http.StatusOK {
						w.t.Errorf("the other tool answered %d", status)
					}
					pass(5 * time.Millisecond)
				}
			}
		}},
		"transport": {by: byTransport},
		"rotated":   {by: byTransport, rotated: true},
		"repeated":  {by: byTransport, repeats: true},
		"no transport": {by: func(w *world, s *Source) func() {
			return func() {
				token, err := s.Token()
				if err != nil {
					w.t.Fatal(err)
				}
				_ = s.Replace(w.t.Context(), token.AccessToken)
			}
		}},
		"one tool": {by: func(w *world, s *Source) func() {
			client := w.httpClient(s)
			return func() {
				w.ask(client, "/mcp")
				if status := w.ask(client, "/any"); status != http.StatusOK {
					w.t.Fatalf("the other tool answered %d", status)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				w.picky, w.cooldown = true, 10*time.Second
				if c.repeats {
					w.cooldown = 24 * time.Hour
				}
				ask := c.by(w, w.source())
				for second := range 3600 {
					if c.rotated && second%225 == 224 {
						w.with(func(w *world) { w.number++; w.issued = time.Now() })
					}
					ask()
					pass(time.Second)
				}
				if n := w.called(http.MethodPut); n < 8 || n > 15 {
					t.Errorf("%d refreshes in an hour, want about ten", n)
				}
			})
		})
	}
}

// If a token is accepted after the window, the streak ends: the next refused token is replaced at once.
func TestAcceptedTokenEndsTheStreak(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		client := w.httpClient(w.source())
		for n := 1; n < 10; n++ {
			w.with(func(w *world) { w.refused[access(n)] = true })
			for range 2 {
				if status := w.ask(client, "/mcp"); status != http.StatusOK {
					t.Fatalf("token %d was refused, and the answer is %d", n, status)
				}
				pass(streakFirst)
			}
		}
		w.wantCalls(10, 9)
	})
}

// If a token is accepted within the window, another tool may still refuse it, so it is replaced when the window ends.
func TestAcceptedTokenKeepsTheWindow(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		client := w.httpClient(w.source())
		w.refused[access(1)] = true
		if status := w.ask(client, "/mcp"); status != http.StatusOK {
			t.Fatalf("the first token was refused, and the answer is %d", status)
		}
		w.with(func(w *world) { w.refused[access(2)] = true })
		if status := w.ask(client, "/mcp"); status != http.StatusUnauthorized {
			t.Errorf("the second token was refused at once, and the answer is %d", status)
		}
		w.wantCalls(2, 1)
		pass(streakFirst)
		if status := w.ask(client, "/mcp"); status != http.StatusOK {
			t.Errorf("the second token was refused half a minute later, and the answer is %d", status)
		}
		w.wantCalls(3, 2)
	})
}

// Only the MCP server's answer to the held token ends a streak, and only after the streak's window.
func TestStreakEndsByAnAnswerToTheHeldToken(t *testing.T) {
	type answer struct{ number, status int }
	for name, c := range map[string]struct {
		answers   []answer
		replacing bool // while the held token is being replaced
		ends      bool
	}{
		"accepted":                       {answers: []answer{{2, http.StatusOK}}, ends: true},
		"accepted, without content":      {answers: []answer{{2, http.StatusNoContent}}, ends: true},
		"refused, and then accepted":     {answers: []answer{{2, http.StatusUnauthorized}, {2, http.StatusOK}}},
		"a proxy's answer":               {answers: []answer{{2, http.StatusBadGateway}}},
		"a rate limiter's":               {answers: []answer{{2, http.StatusTooManyRequests}}},
		"a redirect":                     {answers: []answer{{2, http.StatusFound}}},
		"its predecessor is accepted":    {answers: []answer{{1, http.StatusOK}}},
		"its predecessor is refused":     {answers: []answer{{1, http.StatusUnauthorized}, {2, http.StatusOK}}, ends: true},
		"accepted, but is just replaced": {answers: []answer{{2, http.StatusOK}}, replacing: true},
	} {
		t.Run(name, func(t *testing.T) {
			holding(t, func(t *testing.T, w *world, s *Source) {
				w.replace(s, access(1))
				pass(streakFirst)
				if c.replacing {
					s.replacing.calls.current = &call{}
				}
				for _, answer := range c.answers {
					s.answered(&token{id: tokenID(access(answer.number))}, answer.status)
				}
				if c.replacing {
					s.replacing.calls.current = nil
				}
				w.replace(s, access(2))
				pass(streakFirst) // the window of a streak's first token, and half of the window of its second
				err := s.Replace(t.Context(), access(3))
				if c.ends && err != nil || !c.ends && !errors.Is(err, ErrNotReplaced) {
					t.Errorf("the streak has ended: want %t, and half a minute later %v", c.ends, err)
				}
			})
		})
	}
}

// A token that was refused before it is accepted, by another tool or because the server did not know it yet, does not
// end the streak. The next accepted token does.
func TestAcceptedTokenThatWasRefusedDoesNotEndTheStreak(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		client := w.httpClient(w.source())
		w.picky = true
		w.ask(client, "/mcp")
		w.ask(client, "/any")
		w.wantCalls(2, 1)
		if status := w.ask(client, "/mcp"); status != http.StatusUnauthorized {
			t.Errorf("answer %d, want that of the server", status)
		}
		w.wantCalls(2, 1)

		w.with(func(w *world) { w.number = 3 }) // the plugin has replaced the token meanwhile
		pass(200 * time.Second)
		w.ask(client, "/any") // reads the token
		pass(time.Millisecond)
		w.ask(client, "/any") // the server accepts the token
		w.ask(client, "/mcp")
		w.wantCalls(4, 2)
	})
}

// The source is not told of accepted tokens. A token that is not refused during its ttl counts as accepted, and ends
// the streak.
func TestQuietTTLEndsTheStreak(t *testing.T) {
	for name, c := range map[string]struct {
		quiet time.Duration
		next  time.Duration // the longest allowed window after the quiet time
	}{
		"for the ttl":     {200 * time.Second, streakFirst},
		"not for the ttl": {200*time.Second - time.Nanosecond, 8 * streakFirst},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				s := w.source()
				n := 0
				replace := func() { // the token is replaced, and its successor is kept
					t.Helper()
					n++
					if err := s.Replace(t.Context(), access(n)); err != nil {
						t.Fatalf("token %d: %v", n, err)
					}
					if err := s.Replace(t.Context(), access(n+1)); !errors.Is(err, ErrNotReplaced) {
						t.Fatalf("token %d, at once: %v, want ErrNotReplaced", n+1, err)
					}
				}
				replace()
				pass(streakFirst)
				replace()
				pass(2 * streakFirst)
				replace()
				pass(c.quiet) // longer than the third window
				replace()
				pass(c.next*3/4 - time.Nanosecond)
				if err := s.Replace(t.Context(), access(n+1)); !errors.Is(err, ErrNotReplaced) {
					t.Errorf("before the window of %s: %v, want ErrNotReplaced", c.next, err)
				}
				pass(c.next/4 + time.Nanosecond)
				replace()
			})
		})
	}
}
