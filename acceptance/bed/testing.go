package bed

import (
	"testing"
	"time"
)

// New starts a bed for one test. It is closed when the test ends; if the test failed, the ends
// of all logs are shown.
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

// ShowLogs shows the ends of all logs if the test fails.
func (b *Bed) ShowLogs(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.LogTails(60))
		}
	})
}

// Eventually calls f until it returns nil, and fails the test when that takes longer than limit.
func Eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	if err := Poll(t.Context(), limit, f); err != nil {
		t.Fatal(err)
	}
}
