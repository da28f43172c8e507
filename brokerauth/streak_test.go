package brokerauth

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// ask asks the MCP server for a path, by a transport, and returns the status of its answer.
func (w *world) ask(client *http.Client, path string) int {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "https://mcp.test"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	response := do(w.t, client, req)
	response.Body.Close()
	return response.StatusCode
}

// An MCP server that refuses each token for an hour costs the authorization server a few requests, not one
// every few seconds. That is so whether the broker asks it by a transport or by a handler, where another
// tool takes each of the tokens, where the plugin replaces them by itself as well, and where the
// authorization server repeats one.
func TestServerThatRefusesEachTokenCostsFewOfThem(t *testing.T) {
	byTransport := func(w *world, s *Source) func() {
		client := w.httpClient(s)
		return func() { w.ask(client, "/mcp") }
	}
	for name, c := range map[string]struct {
		by      func(*world, *Source) func()
		rotated bool
		repeats bool
	}{
		"transport": {by: byTransport},
		"rotated":   {by: byTransport, rotated: true},
		"repeated":  {by: byTransport, repeats: true},
		"handler": {by: func(w *world, s *Source) func() {
			return func() {
				token, err := s.Token()
				if err != nil {
					w.t.Fatal(err)
				}
				req, response, _ := exchange(w.t, "Bearer "+token.AccessToken, http.StatusUnauthorized)
				_ = s.Authorize(w.t.Context(), req, response)
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
				n := w.calls[http.MethodPut]
				if n < 8 || n > 15 {
					t.Errorf("%d refreshes in an hour, want about ten", n)
				}
			})
		})
	}
}

// A token that is accepted ends the streak: the next one that is refused is replaced at once.
func TestAcceptedTokenEndsTheStreak(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		client := w.httpClient(w.source())
		for n := 1; n < 10; n++ {
			w.with(func(w *world) { w.refused[access(n)] = true })
			if status := w.ask(client, "/mcp"); status != http.StatusOK {
				t.Fatalf("token %d was refused, and the answer is %d", n, status)
			}
		}
		w.wantCalls(10, 9)
	})
}

// One that was refused and is then accepted, by another tool or as the server has got to know it, does
// not; but the next one does.
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

		w.with(func(w *world) { w.number = 3 }) // which the plugin has got meanwhile
		pass(200 * time.Second)
		w.ask(client, "/any") // reads it
		pass(time.Millisecond)
		w.ask(client, "/any") // has it accepted
		w.ask(client, "/mcp")
		w.wantCalls(4, 2)
	})
}

// A source that does not hear of accepted tokens takes it that one was which is not refused for its ttl:
// the windows begin anew.
func TestQuietTTLEndsTheStreak(t *testing.T) {
	for name, c := range map[string]struct {
		quiet time.Duration
		next  time.Duration // the longest that the window after it may be
	}{
		"for the ttl":     {200 * time.Second, streakFirst},
		"not for the ttl": {200*time.Second - time.Nanosecond, 8 * streakFirst},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				s := w.source()
				n := 0
				replace := func() { // and the one after it is not replaced
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
