package mcpoauth

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func long(n int) string { return strings.Repeat("x", n) }

// numbered returns n different values.
func numbered(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("v%d", i))
	}
	return list
}

func TestFaultyConfigIsRefusedWithARemedy(t *testing.T) {
	certificate, key := certificateAndKey(t)
	for _, test := range []struct {
		name   string
		change fields
		says   string
	}{
		{"token_url missing, without server_url and issuer", fields{"token_url": ""}, "server_url is missing: write the MCP server's URL"},
		{"token_url relative", fields{"token_url": "/token"}, "must be absolute, as in https://"},
		{"token_url without a scheme", fields{"token_url": "as.example.com/token"}, "must be absolute, as in https://"},
		{"token_url without slashes", fields{"token_url": "https:as.example.com/token"}, "must be absolute, as in https://"},
		{"token_url without a host", fields{"token_url": "https://:443/token"}, "must be absolute, as in https://"},
		{"token_url with a fragment", fields{"token_url": "https://as.example.com/token#a"}, "must not hold a fragment"},
		{"token_url with an empty fragment", fields{"token_url": "https://as.example.com/token#"}, "must not hold a fragment"},
		{"token_url with a user", fields{"token_url": "https://vault:p@as.example.com/token"}, "credentials have fields of their own"},
		{"token_url with a space", fields{"token_url": "https://as.example.com/a b"}, "is not a URL"},
		{"token_url with a line break", fields{"token_url": "https://as.example.com/\n"}, "is not a URL"},
		{"token_url with a bad port", fields{"token_url": "https://as.example.com:port/"}, "is not a URL"},
		{"token_url at port 0", fields{"token_url": "https://as.example.com:0/token"}, "between 1 and 65535"},
		{"token_url at port 65536", fields{"token_url": "https://as.example.com:65536/token"}, "between 1 and 65535"},
		{"token_url at port 99999", fields{"token_url": "https://as.example.com:99999/token"}, "between 1 and 65535"},
		{"token_url of another scheme", fields{"token_url": "ftp://as.example.com/token"}, "must start with https://"},
		{"token_url in the clear", fields{"token_url": "http://as.example.com/token"}, "write https, or allow_insecure_http=true"},
		{"token_url that only begins like loopback", fields{"token_url": "http://127.0.0.1.example.com/"}, "write https"},
		{"token_url on localhost's neighbour", fields{"token_url": "http://notlocalhost/"}, "write https"},
		{"token_url too long", fields{"token_url": "https://as.example.com/" + long(2048)}, "at most 2048"},
		{"token_url that is a metadata document's", fields{"token_url": "https://as.example.com/a/.well-known/openid-configuration"}, "write issuer=https://as.example.com/a"},
		{"issuer that is a metadata document's", fields{"issuer": "https://as.example.com/.well-known/openid-configuration?p=x"}, "issuer is the URL of a metadata document: write issuer=https://as.example.com"},
		{"server_url that is a metadata document's", fields{"server_url": "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"}, "write server_url=https://mcp.example.com/mcp"},
		{"server_url relative", fields{"server_url": "mcp"}, "must be absolute"},
		{"server_url in the clear", fields{"server_url": "http://mcp.example.com/"}, "write https"},
		{"server_url with a fragment", fields{"server_url": "https://mcp.example.com/#a"}, "must not hold a fragment"},
		{"server_url with a user", fields{"server_url": "https://u@mcp.example.com/"}, "must not hold user information"},

		{"client_id missing", fields{"client_id": ""}, "write the client's identifier"},
		{"client_id with a line break", fields{"client_id": "vault\nx"}, "printable"},
		{"client_id too long", fields{"client_id": long(8193)}, "at most 8192"},
		{"client_secret missing", fields{"client_secret": ""}, "client_secret_basic needs one"},
		{"client_secret of a file", fields{"client_secret": secret + "\n"}, "write the secret without it"},
		{"client_secret of a Windows file", fields{"client_secret": secret + "\r\n"}, "write the secret without it"},
		{"client_secret with a tab", fields{"client_secret": secret + "\tx"}, "printable"},
		{"client_secret with a zero-width space", fields{"client_secret": secret + "\u200b"}, "printable"},
		{"raw_basic_auth with another method", fields{"raw_basic_auth": true, "token_endpoint_auth_method": "client_secret_post"}, "raw_basic_auth goes with client_secret_basic"},
		{"raw_basic_auth with a colon", fields{"raw_basic_auth": true, "client_id": "a:b"}, "holds a colon"},
		{"client_secret too long", fields{"client_secret": secret + long(8192)}, "at most 8192"},
		{"an auth method that does not work", fields{"token_endpoint_auth_method": "client_secret_jwt"}, "write client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth or self_signed_tls_client_auth"},

		{"scope with a quote", fields{"scopes": `a "b"`}, "without spaces, quotes or backslashes"},
		{"scope with a backslash", fields{"scopes": []string{`a\b`}}, "without spaces, quotes or backslashes"},
		{"scope not ASCII", fields{"scopes": "lesen-für-alle"}, "printable ASCII"},
		{"scope too long", fields{"scopes": long(1025)}, "at most 1024"},
		{"too many scopes", fields{"scopes": numbered(101)}, "at most 100"},
		{"resource with a line break", fields{"resource": "a\nb"}, "must be printable"},
		{"resource beside omit_resource", fields{"resource": "https://mcp.example.com", "omit_resource": true}, `write resource="" or omit_resource=false`},
		{"too many resources", fields{"resource": numbered(101)}, "at most 100"},
		{"audience with a line break", fields{"audience": "a\nb"}, "printable characters"},
		{"audience too long", fields{"audience": long(2049)}, "2048"},

		{"extra_params with a space in a name", fields{"extra_params": fields{"a b": "c"}}, "without spaces"},
		{"extra_params without a name", fields{"extra_params": fields{"": "c"}}, "is malformed"},
		{"extra_params that is no pair", fields{"extra_params": "tenant"}, "extra_params takes name=value pairs or a JSON object"},
		{"extra_params with a line break", fields{"extra_params": fields{"tenant": "a\nb"}}, "printable characters"},
		{"extra_params too long", fields{"extra_params": fields{"tenant": long(4097)}}, "at most 4096"},

		{"default_ttl of nothing", fields{"default_ttl": 0}, "between 1s and"},
		{"default_ttl negative", fields{"default_ttl": -1}, "default_ttl"},
		{"default_ttl too long", fields{"default_ttl": "8761h"}, "between 1s and"},
		{"default_ttl no duration", fields{"default_ttl": "soon"}, "default_ttl"},
		{"max_ttl negative", fields{"max_ttl": "-1s"}, "max_ttl"},
		{"max_ttl too long", fields{"max_ttl": "8761h"}, "or 0 for no cap"},
		{"max_ttl longer than any duration", fields{"max_ttl": "18446744374"}, "max_ttl"},
		{"idle_timeout negative", fields{"idle_timeout": -5}, "idle_timeout"},
		{"idle_timeout too long", fields{"idle_timeout": "8761h"}, "or 0 to refresh for ever"},
		{"request_timeout of nothing", fields{"request_timeout": 0}, "between 1s and 25s"},
		{"request_timeout negative", fields{"request_timeout": "-1s"}, "request_timeout"},
		{"request_timeout too long", fields{"request_timeout": 26}, "between 1s and 25s"},

		{"ca_cert not PEM", fields{"ca_cert": "/etc/ssl/ca.pem"}, "ca_cert=@ca.pem reads a file"},
		{"ca_cert with its private key", fields{"ca_cert": certificate + key}, "is a private key"},
		{"ca_cert cut short", fields{"ca_cert": certificate[:len(certificate)/2]}, "cut short"},
		{"ca_cert too long", fields{"ca_cert": certificate + long(256<<10)}, "at most 262144"},
		{"omit_resource neither true nor false", fields{"omit_resource": "perhaps"}, "omit_resource"},
		{"verify neither true nor false", fields{"verify": "perhaps"}, "verify"},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.rejects("config/weather", with(as.client(), test.change), test.says)
			m.configure(as, nil)
			was := m.storage.entries(t)
			change := with(fields{"client_secret": secret}, test.change) // a change of route must supply credentials
			m.rejects("config/weather", change, test.says)
			m.storage.unchanged(t, was)
			as.asked(t, 0, "after writes that are refused")
		})
	}
}

