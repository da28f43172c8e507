package bed

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func startTestScripted(t *testing.T) *ScriptedServer {
	t.Helper()
	b := &Bed{Secrecy: new(Secrecy)}
	s := Must(b.NewScriptedServer())(t)
	t.Cleanup(func() { OK(t, b.stop()) })
	return s
}

// askScripted makes a token request, and returns the answer's status and body.
func askScripted(ctx context.Context, s *ScriptedServer, scope string) (status int, body string, err error) {
	form := strings.NewReader(url.Values{"scope": {scope}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.TokenURL(), form)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("client", "secret")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func TestScriptedServerAnswersByItsScript(t *testing.T) {
	s := startTestScripted(t)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		status int
		text   string
	}{
		{"issue", s.Issue(time.Minute), http.StatusOK, `"expires_in":60`},
		{"refuse", RefuseWith(http.StatusUnauthorized, "invalid_client", nil), http.StatusUnauthorized, "invalid_client"},
		{"limit", LimitFor(http.StatusTooManyRequests, time.Minute), http.StatusTooManyRequests, "slow_down"},
		{"late", After(time.Millisecond, s.Issue(time.Second)), http.StatusOK, `"scope":"late"`},
	} {
		s.Set(c.answer)
		status, body, err := askScripted(t.Context(), s, c.name)
		if err != nil || status != c.status || !strings.Contains(body, c.text) {
			t.Errorf("%s: status %d, %q, %v; want %d with %q", c.name, status, body, err, c.status, c.text)
		}
		last := s.Requests()[len(s.Requests())-1]
		if last.ClientID != "client" || last.Scope != c.name || last.Path != "/token" {
			t.Errorf("%s: the request was noted as %+v", c.name, last)
		}
	}
	s.Set(Reset)
	if status, _, err := askScripted(t.Context(), s, ""); err == nil {
		t.Errorf("a reset connection has status %d", status)
	}
}

// A hanging request ends when the script changes; a lost request does not.
func TestScriptedServerReleasesHangingRequestsAndKeepsLostOnes(t *testing.T) {
	s := startTestScripted(t)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		ends   bool
	}{{"hangs", Hang, true}, {"lost", NeverAnswer, false}} {
		s.Set(c.answer)
		ctx, giveUp := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, _, err := askScripted(ctx, s, c.name)
			done <- err
		}()
		Until(t, 10*time.Second, "the request comes", func() bool { return s.Open() > 0 })
		s.Set(s.Issue(time.Minute))
		if c.ends {
			if err := <-done; err == nil {
				t.Error("a hanging request was answered")
			}
		} else {
			if status, _, err := askScripted(t.Context(), s, ""); err != nil || status != http.StatusOK {
				t.Errorf("during a lost request: status %d, %v", status, err)
			}
			select {
			case err := <-done:
				t.Errorf("a lost request ended: %v", err)
			default:
			}
			giveUp()
			if err := <-done; err == nil {
				t.Error("a lost request was answered")
			}
		}
		giveUp()
		Until(t, 10*time.Second, "the request ends", func() bool { return s.Open() == 0 })
	}
}

func TestScriptedServerRefusesConnectionsWhileItIsDown(t *testing.T) {
	s := startTestScripted(t)
	s.Set(s.Issue(time.Minute))
	for range 2 {
		OK(t, s.Down())
		_, _, err := askScripted(t.Context(), s, "")
		WantError(t, err, "refused")
		OK(t, s.Up())
		if status, _, err := askScripted(t.Context(), s, ""); err != nil || status != http.StatusOK {
			t.Errorf("after Up: status %d, %v", status, err)
		}
	}
}
