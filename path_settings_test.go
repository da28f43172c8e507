package mcpoauth

import (
	"net/http"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestPublicURL(t *testing.T) {
	for _, test := range []struct{ written, read, refused string }{
		{"", "", ""},
		{"https://vault.example.com/v1/mcp-oauth", "https://vault.example.com/v1/mcp-oauth", ""},
		{"https://vault.example.com/v1/mcp-oauth/", "https://vault.example.com/v1/mcp-oauth", ""},
		{"HTTPS://Vault.Example.com/v1/team-a/mcp-oauth", "https://vault.example.com/v1/team-a/mcp-oauth", ""},
		{"https://vault.example.com:443/v1/mcp-oauth", "https://vault.example.com:443/v1/mcp-oauth", ""},
		{"http://127.0.0.1:8200/v1/mcp-oauth", "http://127.0.0.1:8200/v1/mcp-oauth", ""},
		{"http://vault.example.com/v1/mcp-oauth", "", "https"},
		{"https://vault.example.com", "", "path of the mount"},
		{"https://vault.example.com/", "", "path of the mount"},
		{"https://vault.example.com/v1/../mcp-oauth", "", "segments"},
		{"https://vault.example.com/v1//mcp-oauth", "", "segments"},
		{"https://vault.example.com/v1/mcp-oauth?", "", "query"},
		{"https://vault.example.com/v1/mcp-oauth?a=b", "", "query"},
		{"https://vault.example.com/v1/mcp-oauth#a", "", "fragment"},
		{"https://user@vault.example.com/v1/mcp-oauth", "", "user information"},
		{"/v1/mcp-oauth", "", "absolute"},
		{"ftp://vault.example.com/v1/mcp-oauth", "", "https://"},
		{"https://vault.example.com/v1/" + long(maxURL), "", "2048 bytes"},
	} {
		m := newMount(t)
		if test.refused != "" {
			m.rejects("settings", fields{"public_url": test.written}, "public_url", test.refused)
		} else {
			m.write("settings", fields{"public_url": test.written})
		}
		sameFields(t, m.read("settings"), fields{"public_url": test.read})
		m.restart()
		sameFields(t, m.read("settings"), fields{"public_url": test.read})
		m.write("settings", fields{})
		sameFields(t, m.read("settings"), fields{"public_url": test.read})
	}
}

func TestWarningOfAnotherPort(t *testing.T) {
	m := newMount(t)
	for url, warns := range map[string]bool{
		"https://vault.example.com/v1/mcp-oauth":      false,
		"https://vault.example.com:443/v1/mcp-oauth":  false,
		"https://vault.example.com:8200/v1/mcp-oauth": true,
		"http://127.0.0.1/v1/mcp-oauth":               true,
		"":                                            false,
	} {
		equal(t, url+": a warning", len(m.write("settings", fields{"public_url": url})) > 0, warns)
	}
}

func TestSettingsThatStorageFails(t *testing.T) {
	m := newMount(t)
	m.write("config/weather", made(nil))
	m.write("settings", fields{"public_url": publicURL})
	m.storage.fail("get settings")
	m.refused(http.StatusInternalServerError, logical.ReadOperation, "settings", nil, errStorage.Error())
	m.refused(http.StatusInternalServerError, logical.ReadOperation, "keys/weather", nil, errStorage.Error())
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "settings", fields{"public_url": ""}, errStorage.Error())
	m.storage.fail("put settings")
	m.refused(http.StatusInternalServerError, logical.UpdateOperation, "settings", fields{"public_url": ""}, errStorage.Error())
	m.storage.fail()
	sameFields(t, m.read("settings"), fields{"public_url": publicURL})
}