func TestExtraParamsMustNotHoldFieldsOrSecrets(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for _, param := range []string{
		"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "scope",
		"resource", "audience", "assertion", "password", "refresh_token", "subject_token", "Client_Secret",
	} {
		data := with(as.client(), fields{"extra_params": fields{param: "a-" + secretMark}})
		m.rejects("config/weather", data, "extra_params must not hold "+param)
	}
	equal(t, "the configs", m.list("config/"), nil)
}

func TestWellFormedConfigsAreAccepted(t *testing.T) {
	certificate, _ := certificateAndKey(t)
	for _, change := range []fields{
		{"token_url": "http://127.0.0.1:8080/token"},
		{"token_url": "http://127.8.9.1/token"},
		{"token_url": "http://localhost/token"},
		{"token_url": "http://LOCALHOST:1/token"},
		{"token_url": "http://[::1]:8080/token"},
		{"token_url": "http://as.internal/token", "allow_insecure_http": true},
		{"token_url": "https://as.example.com:8443/a/b?tenant=north"},
		{"server_url": "http://localhost:3000/mcp"},
		{"client_id": "https://client.example.com/metadata?a=b c"},
		{"client_secret": secret + ` %+&="\:/?#` + "'"},
		{"client_secret": " " + secret + " "},
		{"scopes": "api://app/.default,!#$%&'()*+-./:;<=>?@[]^_`{|}~"},
		{"resource": "urn:example:resource"},
		{"resource": "https://mcp.example.com/mcp?tenant=north"},
		{"resource": numberedURLs(100)},
		{"audience": "Wetterdienst für alle"},
		{"extra_params": "tenant=north=south"},
		{"extra_params": fields{"tenant": "", "n": 5}},
		{"default_ttl": "1s", "max_ttl": "365d", "idle_timeout": 0, "request_timeout": "25s"},
		{"ca_cert": "the root\n" + certificate + "and another\n" + certificate},
	} {
		newMount(t).configure(newAuthServer(t), change)
	}
}

