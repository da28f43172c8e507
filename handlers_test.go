package mcpoauth

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A misspelt field is told, and not dropped: without omit_resource a token would be another one, and
// without token_id any token would be replaced.
func TestFieldThatDoesNotExistIsRefused(t *testing.T) {
	for _, test := range []struct {
		path  string
		op    logical.Operation
		field string
	}{
		{"config/weather", logical.UpdateOperation, "omit_resorce"},
		{"config/other", logical.CreateOperation, "clientid"},
		{"role/weather/reader", logical.CreateOperation, "scope"},
		{"refresh/weather", logical.UpdateOperation, "token-id"},
		{"keys/weather/rotate", logical.UpdateOperation, "activate_at"},
		{"role/weather/reader", logical.CreateOperation, "discovered_issuer"}, // which a config's read has
		{"refresh/weather", logical.UpdateOperation, "discovered_at"},
	} {
		t.Run(test.path, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.configure(as, nil)
			m.token("weather")
			requests, stored := as.count(), m.storage.entries(t)
			m.refused(http.StatusBadRequest, test.op, test.path, fields{test.field: "1"}, test.field, "path-help")
			as.asked(t, requests, "after a field that does not exist")
			m.storage.unchanged(t, stored)
		})
	}
}

// What was read may be written back, with what only a read has.
func TestReadIsWrittenBack(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	requests, read := as.count(), m.read("config/weather")
	m.write("config/weather", read)
	as.asked(t, requests, "after a config was written back")
	sameFields(t, m.read("config/weather"), read)
}

// TestOperatorsReadsEndThoughStorageHangs: a list of what the engine does not hold looks at one name after the other.
func TestOperatorsReadsEndThoughStorageHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		for i := range 20 {
			m.write(fmt.Sprint("config/server-", i), fields{
				"token_url": "https://as.example.com/token", "client_id": "c", "client_secret": "the-secret", "verify": false,
			})
		}
		m.storage.trouble.Store(&trouble{at: 3, lasting: true, hanging: true}) // from the first config on
		begun := time.Now()
		m.refused(http.StatusGatewayTimeout, logical.ListOperation, "status/", nil)
		if took := time.Since(begun); took > writeBudget {
			t.Errorf("the list took %s, want at most %s", took, writeBudget)
		}
		m.stop()
	})
}
