package mcpoauth

import "testing"

func TestDurationsAreNeverLessThanWritten(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", fields{
		"token_url": "https://as.example.com/token", "client_id": "c", "client_secret": secret, "verify": false,
		"max_ttl": "500ms", "idle_timeout": "1500ms", "default_ttl": "90s",
	})
	shows(t, m.read("config/weather"), fields{"max_ttl": int64(1), "idle_timeout": int64(2), "default_ttl": int64(90)})
	m.write("config/weather", fields{"verify": false, "max_ttl": "", "idle_timeout": "", "default_ttl": "", "request_timeout": ""})
	shows(t, m.read("config/weather"), fields{
		"max_ttl": int64(0), "idle_timeout": int64(86400), "default_ttl": int64(300), "request_timeout": int64(10),
	})
}