func numberedURLs(n int) []string {
	list := numbered(n)
	for i, name := range list {
		list[i] = "https://" + name + ".example.com"
	}
	return list
}

// Every path refuses the names that storage refuses.
func TestFaultyNamesAreRefusedOnEveryPath(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for name, says := range map[string]string{"a..b": "two dots", long(257): "longer than 256"} {
		for path, data := range map[string]fields{
			"config/" + name:           as.client(),
			"role/" + name + "/b":      {},
			"role/weather/" + name:     {},
			"refresh/" + name:          {},
			"refresh/weather/" + name:  {},
			"keys/" + name + "/rotate": {},
		} {
			m.rejects(path, data, says)
		}
		for _, path := range []string{
			"config/" + name, "role/" + name + "/b", "role/weather/" + name, "token/" + name,
			"token/weather/" + name, "status/" + name, "status/weather/" + name, "keys/" + name,
		} {
			m.refused(http.StatusBadRequest, logical.ReadOperation, path, nil, says)
		}
		for _, path := range []string{"config/" + name, "role/weather/" + name} {
			m.refused(http.StatusBadRequest, logical.DeleteOperation, path, nil, says)
		}
		m.refused(http.StatusBadRequest, logical.ListOperation, "role/"+name+"/", nil, says)
	}
	equal(t, "the keys", keysOf(t, m), nil)
	for _, name := range []string{"a-b.c_d", "a", "7", long(256)} {
		m.write("config/"+name, with(as.client(), fields{"verify": false}))
	}
}
