package mcpoauth

import (
	"net/http"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// Whoever may update a config could otherwise have its secret sent to a host of their
// own.
func TestSecretTravelsOnlyWhereItWasWrittenFor(t *testing.T) {
	certificate, _ := certificateAndKey(t)
	as, thief := newAuthServer(t), newAuthServer(t)
	for _, test := range []struct {
		name   string
		change fields
	}{
		{"token_url to another host", fields{"token_url": thief.URL + "/token"}},
		{"token_url to another path", fields{"token_url": as.URL + "/echo"}},
		{"ca_cert added", fields{"ca_cert": certificate}},
		{"allow_insecure_http", fields{"allow_insecure_http": true}},
		{"token_url beside other changes", fields{"token_url": thief.URL, "client_id": "thief", "token_endpoint_auth_method": "client_secret_post"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMount(t)
			m.configure(as, nil)
			was, asked := m.storage.entries(t), as.count()
			for _, verify := range []bool{true, false} {
				m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather",
					with(test.change, fields{"verify": verify}), "must bring client_secret too")
			}
			m.storage.unchanged(t, was)
			as.asked(t, asked, "after the refused write")
			m.write("config/weather", with(test.change, fields{"client_secret": secret, "verify": false}))
		})
	}
	thief.asked(t, 0, "after all")
}

func TestSecretGoesToTheNewPlaceWhenItIsGiven(t *testing.T) {
	before, after := newAuthServer(t), newAuthServer(t)
	m := newMount(t)
	m.write("config/weather", before.client())
	m.write("config/weather", fields{"token_url": after.URL + "/token", "client_secret": "new-" + secretMark})
	if got := after.await(1); got.clientSecret != "new-"+secretMark {
		t.Errorf("the new server got the secret %q", got.clientSecret)
	}
	before.asked(t, 1, "after the move")
}

// Removing what was added is a change of route like any other.
func TestRemovingProtectionNeedsTheSecret(t *testing.T) {
	certificate, _ := certificateAndKey(t)
	as, m := newAuthServer(t), newMount(t)
	m.configure(as, fields{"ca_cert": certificate, "allow_insecure_http": true})
	for _, change := range []fields{{"ca_cert": ""}, {"allow_insecure_http": false}} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", change, "must bring client_secret too")
	}
}

// The framework's own message would quote the value, and Vault would log it.
func TestSecretOfTheWrongTypeIsNotEchoed(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for _, value := range []any{
		fields{"value": secret}, []string{secret, secret}, []any{fields{secret: secret}}, 12345, 1.5, true,
	} {
		data := with(as.client(), fields{"client_secret": value})
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", data, "client_secret must be a string")
		m.configure(as, nil)
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", data, "client_secret must be a string")
		m.delete("config/weather")

		req := &logical.Request{Operation: logical.UpdateOperation, Path: "config/weather", Data: data, Storage: m.storage}
		if checked, _, err := m.b.HandleExistenceCheck(t.Context(), req); err != nil || !checked {
			t.Errorf("existence check with client_secret %T: %t, %v", value, checked, err)
		}
	}
	as.asked(t, 0, "after secrets of the wrong type")
}

// What goes to the token endpoint for what is configured.
func TestRequestHoldsWhatIsConfigured(t *testing.T) {
	for _, test := range []struct {
		name   string
		config fields
		want   map[string][]string
	}{
		{"nothing", nil, map[string][]string{}},
		{"scopes", fields{"scopes": []string{"b,c", "a"}}, map[string][]string{"scope": {"b,c a"}}},
		{"scopes with commas", fields{"scopes": "b,c, a"}, map[string][]string{"scope": {"b c a"}}},
		{"duplicate scopes", fields{"scopes": "b a b a"}, map[string][]string{"scope": {"b a"}}},
		{"server_url", fields{"server_url": "https://a.example.com/mcp"}, map[string][]string{"resource": {"https://a.example.com/mcp"}}},
		{"resource wins", fields{"server_url": "https://a.example.com/mcp", "resource": "https://b.example.com/,urn:c"}, map[string][]string{"resource": {"https://b.example.com/", "urn:c"}}},
		{"omit_resource", fields{"server_url": "https://a.example.com/mcp", "omit_resource": true}, map[string][]string{}},
		{"audience", fields{"audience": "weather"}, map[string][]string{"audience": {"weather"}}},
		{"extra_params", fields{"extra_params": "tenant=north"}, map[string][]string{"tenant": {"north"}}},
		{"client_secret_post", fields{"token_endpoint_auth_method": "client_secret_post"}, map[string][]string{"client_id": {"vault"}, "client_secret": {secret}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.write("config/weather", with(as.client(), test.config))
			request := as.await(1)
			test.want["grant_type"] = []string{"client_credentials"}
			for param, values := range request.form {
				equal(t, param, values, test.want[param])
			}
			for param, values := range test.want {
				equal(t, param, request.form[param], values)
			}
			_, inBody := test.want["client_secret"]
			if inHeader := request.clientSecret != ""; inHeader == inBody {
				t.Errorf("secret in the header: %t; in the body: %t", inHeader, inBody)
			}
		})
	}
}
