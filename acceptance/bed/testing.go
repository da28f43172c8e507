package bed

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// New starts a bed for one test. If the test fails, it shows the last lines of all logs.
func New(t testing.TB, opts Options) *Bed {
	t.Helper()
	b, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		report, err := b.Close()
		if err != nil {
			t.Error(err)
		}
		t.Logf("looked for %d secrets and tokens in %d bytes of %d logs", report.Values, report.Bytes, report.Files)
	})
	b.ShowLogs(t)
	return b
}

// ShowLogs shows the last lines of all logs if the test fails.
func (b *Bed) ShowLogs(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.LogTails(60))
		}
	})
}

// Eventually calls f until it returns nil, and fails the test after limit.
func Eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	if err := Poll(t.Context(), limit, f); err != nil {
		t.Fatal(err)
	}
}

// OK fails the test if there is an error.
func OK(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Must returns the value of a call, or fails the test if the call has returned an error: Must(call())(t).
func Must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		OK(t, err)
		return value
	}
}

// Until waits until f returns true, and fails the test with want after limit.
func Until(t testing.TB, limit time.Duration, want string, f func() bool) {
	t.Helper()
	Eventually(t, limit, func() error {
		if !f() {
			return errors.New("never: " + want)
		}
		return nil
	})
}

// WantText fails the test unless the text contains each part. what names the text.
func WantText(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q:\n%s", what, part, text)
		}
	}
}

// WantError fails the test unless err is set and its text contains each part.
func WantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	WantText(t, "the error", err.Error(), parts...)
}
