package mcpoauth

import "testing"

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
