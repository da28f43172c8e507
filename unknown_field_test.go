package mcpoauth

import "testing"

func TestUnknownFieldSaysWhichIsMeant(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", as.client())
	was := m.storage.entries(t)
	for _, test := range []struct{ path, field, says string }{
		{"config/weather", "scope", `unknown field "scope": did you mean "scopes"?`},
		{"config/weather", "resources", `did you mean "resource"?`},
		{"config/weather", "clientId", `did you mean "client_id"?`},
		{"config/weather", "client-secret", `did you mean "client_secret"?`},
		{"config/weather", "Scopes", `did you mean "scopes"?`},
		{"config/weather", "token_uri", `did you mean "token_url"?`},
		{"config/weather", "auth_method", `did you mean "token_endpoint_auth_method"?`},
		{"config/weather", "extra_header", `did you mean "extra_headers"?`},
		{"config/weather", "ommit_resource", `did you mean "omit_resource"?`},
		{"config/weather", "servr_url", `did you mean "server_url"?`},
		{"config/weather", "token_endpoint", `did you mean "token_url"?`},
		{"config/weather", "kid", `did you mean "key_id"?`},
		{"config/weather", "headers", `did you mean "extra_headers"?`},
		{"config/weather", "issuer_url", `did you mean "issuer"?`},
		{"config/weather", "mcp_server_url", `did you mean "server_url"?`},
		{"config/weather", "client_secret_value", `did you mean "client_secret"?`},
		{"config/weather", "timeout_of_all", `unknown field "timeout_of_all": vault path-help`},
		{"config/weather", "colour", `unknown field "colour": vault path-help`},
		{"config/weather", "x", `unknown field "x": vault path-help`},
		{"config/weather", "token_id", `unknown field "token_id": vault path-help`},
		{"role/weather/reader", "scope", `did you mean "scopes"?`},
		{"role/weather/reader", "client_secret", `the field "client_secret" is the config's: write it to config/<server>`},
		{"role/weather/reader", "default_ttl", `the field "default_ttl" is the config's`},
		{"role/weather/reader", "clientsecret", `did you mean "client_secret", which is the config's?`},
		{"role/weather/reader", "token_endpoint", `did you mean "token_url", which is the config's?`},
		{"refresh/weather", "tokenid", `did you mean "token_id"?`},
		{"refresh/weather", "scopes", `the field "scopes" is the config's`},
		{"keys/weather/rotate", "activate_afer", `did you mean "activate_after"?`},
	} {
		m.rejects(test.path, fields{test.field: "x"}, test.says)
	}
	m.rejects("config/weather", fields{long(10000): "x"}, "unknown field")
	m.storage.unchanged(t, was)
}
