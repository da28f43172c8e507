package mcpoauth

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A write has a budget, whatever it waits for.
func TestWriteThatTakesTooLong(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	as.hold()
	// Long enough for what comes before a request that hangs, on a machine that is busy.
	m.b.(*backend).writeBudget = 4 * time.Second
	hanging := func(ctx context.Context, path string, data fields) (int, string) {
		t.Helper()
		_, err := m.b.HandleRequest(ctx, &logical.Request{
			Operation: logical.CreateOperation, Path: path, Data: overHTTP(t, data), Storage: m.storage,
		})
		coded, ok := err.(logical.HTTPCodedError)
		if !ok {
			t.Fatalf("%v", err)
		}
		return coded.Code(), m.noted(err).Error()
	}
	const budget = "no answer within the 4s that a write may take"
	if status, text := hanging(t.Context(), "config/weather", as.client()); status != http.StatusBadGateway ||
		!strings.Contains(text, "nothing was stored") || !strings.Contains(text, budget) {
		t.Errorf("a verification: %d, %s", status, text)
	}
	// Where the caller's own time was shorter, that is what ended.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if status, text := hanging(ctx, "config/weather", as.client()); status != http.StatusGatewayTimeout ||
		!strings.Contains(text, "nothing was stored") || strings.Contains(text, "may take") {
		t.Errorf("a verification for a caller who gives up: %d, %s", status, text)
	}
	as.mu.Lock() // the metadata hangs too
	status, text := hanging(t.Context(), "config/weather", mcp.client())
	as.mu.Unlock()
	if status != http.StatusBadGateway || !strings.Contains(text, "nothing was stored") || !strings.Contains(text, as.URL) {
		t.Errorf("a discovery: %d, %s", status, text)
	}
	if got := m.storage.entries(t); len(got) != 0 {
		t.Errorf("storage holds %q", got)
	}
	m.write("config/weather", with(as.client(), fields{"verify": false}))
	was := m.storage.entries(t)
	if status, text := hanging(t.Context(), "role/weather/reader", fields{"scopes": "read"}); status != http.StatusBadGateway ||
		!strings.Contains(text, budget) {
		t.Errorf("a role's verification: %d, %s", status, text)
	}
	m.storage.unchanged(t, was)
}
