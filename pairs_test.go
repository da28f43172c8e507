package mcpoauth

import (
	"slices"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
)

// The vault command sends a repeated field, as in client_id=a client_id=b, as a list.
func TestFieldThatIsGivenTwiceIsRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	was := m.storage.entries(t)
	twice := []string{"a", "b"}
	for field, schema := range configFields() {
		value, says := twice, "must be one value"
		switch {
		case schema.Type == framework.TypeMap || schema.Type == framework.TypeKVPairs:
			value, says = []string{"a=1", "a=2"}, "twice"
		case slices.Contains(secretFields, field):
			says = "must be a string"
		case field == "server" || schema.Type == framework.TypeCommaStringSlice:
			continue
		}
		m.rejects("config/weather", fields{field: value}, field, says)
	}
	m.rejects("role/weather/reader", fields{"extra_params": `{"a":"1","a":"2"}`}, `extra_params holds "a" twice`)
	m.rejects("role/weather/reader", fields{"audience": twice}, "audience must be one value")
	m.rejects("refresh/weather", fields{"token_id": twice}, "token_id must be one value")
	m.rejects("keys/weather/rotate", fields{"activate_after": twice}, "activate_after must be one value")
	m.rejects("settings", fields{"public_url": twice}, "public_url must be one value")
	m.rejects("config/weather", fields{"server": "other"}, "the path names the server: leave server out")
	m.rejects("role/weather/reader", fields{"role": "other"}, "the path names the role: leave role out")
	m.rejects("refresh/weather", fields{"server": twice}, "the path names the server")
	m.storage.unchanged(t, was)
	as.asked(t, 1, "after writes that are refused")
	m.write("config/weather", fields{"server": "weather"})

	// A list may be given in several fields.
	m.write("config/weather", fields{"scopes": twice, "resource": []string{"https://a.example.com", "https://b.example.com"}, "extra_params": []string{"a=1", "b=2"}})
	request := as.await(2)
	request.holds(t, map[string]string{"scope": "a b", "a": "1", "b": "2"})
	equal(t, "resources", len(request.form["resource"]), 2)
}
