package mcpoauth

import "testing"

// The method is the operator's choice, or else follows from the credentials. For a secret, the metadata may choose.
func TestAuthMethodFromMetadata(t *testing.T) {
	for _, test := range []struct {
		name  string
		named []string // nil: absent from the metadata
		asked string
		want  string // empty: no method fits
	}{
		{"not said", nil, "", "client_secret_basic"},
		{"basic", []string{"client_secret_basic"}, "", "client_secret_basic"},
		{"post", []string{"client_secret_post"}, "", "client_secret_post"},
		{"both", []string{"client_secret_post", "client_secret_basic"}, "", "client_secret_basic"},
		{"post among others", []string{"none", "private_key_jwt", "client_secret_post"}, "", "client_secret_post"},
		{"none that fits", []string{"private_key_jwt", "tls_client_auth"}, "", ""},
		{"unknown ones", []string{"client_secret_jwt"}, "", ""},
		{"post all the same", []string{"client_secret_basic"}, "client_secret_post", "client_secret_post"},
		{"basic all the same", []string{"private_key_jwt"}, "client_secret_basic", "client_secret_basic"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, as, mcp := discoverable(t, nil)
			if test.named != nil {
				as.describes(fields{"token_endpoint_auth_methods_supported": test.named})
			}
			client := with(mcp.client(), fields{"token_endpoint_auth_method": test.asked})
			if test.want == "" {
				m.rejects("config/weather", client,
					"names the client authentication methods", test.named[0], "credentials are for client_secret_basic", "set token_endpoint_auth_method")
				equal(t, "the configs", m.list("config/"), nil)
				as.asked(t, 0, "after the refused write")
				return
			}
			m.write("config/weather", client)
			request := as.await(1)
			equal(t, "basic", request.clientSecret == secret, test.want == "client_secret_basic")
			equal(t, "post", request.form.Get("client_secret") == secret, test.want == "client_secret_post")
			equal(t, "token_endpoint_auth_method", m.read("config/weather")["token_endpoint_auth_method"], test.asked)
		})
	}
}

// raw_basic_auth needs client_secret_basic: it has no meaning for a secret in the body.
func TestRawBasicAuthMeansBasic(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"token_endpoint_auth_methods_supported": []string{"client_secret_post"}})
	client := with(mcp.client(), fields{"raw_basic_auth": true})
	m.rejects("config/weather", client, "credentials are for client_secret_basic")
	as.asked(t, 0, "after the refused write")
	m.write("config/weather", with(client, fields{"token_endpoint_auth_method": "client_secret_basic"}))
	equal(t, "the secret in the header", as.await(1).clientSecret, secret)
}

func TestServerURLIsTheDefaultResourceInCanonicalForm(t *testing.T) {
	for raw, want := range map[string]string{
		"https://MCP.Example.com":        "https://mcp.example.com",
		"HTTPS://mcp.example.com/":       "https://mcp.example.com",
		"https://mcp.example.com/MCP/":   "https://mcp.example.com/MCP/",
		"https://mcp.example.com/?a=B":   "https://mcp.example.com/?a=B",
		"https://mcp.example.com:8443/a": "https://mcp.example.com:8443/a",
	} {
		as, m := newAuthServer(t), newMount(t)
		m.write("config/weather", with(as.client(), fields{"server_url": raw}))
		equal(t, "the resource of "+raw, as.await(1).form["resource"], []string{want})
		equal(t, "server_url", m.read("config/weather")["server_url"], raw)
	}
}
