package mcpoauth

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A write has a time budget for everything it waits for.
func TestWriteThatTakesTooLong(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	as.hold()
	hanging := func(path string, data fields, cause error) string {
		t.Helper()
		// This timeout replaces the budget. Even a busy machine reaches the hanging request within it.
		ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, cause)
		defer cancel()
		_, err := m.b.HandleRequest(ctx, &logical.Request{
			Operation: logical.CreateOperation, Path: path, Data: overHTTP(t, data), Storage: m.storage,
		})
		equal(t, "the status", codeOf(err), http.StatusGatewayTimeout)
		return m.noted(err).Error()
	}
	const budget = "no answer within the 14.5s that a write may take"
	contains(t, "a verification", hanging("config/weather", as.client(), errWriteBudget), "nothing was stored", budget)
	// If the caller's deadline is earlier, the error does not mention the budget.
	text := hanging("config/weather", as.client(), nil)
	contains(t, "a verification for a caller with less time", text, "nothing was stored")
	equal(t, "the error names a budget", strings.Contains(text, "may take"), false)
	as.mu.Lock() // the metadata hangs too
	text = hanging("config/weather", mcp.client(), errWriteBudget)
	as.mu.Unlock()
	contains(t, "a discovery", text, "nothing was stored", as.URL)
	equal(t, "the keys", keysOf(t, m), nil)
	m.configure(as, nil)
	was := m.storage.entries(t)
	contains(t, "a role's verification", hanging("role/weather/reader", fields{"scopes": "read"}, errWriteBudget), budget)
	m.storage.unchanged(t, was)
}

// Writes that wait for the server's lock end with 504, while the write with the lock hangs in storage.
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
			equal(t, fmt.Sprintf("the duration of %s of %s", write.op, write.path), time.Since(begun), writeBudget)
		}
		m.storage.unchanged(t, was)
	})
}
