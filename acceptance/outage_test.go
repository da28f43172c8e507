package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// outageError is the text of each fault for operators and brokers.
var outageError = map[bed.Fault]string{
	bed.Refused:             "connection refused",
	bed.NoHandshake:         "timed out",
	bed.NoAnswer:            "timed out",
	bed.UnknownCA:           "TLS: certificate not trusted",
	bed.TooManyRequests:     "HTTP 429",
	bed.TooManyRequestsDate: "HTTP 429",
	bed.Unavailable:         "HTTP 503",
	bed.UnavailableDate:     "HTTP 503",
	bed.ServerError:         "HTTP 500",
	bed.SlowBody:            "timed out",
	bed.CutBody:             "connection closed before the answer was complete",
	bed.Garbage:             "the answer is not JSON",
	bed.WebPage:             "the answer is a web page",
	bed.InvalidClient:       "invalid_client",
}

// During any fault of the authorization server, readers get the held token until it expires, and the status shows the
// failure. Then readers get the failure and the time of the next attempt. The server gets one request in each backoff
// window, and the first attempt after the fault succeeds. A write clears a refusal.
func TestOutage(t *testing.T) {
	t.Parallel()
	b := shared(t)
	// The outages mostly wait, so all run at once, whatever -parallel says.
	var outages sync.WaitGroup
	for _, fault := range bed.Outages {
		outages.Go(func() {
			t.Run(string(fault), func(t *testing.T) { testOutage(t, b, fault) })
		})
	}
	outages.Wait()
}

func testOutage(t *testing.T, b *bed.Bed, fault bed.Fault) {
	u := newUpstream(t, b, "", 15*time.Second)
	proxy := u.behindProxy(t, map[string]any{"request_timeout": 2})
	held := u.token(t, "token/"+u.name)
	log := startReaders(t, u, "token/"+u.name)
	bed.OK(t, proxy.Set(fault))
	begun := time.Now()

	failing := u.waitForState(t, "failing")
	bed.WantText(t, "last_error", fmt.Sprint(failing["last_error"]), outageError[fault])
	u.waitForState(t, "down")
	want := http.StatusBadGateway
	if fault == bed.InvalidClient {
		want = http.StatusBadRequest
	}
	bed.Until(t, 20*time.Second, fmt.Sprint("a read has status ", want), func() bool {
		r := log.last()
		return r.status == want && !r.begun.Before(held.ExpiresAt)
	})
	failures := number(t, u.read(t, "status/"+u.name), "consecutive_failures")
	first, most := firstWindow(fault)
	if limit := mostAttempts(time.Since(begun), first, most); failures < 1 || failures > limit {
		t.Errorf("%d failures in %s, want 1 to %d", failures, time.Since(begun), limit)
	}

	ended := time.Now()
	log.checkOutage(t, held, ended, want, outageError[fault])
	bed.OK(t, proxy.Set(bed.NoFault))
	if fault == bed.InvalidClient {
		window := timestamp(t, failing, "next_attempt").Sub(timestamp(t, failing, "last_error_at"))
		if window < 3*time.Second { // 5 s less up to a quarter, in whole seconds
			t.Errorf("the next attempt is %s after the refusal, want 5 s", window)
		}
		u.write(t, "config/"+u.name, map[string]any{"client_secret": u.client.Secret})
		u.token(t, "token/"+u.name)
	} else {
		bed.Eventually(t, 45*time.Second, func() error {
			switch got := log.last(); {
			case got.err != nil:
				return fmt.Errorf("after the outage: %w", got.err)
			case got.begun.Before(ended): // begun before the outage's end
				return errors.New("no read has begun since the outage ended")
			}
			return nil
		})
	}
	status := u.read(t, "status/"+u.name)
	if status["state"] != "ok" || status["last_error"] != nil {
		t.Errorf("status after the outage: %v", status)
	}
	log.finish()

	attempts, regained := outageAttempts(proxy, begun)
	if fault != bed.InvalidClient {
		// The attempt after the outage must also come after the last window.
		attempts = append(attempts, regained)
		for _, r := range log.all() {
			if r.begun.Before(ended) || r.err != nil {
				continue
			}
			if r.token.LastVaultRotation.After(regained.Time) {
				t.Error("the first attempt after the outage obtained no token")
			}
			break
		}
	}
	checkWindows(t, attempts, fault)
	t.Logf("%d reads, %d failures in a row, %d attempts seen", len(log.all()), failures, len(attempts))
}

