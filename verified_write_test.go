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
	if status, text := hanging(t.Context(), "config/weather", as.client()); status != http.StatusGatewayTimeout ||
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
	if status != http.StatusGatewayTimeout || !strings.Contains(text, "nothing was stored") || !strings.Contains(text, as.URL) {
		t.Errorf("a discovery: %d, %s", status, text)
	}
	if got := m.storage.entries(t); len(got) != 0 {
		t.Errorf("storage holds %q", got)
	}
	m.write("config/weather", with(as.client(), fields{"verify": false}))
	was := m.storage.entries(t)
	if status, text := hanging(t.Context(), "role/weather/reader", fields{"scopes": "read"}); status != http.StatusGatewayTimeout ||
		!strings.Contains(text, budget) {
		t.Errorf("a role's verification: %d, %s", status, text)
	}
	m.storage.unchanged(t, was)
}

// TestEveryWriteHasABudget: another write of the same server holds its lock, as it does while storage hangs. Whatever
// waits for it ends, with 504, and has changed nothing.
func TestEveryWriteHasABudget(t *testing.T) {
	as := newAuthServer(t)
	m := newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"scopes": "a", "key_type": "ec-p256"}))
	m.write("role/weather/reader", fields{"scopes": "b", "verify": false})
	m.b.(*backend).writeBudget = 100 * time.Millisecond
	was := m.storage.entries(t)
	locked, unlock := make(chan struct{}), make(chan struct{})
	defer close(unlock)
	engine := m.b.(*backend).engine
	go engine.Locked(t.Context(), "weather", func(context.Context) error { //nolint:errcheck // nothing fails
		close(locked)
		<-unlock
		return nil
	})
	<-locked
	for _, write := range []struct {
		op   logical.Operation
		path string
		data fields
	}{
		{logical.UpdateOperation, "config/weather", fields{"scopes": "c", "verify": false}},
		{logical.UpdateOperation, "role/weather/reader", fields{"scopes": "c", "verify": false}},
		{logical.UpdateOperation, "keys/weather/rotate", nil},
		{logical.DeleteOperation, "role/weather/reader", nil},
		{logical.DeleteOperation, "config/weather", nil},
	} {
		m.refused(http.StatusGatewayTimeout, write.op, write.path, write.data, "nothing was written")
	}
	m.storage.unchanged(t, was)
}
