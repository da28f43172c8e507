package mcpoauth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// Clients that write whole objects write null for what they do not set.
func TestNullIsAFieldThatIsNotGiven(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, fields{"scopes": "read", "allow_insecure_http": true, "extra_params": "a=1", "idle_timeout": "1h"})
	was := m.storage.entries(t)
	m.write("config/weather", fields{
		"client_secret": nil, "scopes": nil, "allow_insecure_http": nil, "extra_params": nil, "idle_timeout": nil, "verify": nil,
	})
	m.storage.unchanged(t, was)

	// Neither null nor an empty text is verify=false: these writes are refused by the server, and so not
	// stored.
	as.answers(refusing(http.StatusUnauthorized, "invalid_client"))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
		fields{"client_secret": "another-" + secret, "verify": nil}, "invalid_client")
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
		fields{"client_secret": "another-" + secret, "verify": ""}, "invalid_client")
	m.storage.unchanged(t, was)
}

func TestDurationsAreNeverLessThanWritten(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", fields{
		"token_url": "https://as.example.com/token", "client_id": "c", "client_secret": secret, "verify": false,
		"max_ttl": "500ms", "idle_timeout": "1500ms", "default_ttl": "90s",
	})
	got := m.read("config/weather")
	for field, want := range map[string]int64{"max_ttl": 1, "idle_timeout": 2, "default_ttl": 90} {
		if got[field] != want {
			t.Errorf("%s is %v, want %d", field, got[field], want)
		}
	}
	m.write("config/weather", fields{"verify": false, "max_ttl": "", "idle_timeout": "", "default_ttl": "", "request_timeout": ""})
	got = m.read("config/weather")
	for field, want := range map[string]int64{"max_ttl": 0, "idle_timeout": 86400, "default_ttl": 300, "request_timeout": 10} {
		if got[field] != want {
			t.Errorf("emptied, %s is %v, want the default %d", field, got[field], want)
		}
	}
}

func TestPortsThatDoNotExistAreRefused(t *testing.T) {
	m := newMount(t)
	for _, port := range []string{"0", "65536", "99999"} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{
			"token_url": "https://as.example.com:" + port + "/token", "client_id": "c", "client_secret": secret,
		}, "between 1 and 65535")
	}
}

// After the plugin was set back to an older version, a token of the newer one must not
// take its name out of service: nobody but the engine can write another.
func TestTokenOfANewerSchemaIsReplaced(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, nil)
	first := m.token("weather")
	m.stop()
	damage(t, m, "token/weather", strings.Replace(m.storage.entries(t)["token/weather"], `"schema":1`, `"schema":2`, 1))
	m.start()
	if got := m.token("weather"); got == first || got == "" {
		t.Errorf("got %q, want a new token", got)
	}
}