// Many readers without a token cause one request to the failing authorization server in each backoff window.
func TestOutageUnderLoad(t *testing.T) {
	const (
		brokers  = 40
		interval = 40 * time.Millisecond // per reader: a thousand reads a second in total
		length   = 6 * time.Second
	)
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	proxy := u.behindProxy(t, map[string]any{"verify": false})
	bed.OK(t, proxy.Set(bed.ServerError))

	begun, all := time.Now(), newReaders(t, length)
	for i := range brokers {
		client := bed.Must(u.bed.Vault.Root())(t) // one per reader, as each client keeps its connections
		all.start(fmt.Sprint(i), u, client, "token/"+u.name, interval)
	}
	all.done.Wait()
	took, reads := time.Since(begun), all.all()
	for _, r := range reads {
		bed.OK(t, r.failed(http.StatusBadGateway, outageError[bed.ServerError]))
	}
	attempts := proxy.Attempts()
	checkWindows(t, attempts, bed.ServerError)
	if limit := mostAttempts(took, time.Second, time.Minute); len(attempts) < 1 || len(attempts) > limit {
		t.Errorf("%d attempts in %s, want 1 to %d", len(attempts), took, limit)
	}
	t.Logf("%.0f reads a second for %s: %d attempts", float64(len(reads))/took.Seconds(), round(took), len(attempts))
}

// While a token is valid, no reader waits for a hanging refresh.
func TestReadersDoNotWaitForAHangingRefresh(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, shared(t), "", 20*time.Second)
	proxy := u.behindProxy(t, map[string]any{"request_timeout": 25}) // longer than the token lives
	held := u.token(t, "token/"+u.name)
	bed.OK(t, proxy.Set(bed.NoAnswer))
	before := len(proxy.Attempts())
	bed.Until(t, 30*time.Second, "a refresh begins", func() bool { return len(proxy.Attempts()) > before })
	for range 20 {
		u.wantToken(t, "token/"+u.name, held)
	}
	if status := u.read(t, "status/"+u.name); status["refreshing"] != true || status["last_error"] != nil {
		t.Errorf("the refresh ended before the reads: %v", status)
	}
}

// A reader who cancels, even the first one, affects neither the request nor the other readers.
func TestReaderWhoGivesUpDoesNotDisturbOthers(t *testing.T) {
	t.Parallel()
	const others = 30
	u := newUpstream(t, shared(t), "", 5*time.Minute)
	proxy := u.behindProxy(t, map[string]any{"request_timeout": 25, "verify": false})
	bed.OK(t, proxy.Set(bed.NoAnswer))
	path := "token/" + u.name

	impatient, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	gaveUp := make(chan error, 1)
	go func() {
		_, err := u.bed.ReadToken(impatient, u.root, path)
		gaveUp <- err
	}()
	bed.Until(t, 10*time.Second, "the request comes", func() bool { return len(proxy.Attempts()) > 0 })
	results := make(chan read, others)
	for range others {
		go func() { results <- readOnce(t.Context(), u, u.root, path) }()
	}
	u.waitForReaders(t, path, 1+others)
	giveUp()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("the reader who gave up got %v", err)
	}
	u.waitForReaders(t, path, others)
	if status := u.read(t, "status/"+u.name); status["refreshing"] != true {
		t.Errorf("the request ended with its first reader: %v", status)
	}
	select {
	case r := <-results:
		t.Errorf("another reader was answered with status %d: %v", r.status, r.err)
	default:
	}
	bed.OK(t, proxy.Set(bed.ServerError)) // ends the request that hangs
	for range others {
		r := <-results
		bed.OK(t, r.failed(http.StatusBadGateway, ""))
	}
	bed.OK(t, proxy.Set(bed.NoFault))
	checkWindows(t, proxy.Attempts(), bed.ServerError)
	bed.Eventually(t, 30*time.Second, func() error { return readOnce(t.Context(), u, u.root, path).err })
}

