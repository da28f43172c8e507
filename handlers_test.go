package mcpoauth

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A misspelt field is an error: without omit_resource the token would be for another target, and without token_id a
// refresh would replace any token.
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
		{"role/weather/reader", logical.CreateOperation, "discovered_issuer"}, // a read-only field of a config
		{"refresh/weather", logical.UpdateOperation, "discovered_at"},
	} {
		t.Run(test.path, func(t *testing.T) {
			as, m := newConfigured(t)
			m.token("weather")
			requests, stored := as.count(), m.storage.entries(t)
			m.refused(http.StatusBadRequest, test.op, test.path, fields{test.field: "1"}, test.field, "path-help")
			as.asked(t, requests, "after a field that does not exist")
			m.storage.unchanged(t, stored)
		})
	}
}

// A list of the states reads all configs, one after another.
func TestOperatorsReadsEndThoughStorageHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		for i := range 20 {
			m.write(fmt.Sprint("config/server-", i), fields{
				"token_url": "https://as.example.com/token", "client_id": "c", "client_secret": "the-secret", "verify": false,
			})
		}
		m.storage.trouble.Store(&trouble{at: 3, lasting: true, hanging: true}) // starts at the first config
		begun := time.Now()
		m.refused(http.StatusGatewayTimeout, logical.ListOperation, "status/", nil)
		if took := time.Since(begun); took > writeBudget {
			t.Errorf("the list took %s, want at most %s", took, writeBudget)
		}
		m.stop()
	})
}
