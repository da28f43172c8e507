package mcpoauth

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// Without this check, the framework answers "unsupported path".
func TestNameThatIsNotAllowedGetsTheRule(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	const rule = `is not allowed: a name consists of letters, digits, "_", "-" and ".", and starts and ends with a letter, a digit or "_"`
	for _, test := range []struct {
		path, name string
	}{
		{"config/-weather", "-weather"},
		{"config/weather.", "weather."},
		{"config/we ather", "we ather"},
		{"config/wetter-böe", "wetter-böe"},
		{"config/a@b", "a@b"},
		{"config/files/mcp", "files/mcp"},
		{"config/https://files.example.com/mcp", "https://files.example.com/mcp"},
		{"role/weather/read er", "read er"},
		{"role/-weather/reader", "-weather"},
		{"role/weather/reader/more", "reader/more"},
		{"token/weather!", "weather!"},
		{"token/weather/reader+", "reader+"},
		{"refresh/weather/-", "-"},
		{"status/+", "+"},
		{"keys/weather:1", "weather:1"},
		{"keys/weather:1/rotate", "weather:1"},
		{"config/" + strings.Repeat("ü", 100), strings.Repeat("ü", 60) + "…"},
	} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.ReadOperation, logical.DeleteOperation} {
			m.refused(http.StatusBadRequest, op, test.path, nil, `the name "`+test.name+`" `+rule)
		}
	}
	for _, path := range []string{"metrics/x", "elsewhere", "", "keys/weather/rotates"} {
		if _, err := m.do(logical.ReadOperation, path, nil); !errors.Is(err, logical.ErrUnsupportedPath) && !errors.Is(err, logical.ErrUnsupportedOperation) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"jwks/a@b", "jwks/a/b", "issuer/a@b/jwks", "issuer/a", "client/a/b"} { // every unpublished name gets the same answer
		m.missing(path, "nothing is published here")
	}
}