// waitForReaders waits until Vault has this many requests for a path under way.
func (u *upstream) waitForReaders(t *testing.T, path string, want int) {
	t.Helper()
	bed.Eventually(t, 20*time.Second, func() error {
		response, err := u.root.Logical().ReadRawWithContext(t.Context(), "sys/in-flight-req")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var underWay map[string]struct {
			Path string `json:"request_path"`
		}
		if err := json.NewDecoder(response.Body).Decode(&underWay); err != nil {
			return err
		}
		n := 0
		for _, request := range underWay {
			if request.Path == "/v1/"+bed.Mount+"/"+path {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("%d requests for %s are under way, want %d", n, path, want)
		}
		return nil
	})
}

// outageAttempts returns the attempts during an outage, and the first one after it.
func outageAttempts(proxy *bed.FaultProxy, begun time.Time) (during []bed.Attempt, after bed.Attempt) {
	for _, a := range proxy.Attempts() {
		switch {
		case a.Time.Before(begun):
		case a.Fault == bed.NoFault:
			return during, a
		default:
			during = append(during, a)
		}
	}
	return during, after
}

func (u *upstream) behindProxy(t *testing.T, changes map[string]any) *bed.FaultProxy {
	t.Helper()
	proxy := bed.Must(u.bed.NewFaultProxy())(t)
	changes["token_url"], changes["ca_cert"] = proxy.TokenURL(), proxy.CA()
	u.configure(t, changes)
	return proxy
}

// waitForState waits for a state of the upstream's token, and returns the status.
func (u *upstream) waitForState(t *testing.T, want string) (status map[string]any) {
	t.Helper()
	bed.Eventually(t, 30*time.Second, func() error {
		if status = u.read(t, "status/"+u.name); status["state"] != want {
			return fmt.Errorf("state %v, want %s", status["state"], want)
		}
		return nil
	})
	if cause, _ := status["last_error"].(string); cause == "" {
		t.Errorf("status %v shows no error", status)
	}
	if !timestamp(t, status, "next_attempt").After(timestamp(t, status, "last_error_at").Add(-time.Second)) {
		t.Errorf("status %v shows no next attempt after the last", status)
	}
	return status
}

// firstWindow returns the shortest window after a first failure, and the longest window while readers ask. Jitter
// shortens a window by up to a quarter.
func firstWindow(fault bed.Fault) (first, most time.Duration) {
	if fault == bed.InvalidClient {
		return 5 * time.Second, 10 * time.Second
	}
	return time.Second, 10 * time.Second
}

// leastWindow returns the shortest time from a fault's n-th attempt to the next.
func leastWindow(n int, first, most time.Duration) time.Duration {
	return min(first<<(n-1), most) * 3 / 4
}

// mostAttempts returns the largest number of attempts in a time.
func mostAttempts(in, first, most time.Duration) int {
	n := 1
	for in -= leastWindow(n, first, most); in >= 0; in -= leastWindow(n, first, most) {
		n++
	}
	return n
}

// checkWindows checks that each attempt came after the previous one's window.
func checkWindows(t *testing.T, attempts []bed.Attempt, fault bed.Fault) {
	t.Helper()
	first, most := firstWindow(fault)
	for n := 1; n < len(attempts); n++ {
		least := leastWindow(n, first, most)
		if fault.AsksToWait() {
			least = max(least, bed.RetryAfter)
		}
		if gap := attempts[n].Time.Sub(attempts[n-1].Time); gap < least {
			t.Errorf("attempt %d came %s after the previous one, want at least %s", n+1, gap, least)
		}
	}
}

var nextAttempt = regexp.MustCompile(`next attempt not before (\S+Z)`)

// failed returns an error unless the read failed with the status, the text and the time of the next attempt.
func (r read) failed(want int, text string) error {
	if r.status != want || r.err == nil || !strings.Contains(r.err.Error(), text) {
		return fmt.Errorf("a read was answered with status %d, want %d with %q: %w", r.status, want, text, r.err)
	}
	named := nextAttempt.FindStringSubmatch(r.err.Error())
	if named == nil {
		return fmt.Errorf("a read's error does not name the next attempt: %w", r.err)
	}
	next, err := time.Parse(time.RFC3339, named[1])
	if err != nil || next.Before(r.begun.Truncate(time.Second)) {
		return fmt.Errorf("a read at %s returned %q: %w", r.begun, named[0], err)
	}
	return nil
}

// checkOutage checks all reads until the end of an outage: first the held token while it is valid, then the failure.
func (r *readers) checkOutage(t *testing.T, held *bed.Token, end time.Time, want int, text string) {
	t.Helper()
	served, failed := 0, 0
	for _, r := range r.all() {
		switch {
		case r.ended.After(end):
		case r.ended.Before(held.ExpiresAt):
			served++
			if r.err != nil || r.token.TokenID != held.TokenID {
				t.Errorf("%s before the held token's end: %v", held.ExpiresAt.Sub(r.ended), r.err)
			}
		case !r.begun.Before(held.ExpiresAt):
			failed++
			if err := r.failed(want, text); err != nil {
				t.Errorf("%s after the held token's end: %v", r.begun.Sub(held.ExpiresAt), err)
			}
		}
	}
	if served == 0 || failed == 0 {
		t.Errorf("%d reads while the held token was valid and %d afterwards, want some of both", served, failed)
	}
}
