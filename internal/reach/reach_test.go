package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A cause contains no text from the URL, the proxy or the server.
func TestCauseHoldsNothingOfTheRequest(t *testing.T) {
	for _, tc := range []struct {
		err       error
		want      string
		temporary bool
	}{
		{syscall.ECONNREFUSED, "connection refused", true},
		{&net.DNSError{Name: "as.example.com", IsNotFound: true}, "DNS lookup failed: no such host as.example.com", true},
		{&net.OpError{Op: "proxyconnect", Err: syscall.ECONNREFUSED}, "proxy: connection refused", true},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, "TLS: refused by the server: bad certificate", false},
		{tls.RecordHeaderError{Msg: "s3cret"}, NotTLS, false},
		{errors.New("malformed HTTP response s3cret"), NotHTTP, false},
		{errors.New("s3cret"), "the request failed", true},
	} {
		wrapped := &url.Error{Op: "Post", URL: "https://as.example.com/?q=s3cret", Err: fmt.Errorf("s3cret: %w", tc.err)}
		reason, temporary := Cause(wrapped)
		if reason != tc.want || temporary != tc.temporary || strings.Contains(reason, "s3cret") {
			t.Errorf("%v: %q, temporary %v; want %q, %v", tc.err, reason, temporary, tc.want, tc.temporary)
		}
	}
}

func TestBusy(t *testing.T) {
	for status, want := range map[int]bool{200: false, 400: false, 401: false, 404: false, 408: true, 429: true, 500: true, 503: true} {
		if Busy(status) != want {
			t.Errorf("Busy(%d) is %v", status, !want)
		}
	}
}

// A dialer has its own timer for the deadline, and may notice it before the context does.
func TestPassedDeadlineCountsAsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := late{Context: t.Context(), deadline: time.Now()}
		if err := Ended(ctx); err != context.DeadlineExceeded {
			t.Errorf("%v", err)
		}
	})
}

// late is a context whose timer has not fired although its deadline has passed.
type late struct {
	context.Context
	deadline time.Time
}

func (l late) Deadline() (time.Time, bool) { return l.deadline, true }
