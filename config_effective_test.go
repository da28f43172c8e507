package mcpoauth

import (
	"net/http"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// The method is the operator's, else that of the credentials, and of secrets the one
// that the metadata names.
func TestAuthMethodFromMetadata(t *testing.T) {
	for _, test := range []struct {
		name  string
		named []string // nil: the metadata does not say
		asked string
		want  string // empty: nothing fits
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
			var metadata fields
			if test.named != nil {
				metadata = fields{"token_endpoint_auth_methods_supported": test.named}
			}
			m, as, mcp := discoverable(t, metadata)
			client := with(mcp.client(), fields{"token_endpoint_auth_method": test.asked})
			if test.want == "" {
				m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", client,
					"names the client authentication methods", test.named[0], "credentials are for client_secret_basic", "set token_endpoint_auth_method")
				equal(t, "the configs", m.list("config/"), nil)
				as.asked(t, 0, "after the refused write")
				return
			}
			m.write("config/weather", client)
			request := as.await(1)
			got := "client_secret_basic"
			if request.form.Get("client_secret") == secret {
				got = "client_secret_post"
			}
			if got != test.want || (request.clientSecret == secret) != (got == "client_secret_basic") {
				t.Errorf("the method is %s; want %s", got, test.want)
			}
			if read := m.read("config/weather")["token_endpoint_auth_method"]; read != test.asked {
				t.Errorf("token_endpoint_auth_method reads %q; want it as written, %q", read, test.asked)
			}
		})
	}
}

// raw_basic_auth is about client_secret_basic, and nothing if the secret went into the body.
func TestRawBasicAuthMeansBasic(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"token_endpoint_auth_methods_supported": []string{"client_secret_post"}})
	client := with(mcp.client(), fields{"raw_basic_auth": true})
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", client, "credentials are for client_secret_basic")
	as.asked(t, 0, "after the refused write")
	m.write("config/weather", with(client, fields{"token_endpoint_auth_method": "client_secret_basic"}))
	if as.await(1).clientSecret != secret {
		t.Error("the secret was not sent in the header")
	}
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
		if got := m.read("config/weather")["server_url"]; got != raw {
			t.Errorf("server_url reads %q; want it as written, %q", got, raw)
		}
	}
}
