package mcpoauth

import (
	"net/http"
	"slices"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// The vault command makes a list of what is given twice, as in client_id=a client_id=b.
func TestWhatIsGivenTwiceIsRefused(t *testing.T) {
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
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{field: value}, field, says)
	}
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "role/weather/reader", fields{"extra_params": `{"a":"1","a":"2"}`}, `extra_params holds "a" twice`)
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "role/weather/reader", fields{"audience": twice}, "audience must be one value")
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "refresh/weather", fields{"token_id": twice}, "token_id must be one value")
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "keys/weather/rotate", fields{"activate_after": twice}, "activate_after must be one value")
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "settings", fields{"public_url": twice}, "public_url must be one value")
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"server": "other"}, "the path names the server: leave server out")
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "role/weather/reader", fields{"role": "other"}, "the path names the role: leave role out")
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "refresh/weather", fields{"server": twice}, "the path names the server")
	m.storage.unchanged(t, was)
	as.asked(t, 1, "after writes that are refused")
	m.write("config/weather", fields{"server": "weather"})

	// A list may be given in pieces.
	m.write("config/weather", fields{"scopes": twice, "resource": []string{"https://a.example.com", "https://b.example.com"}, "extra_params": []string{"a=1", "b=2"}})
	form := as.await(2).form
	if form.Get("scope") != "a b" || len(form["resource"]) != 2 || form.Get("a")+form.Get("b") != "12" {
		t.Errorf("sent %v", form)
	}
}
