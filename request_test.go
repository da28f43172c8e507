package mcpoauth

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/discovery"
	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

func TestRequestHoldsTheConfiguredParameters(t *testing.T) {
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
			equal(t, "the parameters", map[string][]string(request.form), test.want)
			equal(t, "a secret in the header", request.clientSecret != "", test.want["client_secret"] == nil)
		})
	}
}

// RFC 6749 section 2.3.1, and servers that do not follow it. A blank is encoded as %20, which all of them decode.
func TestSecretInTheHeader(t *testing.T) {
	const id, odd = "weather böe", secret + " +%&é/:="
	for _, test := range []struct {
		change   fields
		id, want string
	}{
		{nil, "weather%20b%C3%B6e", secret + "%20%2B%25%26%C3%A9%2F%3A%3D"},
		{fields{"raw_basic_auth": true}, id, odd},
	} {
		as, m := newAuthServer(t), newMount(t)
		m.write("config/weather", with(as.client(), with(fields{"client_id": id, "client_secret": odd}, test.change)))
		header := as.await(1).header.Get("Authorization")
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(test.id+":"+test.want))
		equal(t, "the header of "+test.id+" is right", header == want, true)
	}
}

// A discovered endpoint's addresses are checked at each call, because they may change.
func TestDiscoveredTokenEndpointIsGuardedAtEveryCall(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	m.write("role/weather/reader", fields{"scopes": "read", "verify": false})
	policy := m.config("weather").Discovered.Policy
	equal(t, "the policy that a loopback MCP server earns", []bool{policy.Loopback, policy.Private}, []bool{true, false})
	m.edit("weather", func(c *config) { c.Discovered.Policy = discovery.Policy{} }) // as for a public server
	m.refused(http.StatusBadGateway, logical.ReadOperation, "token/weather/reader", nil, "loopback", "allow_private_addresses")
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", fields{"scopes": "a"}, "loopback", "nothing was stored")
	as.asked(t, 1, "with a guard that does not permit it")

	m.write("config/weather", fields{"token_url": as.URL + "/token", "client_secret": secret})
	m.holds("weather/reader", "t0ken-3")
}

// The permission for private addresses ends when the operator unsets it; discovery does not pin it.
func TestPrivateAddressesArePermittedForAsLongAsThatIsWritten(t *testing.T) {
	m, _, mcp := discoverable(t, nil)
	m.write("config/weather", mcp.client())
	m.edit("weather", func(c *config) { c.Discovered.Policy = discovery.Policy{} }) // as for a public server
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", fields{"scopes": "a"}, "allow_private_addresses")
	m.write("config/weather", fields{"allow_private_addresses": true, "client_secret": secret, "scopes": "a"})
	m.write("config/weather", fields{"allow_private_addresses": false, "client_secret": secret, "verify": false})
	m.refused(http.StatusBadGateway, logical.UpdateOperation, "config/weather", fields{"scopes": "b"}, "allow_private_addresses")
}

// A discovered token endpoint is guarded. Only if the operator named its server is it called through a proxy.
func TestDiscoveredEndpointOfTheOperatorsServerIsProxied(t *testing.T) {
	const as = "https://as.example.com/token"
	found := &discovered{Issuer: "https://as.example.com/t", TokenURL: as, MTLSTokenURL: "https://mtls.example.com/token"}
	for _, test := range []struct {
		name    string
		config  config
		guarded bool
		proxied bool
	}{
		{"issuer", config{Issuer: "https://as.example.com/t", Discovered: found}, true, true},
		{"issuer with its port", config{Issuer: "https://AS.example.com:443/t", Discovered: found}, true, true},
		{"another host", config{Issuer: "https://login.example.com/t", Discovered: found}, true, false},
		{"another port", config{Issuer: "https://as.example.com:8443/t", Discovered: found}, true, false},
		{"for certificates", config{Issuer: "https://as.example.com/t", Discovered: found, AuthMethod: grant.TLSClientAuth}, true, false},
		{"server_url", config{ServerURL: "https://mcp.example.com/mcp", Discovered: found}, true, false},
		{"server_url of that server", config{ServerURL: "https://as.example.com/mcp", Discovered: found}, true, true},
		{"token_url", config{TokenURL: as}, false, false},
	} {
		c := test.config
		c.ClientCertificate, c.ClientCertificateKey = certificateAndKey(t)
		c.AuthMethod = cmp.Or(c.AuthMethod, grant.ClientSecretBasic)
		q := must(c.request(nil))(t)
		equal(t, test.name+": guarded and proxied", []bool{q.Control != nil, q.Proxied}, []bool{test.guarded, test.proxied})
	}
}
