package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/acceptance/bed"
)

// heard is an output that signals a word.
type heard struct {
	word string
	said chan struct{} // closed when the word is written

	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := strings.Contains(h.text.String(), h.word)
	h.text.Write(p)
	if !before && strings.Contains(h.text.String(), h.word) {
		close(h.said)
	}
	return len(p), nil
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// interruptAt runs the demo with -keep, interrupts it at a word, and returns its output and error.
func interruptAt(t *testing.T, word string) (said string, err error) {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &heard{word: word, said: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, true, out) }()
	select {
	case <-out.said:
		interrupt()
	case err := <-ended:
		t.Fatalf("the demo ended by itself: %v\n%s", err, out)
	}
	err = <-ended
	return out.String(), err
}

// make dev runs until it is interrupted, and then succeeds.
func TestKeptDemoRunsUntilItIsInterrupted(t *testing.T) {
	out, err := interruptAt(t, "Ctrl-C")
	if err != nil || !strings.HasSuffix(out, "All held.\n") {
		t.Errorf("%v\n%s", err, out)
	}
	// The demo uses the README's commands.
	readme := bed.Must(os.ReadFile("../../../README.md"))(t)
	for taught, shown := range map[string]string{
		"tr -d '\\n' < client-secret | vault write mcp-oauth/config/files": "tr -d '\\n' < client-secret | vault write mcp-oauth/config/weather",
		"\n  client_secret=-":                       " client_secret=-",
		"\n  -command=\"vault-plugin-mcp-oauth":     " -command=vault-plugin-mcp-oauth",
		"\n  -version=\"$VERSION\"":                 " -version=v",
		"\nvault policy write mcp-broker - <<'EOF'": " vault policy write weather-broker - <<'EOF'",
	} {
		said := strings.NewReplacer("$ bao ", "$ vault ", "| bao ", "| vault ").Replace(out)
		if !strings.Contains(string(readme), taught) || !strings.Contains(said, shown) {
			t.Errorf("the README does not have %q, or the demo does not have %q", taught, shown)
		}
	}
}

// An interruption during the set-up is not an error either.
func TestKeptDemoMayBeInterruptedEarly(t *testing.T) {
	out, err := interruptAt(t, "== 2.")
	if err != nil || !strings.Contains(out, "Stopping.") {
		t.Errorf("%v\n%s", err, out)
	}
}

// If a claim does not hold, the demo fails.
func TestClaimThatDoesNotHoldFailsTheDemo(t *testing.T) {
	for _, held := range []bool{true, false} {
		var out bytes.Buffer
		s := &transcript{out: io.Writer(&out), vault: &bed.Vault{Product: bed.OpenBao}}
		s.check(true, "the first, of Vault")
		s.check(held, "the second")
		err := s.verdict()
		if (err == nil) != held || strings.Contains(out.String(), "All held.") != held || strings.Contains(out.String(), "  the second\n") == held ||
			!strings.Contains(out.String(), "[ok] the first, of OpenBao\n") {
			t.Errorf("held %t: %v\n%s", held, err, &out)
		}
	}
}
