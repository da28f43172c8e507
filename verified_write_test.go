package mcpoauth

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A write has a budget, whatever it waits for.
func TestWriteThatTakesTooLong(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	as.hold()
	hanging := func(path string, data fields, cause error) (int, string) {
		t.Helper()
		// Its end stands for that of the budget. It is long enough for what comes before a request that hangs, on a
		// machine that is busy.
		ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, cause)
		defer cancel()
		_, err := m.b.HandleRequest(ctx, &logical.Request{
			Operation: logical.CreateOperation, Path: path, Data: overHTTP(t, data), Storage: m.storage,
		})
		coded, ok := err.(logical.HTTPCodedError)
		if !ok {
			t.Fatalf("%v", err)
		}
		return coded.Code(), m.noted(err).Error()
	}
	const budget = "no answer within the 14.5s that a write may take"
	if status, text := hanging("config/weather", as.client(), errWriteBudget); status != http.StatusGatewayTimeout ||
		!strings.Contains(text, "nothing was stored") || !strings.Contains(text, budget) {
		t.Errorf("a verification: %d, %s", status, text)
	}
	// If the caller's own time is shorter, the error names no budget.
	if status, text := hanging("config/weather", as.client(), nil); status != http.StatusGatewayTimeout ||
		!strings.Contains(text, "nothing was stored") || strings.Contains(text, "may take") {
		t.Errorf("a verification for a caller who gives up: %d, %s", status, text)
	}
	as.mu.Lock() // the metadata hangs too
	status, text := hanging("config/weather", mcp.client(), errWriteBudget)
	as.mu.Unlock()
	if status != http.StatusGatewayTimeout || !strings.Contains(text, "nothing was stored") || !strings.Contains(text, as.URL) {
		t.Errorf("a discovery: %d, %s", status, text)
	}
	if got := m.storage.entries(t); len(got) != 0 {
		t.Errorf("storage holds %q", got)
	}
	m.write("config/weather", with(as.client(), fields{"verify": false}))
	was := m.storage.entries(t)
	if status, text := hanging("role/weather/reader", fields{"scopes": "read"}, errWriteBudget); status != http.StatusGatewayTimeout ||
		!strings.Contains(text, budget) {
		t.Errorf("a role's verification: %d, %s", status, text)
	}
	m.storage.unchanged(t, was)
}

// TestEveryWriteHasABudget: another write of the same server holds its lock, as it does while storage hangs. Whatever
// waits for it ends, with 504, and has changed nothing.
func TestEveryWriteHasABudget(t *testing.T) {
	as := newAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config/weather", with(as.endpoint(), fields{"scopes": "a", "key_type": "ec-p256"}))
		m.write("role/weather/reader", fields{"scopes": "b", "verify": false})
		was := m.storage.entries(t)
		unlock := make(chan struct{})
		defer close(unlock)
		go m.b.(*backend).engine.Locked(t.Context(), "weather", func(context.Context) error { //nolint:errcheck // nothing fails
			<-unlock
			return nil
		})
		synctest.Wait()
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
			begun := time.Now()
			m.refused(http.StatusGatewayTimeout, write.op, write.path, write.data, "nothing was written")
			if took := time.Since(begun); took != writeBudget {
				t.Errorf("%s of %s took %s, want %s", write.op, write.path, took, writeBudget)
			}
		}
		m.storage.unchanged(t, was)
	})
}
