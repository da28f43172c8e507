package bed

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each fault works, also for a client that keeps connections, and ends at the next Set.
func TestFaultProxyHasTheFaultThatIsSet(t *testing.T) {
	p := startTestProxy(t)
	client := tlsClient(t, p.ca, nil)
	for _, c := range []struct {
		fault  Fault
		status int    // 0: no answer
		body   string // part of the body
		err    string // part of the error
	}{
		{fault: Refused, err: syscall.ECONNREFUSED.Error()},
		{fault: UnknownCA, err: "certificate signed by unknown authority"},
		{fault: TooManyRequests, status: http.StatusTooManyRequests},
		{fault: TooManyRequestsDate, status: http.StatusTooManyRequests},
		{fault: Unavailable, status: http.StatusServiceUnavailable},
		{fault: UnavailableDate, status: http.StatusServiceUnavailable},
		{fault: ServerError, status: http.StatusInternalServerError},
		{fault: CutBody, status: http.StatusOK, body: "access_token", err: io.ErrUnexpectedEOF.Error()},
		{fault: Garbage, status: http.StatusOK, body: "\x00"},
		{fault: WebPage, status: http.StatusOK, body: "<!DOCTYPE html>"},
		{fault: InvalidClient, status: http.StatusUnauthorized, body: `"error":"invalid_client"`},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			if status, body, err := ask(client, p); status != http.StatusOK || !strings.Contains(body, "access_token") || err != nil {
				t.Errorf("without a fault: status %d, error %v, want a token", status, err)
			}
			before := len(p.Attempts())
			OK(t, p.Set(c.fault))
			asked := time.Now()
			response, err := tokenRequest(client, p)
			status, body, err := read(response, err)
			if status != c.status || !strings.Contains(body, c.body) {
				t.Errorf("status %d, body %q, want %d with %q", status, body, c.status, c.body)
			}
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			attempts := p.Attempts()[before:]
			if c.fault == Refused {
				if len(attempts) != 0 {
					t.Errorf("attempts %+v, want none", attempts)
				}
			} else if len(attempts) != 1 || attempts[0].Fault != c.fault {
				t.Errorf("attempts %+v, want one", attempts)
			}
			if c.fault.AsksToWait() && response != nil {
				if until := retryAt(t, response); until.Before(asked.Add(RetryAfter)) {
					t.Errorf("Retry-After ends %s after the request began, want at least %s", until.Sub(asked), RetryAfter)
				}
			}
			OK(t, p.Set(NoFault))
		})
	}
}

// A hanging request ends when the fault ends or the client gives up.
func TestFaultProxyReleasesHangingRequests(t *testing.T) {
	p := startTestProxy(t)
	client := tlsClient(t, p.ca, nil)
	for _, fault := range []Fault{NoHandshake, NoAnswer, SlowBody} {
		t.Run(string(fault), func(t *testing.T) {
			OK(t, p.Set(fault))
			before := len(p.Attempts())
			done := make(chan error, 1)
			go func() {
				_, _, err := ask(client, p)
				done <- err
			}()
			Until(t, 10*time.Second, "the request comes", func() bool { return len(p.Attempts()) > before })
			select {
			case err := <-done:
				t.Fatalf("the request ended during the fault: %v", err)
			default:
			}
			OK(t, p.Set(NoFault))
			if err := <-done; err == nil {
				t.Error("a hanging request was answered")
			}

			OK(t, p.Set(fault))
			impatient := &http.Client{Transport: client.Transport, Timeout: 100 * time.Millisecond}
			_, _, err := ask(impatient, p)
			WantError(t, err, "Client.Timeout")
		})
	}
}

// A token is repeated until shortly before its end.
func TestFaultProxyRepeatsATokenUntilShortlyBeforeItsEnd(t *testing.T) {
	p := startTestProxy(t)
	client := tlsClient(t, p.ca, nil)
	OK(t, p.Set(Repeat))
	_, first, err := ask(client, p)
	OK(t, err)
	if _, again, err := ask(client, p); err != nil || tokenIn(again) != tokenIn(first) {
		t.Errorf("another token, error %v", err)
	}
	Until(t, 20*time.Second, "another token", func() bool {
		_, next, err := ask(client, p)
		return err == nil && tokenIn(next) != tokenIn(first)
	})
	OK(t, p.Set(NoFault))
	if _, next, err := ask(client, p); err != nil || tokenIn(next) == tokenIn(first) {
		t.Errorf("the first token, error %v", err)
	}
}

func tokenIn(answer string) string {
	var members struct {
		AccessToken string `json:"access_token"`
	}
	_ = json.Unmarshal([]byte(answer), &members) // empty if the answer is not JSON
	return members.AccessToken
}

func startTestProxy(t *testing.T) *FaultProxy {
	t.Helper()
	as := startTestAS(t, t.TempDir())
	setResource(t, as, testResource, 6*time.Second)
	p := Must(startFaultProxy(as))(t)
	t.Cleanup(func() {
		OK(t, p.close())
		if err := p.Set(NoHandshake); err == nil {
			t.Error("a closed proxy accepts a fault")
		}
	})
	return p
}

// ask makes a token request. The result may have a status, a body and an error.
func ask(client *http.Client, p *FaultProxy) (status int, body string, err error) {
	return read(tokenRequest(client, p))
}

func tokenRequest(client *http.Client, p *FaultProxy) (*http.Response, error) {
	return client.PostForm(p.TokenURL(), testForm(testResource))
}

func read(response *http.Response, err error) (int, string, error) {
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// retryAt returns the time in a Retry-After header of either form.
func retryAt(t *testing.T, response *http.Response) time.Time {
	t.Helper()
	value := response.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Now().Add(time.Duration(seconds) * time.Second)
	}
	date, err := http.ParseTime(value)
	if err != nil {
		t.Fatal(fmt.Errorf("Retry-After %q: %w", value, err))
	}
	return date
}
