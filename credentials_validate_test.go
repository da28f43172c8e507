package mcpoauth

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

func TestFaultyCredentialsAreRefusedWithARemedy(t *testing.T) {
	certificate, key := certificateAndKey(t)
	otherCertificate, _ := certificateAndKey(t)
	weak := must(rsa.GenerateKey(rand.Reader, 1024))(t)
	p521 := pemOf(t, ecKey(t, elliptic.P521()))
	pair := fields{"client_certificate": certificate, "client_certificate_key": key, "token_url": "https://as.example.com/token"}
	for _, test := range []struct {
		name   string
		config fields
		says   string
	}{
		{"none", fields{}, "client_secret is missing"},
		{"private_key_jwt with a secret", fields{"client_secret": secret, "token_endpoint_auth_method": "private_key_jwt"}, "one kind of credentials"},
		{"private_key_jwt without a key", fields{"private_key": "", "token_endpoint_auth_method": "private_key_jwt"}, "private_key is missing"},
		{"tls_client_auth with a secret", fields{"client_secret": secret, "token_endpoint_auth_method": "tls_client_auth"}, "client_certificate and client_certificate_key are missing"},
		{"tls_client_auth with a key", fields{"private_key": key, "token_endpoint_auth_method": "tls_client_auth"}, "client_certificate and client_certificate_key are missing"},
		{"tls_client_auth without a certificate", fields{"token_endpoint_auth_method": "tls_client_auth"}, "client_certificate and client_certificate_key are missing"},
		{"self_signed_tls_client_auth without a certificate", fields{"client_secret": secret, "token_endpoint_auth_method": "self_signed_tls_client_auth"}, "client_certificate and client_certificate_key are missing: self_signed_tls_client_auth needs them"},
		{"basic with a key", fields{"private_key": key, "token_endpoint_auth_method": "client_secret_basic"}, "does not go with the credentials"},
		{"post with a certificate", with(pair, fields{"token_endpoint_auth_method": "client_secret_post"}), "does not go with the credentials"},

		{"private_key that is no PEM", fields{"private_key": "/etc/key-" + secretMark + ".pem"}, "private_key"},
		{"private_key that is a certificate", fields{"private_key": certificate}, "private_key"},
		{"private_key cut short", fields{"private_key": key[:len(key)/2]}, "cut short"},
		{"private_key too weak", fields{"private_key": pemOf(t, weak)}, "2048"},
		{"private_key on another curve", fields{"private_key": p521}, "use one on P-256 or P-384"},
		{"private_key twice", fields{"private_key": key + key}, "private_key"},
		{"key_type unknown", fields{"key_type": "dsa-1024"}, "write rsa-2048, ec-p256 or ed25519"},
		{"key_type beside private_key", fields{"key_type": "ec-p256", "private_key": key}, "contradict each other"},
		{"key_id of a plugin-made key", fields{"key_type": "ec-p256", "key_id": "a"}, "named by its thumbprint"},
		{"key_id not ASCII", fields{"private_key": key, "key_id": "schlüssel"}, "printable ASCII"},
		{"key_id too long", fields{"private_key": key, "key_id": long(1025)}, "at most 1024"},
		{"key_id without a key", fields{"client_secret": secret, "key_id": "a"}, "key_id goes with a signing key"},
		{"signing_alg unknown", fields{"private_key": key, "signing_alg": "HS256"}, "use ES256"},
		{"signing_alg of another key", fields{"private_key": key, "signing_alg": "RS256"}, "use ES256"},
		{"signing_alg of another plugin-made key", fields{"key_type": "ed25519", "signing_alg": "ES256"}, "use EdDSA"},
		{"signing_alg none", fields{"private_key": key, "signing_alg": "none"}, "use ES256"},
		{"signing_alg without a key", fields{"client_secret": secret, "signing_alg": "ES256"}, "signing_alg goes with a signing key"},
		{"certificate of another key", fields{"private_key": key, "certificate": otherCertificate}, "does not belong to the private key"},
		{"certificate that is no PEM", fields{"private_key": key, "certificate": "none"}, "certificate"},
		{"certificate with its key", fields{"private_key": key, "certificate": certificate + key}, "is a private key"},
		{"certificate of a plugin-made key", fields{"key_type": "ec-p256", "certificate": certificate}, "certificate goes with private_key"},
		{"certificate without a key", fields{"client_secret": secret, "certificate": certificate}, "certificate goes with a signing key"},
		{"publish_jwks without a key", fields{"client_secret": secret, "publish_jwks": true}, "publish_jwks goes with a signing key"},
		{"publish_jwks with a client certificate", with(pair, fields{"publish_jwks": true}), "publish_jwks goes with a signing key"},
		{"publish_jwks neither true nor false", fields{"private_key": key, "publish_jwks": "perhaps"}, "publish_jwks"},
		{"assertion_audience without a key", fields{"client_secret": secret, "assertion_audience": "issuer"}, "assertion_audience goes with a signing key"},
		{"assertion_audience of an unknown issuer", fields{"private_key": key, "assertion_audience": "issuer"}, "write issuer, or the audience itself"},
		{"assertion_audience with a line break", fields{"private_key": key, "assertion_audience": "a\nb"}, "printable"},
		{"assertion_audience too long", fields{"private_key": key, "assertion_audience": long(2049)}, "2048"},

		{"raw_basic_auth without a secret", fields{"private_key": key, "raw_basic_auth": true}, "raw_basic_auth goes with client_secret_basic"},
		{"assertion_type unknown", fields{"private_key": key, "assertion_type": "at+jwt"}, "write JWT or client-authentication+jwt"},
		{"assertion_type without a key", fields{"client_secret": secret, "assertion_type": "JWT"}, "assertion_type goes with a signing key"},
		{"assertion_claims without a key", fields{"client_secret": secret, "assertion_claims": "a=b"}, "assertion_claims goes with a signing key"},
		{"assertion_claims of the plugin's", fields{"private_key": key, "assertion_claims": fields{"sub": "other"}}, "assertion_claims must not hold sub"},
		{"assertion_claims without a name", fields{"private_key": key, "assertion_claims": "=b"}, "must be printable characters"},
		{"assertion_claims that are no pairs", fields{"private_key": key, "assertion_claims": "tenant"}, "takes name=value pairs or a JSON object"},
		{"assertion_claims that are a number", fields{"private_key": key, "assertion_claims": 7}, "assertion_claims"},
		{"assertion_claims that are half an object", fields{"private_key": key, "assertion_claims": `{"a":`}, "not a JSON object"},
		{"assertion_claims too long", fields{"private_key": key, "assertion_claims": fields{"a": long(4100)}}, "at most 4096"},
		{"client_certificate without its key", fields{"client_certificate": certificate}, "client_certificate_key"},
		{"client_certificate_key alone", fields{"client_certificate_key": key}, "client_certificate"},
		{"client_certificate of another key", fields{"client_certificate": otherCertificate, "client_certificate_key": key}, "does not belong to the private key"},
		{"client_certificate that is no PEM", with(pair, fields{"client_certificate": "none"}), "client_certificate"},
		{"client_certificate with its key", with(pair, fields{"client_certificate": certificate + key}), "is a private key"},
		{"client_certificate_key too weak", with(pair, fields{"client_certificate_key": pemOf(t, weak)}), "2048"},
		{"client_certificate for http", with(pair, fields{"token_url": "http://localhost/token"}), "tls_client_auth needs an https token endpoint"},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthority(t).newServer(t, false), newMount(t)
			for _, verify := range []bool{true, false} {
				data := with(as.endpoint(), with(test.config, fields{"verify": verify}))
				m.rejects("config/weather", data, test.says)
			}
			equal(t, "the configs", m.list("config/"), nil)
			as.asked(t, 0, "after writes that are refused")
		})
	}
}

// An update keeps the fields that it leaves out, so the remedy must be a write that clears the field.
func TestRemedyOfARefusedUpdateIsEnough(t *testing.T) {
	certificate, key := certificateAndKey(t)
	pair := fields{"client_certificate": certificate, "client_certificate_key": key, "token_url": "https://as.example.com/token"}
	for _, test := range []struct {
		name           string
		stored, update fields
		says           string
		remedy         fields
	}{
		{"method of a secret, with a key", fields{"client_secret": secret, "token_endpoint_auth_method": "client_secret_post"}, fields{"client_secret": "", "private_key": key}, `write token_endpoint_auth_method=""`, fields{"token_endpoint_auth_method": ""}},
		{"fields of a key, with a secret", fields{"private_key": key, "signing_alg": "ES256"}, fields{"private_key": "", "client_secret": secret}, "or an empty signing_alg", fields{"signing_alg": ""}},
		{"publish_jwks of a key, with a secret", fields{"private_key": key, "publish_jwks": true}, fields{"private_key": "", "client_secret": secret}, "or an empty publish_jwks", fields{"publish_jwks": ""}},
		{"assertion_ttl of a key, with a secret", fields{"private_key": key, "assertion_ttl": "2m"}, fields{"private_key": "", "client_secret": secret}, "or an empty assertion_ttl", fields{"assertion_ttl": ""}},
		{"resource, then omit_resource", fields{"client_secret": secret, "resource": "https://mcp.example.com"}, fields{"omit_resource": true}, `write resource=""`, fields{"resource": ""}},
		{"omit_resource, then resource", fields{"client_secret": secret, "omit_resource": true}, fields{"resource": "https://mcp.example.com"}, "omit_resource=false", fields{"omit_resource": false}},
		{"method of a secret, with an identity", fields{"client_secret": secret, "token_endpoint_auth_method": "client_secret_post"}, fields{"client_secret": "", "identity": "issuer"}, `write token_endpoint_auth_method=""`, fields{"token_endpoint_auth_method": ""}},
		{"grant of an identity, with a secret", fields{"identity": "issuer", "grant": "jwt_bearer", "resource": "https://mcp.example.com"}, fields{"identity": "static", "private_key": "", "client_secret": secret}, "or grant=client_credentials", fields{"grant": "client_credentials"}},
		{"subject of an identity, with a secret", fields{"identity": "issuer", "assertion_subject": "a"}, fields{"identity": "static", "private_key": "", "client_secret": secret}, `write assertion_subject=""`, fields{"assertion_subject": ""}},
		{"type of an assertion, then a grant", fields{"identity": "issuer", "assertion_type": "client-authentication+jwt", "resource": "https://mcp.example.com"}, fields{"grant": "jwt_bearer"}, "write assertion_type=JWT", fields{"assertion_type": "JWT"}},
		{"method of a key, then a grant", fields{"identity": "issuer", "token_endpoint_auth_method": "private_key_jwt", "resource": "https://mcp.example.com"}, fields{"grant": "jwt_bearer"}, `or token_endpoint_auth_method=""`, fields{"token_endpoint_auth_method": ""}},
		{"method of a key, with a secret", fields{"private_key": key, "token_endpoint_auth_method": "private_key_jwt"}, fields{"private_key": "", "client_secret": secret}, `write token_endpoint_auth_method=""`, fields{"token_endpoint_auth_method": ""}},
		{"method of a certificate, with a secret", with(pair, fields{"token_endpoint_auth_method": "tls_client_auth"}), fields{"client_certificate": "", "client_certificate_key": "", "client_secret": secret}, `write token_endpoint_auth_method=""`, fields{"token_endpoint_auth_method": ""}},
		{"half of a certificate, with a grant", fields{"token_url": pair["token_url"], "identity": "issuer", "grant": "jwt_bearer", "resource": "https://mcp.example.com"}, fields{"client_certificate_key": key}, "client_certificate must hold", pair},
		{"key_id of a key that the plugin makes", fields{"private_key": key, "key_id": "a"}, fields{"private_key": "", "key_type": "ec-p256"}, "write key_id=thumbprint", fields{"key_id": "thumbprint"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.write("settings", fields{"public_url": publicURL})
			m.write("config/weather", with(as.endpoint(), with(test.stored, fields{"verify": false})))
			update := with(test.update, fields{"verify": false})
			m.rejects("config/weather", update, test.says)
			m.write("config/weather", with(update, test.remedy))
		})
	}
}

func TestFaultyIssuersAndFlagsAreRefused(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	for _, test := range []struct {
		change fields
		says   string
	}{
		{fields{"issuer": "as.example.com"}, "issuer: must be absolute"},
		{fields{"issuer": "ftp://as.example.com"}, "issuer must start with https://"},
		{fields{"issuer": "https://münchen.example.com"}, "write a host name in other letters as xn--"},
		{fields{"issuer": "http://as.example.com"}, "issuer uses http to a host other than loopback"},
		{fields{"issuer": "https://as.example.com?a=b"}, "must not hold a query (RFC 8414 section 2)"},
		{fields{"issuer": "https://as.example.com/?"}, "must not hold a query"},
		{fields{"issuer": "https://as.example.com#a"}, "must not hold a fragment"},
		{fields{"issuer": "https://vault:p@as.example.com"}, "must not hold user information"},
		{fields{"issuer": "https://as.example.com/" + long(2048)}, "at most 2048"},
		{fields{"allow_private_addresses": "perhaps"}, "allow_private_addresses"},
		{fields{"allow_insecure_http": "perhaps"}, "allow_insecure_http"},
		{fields{"rediscover": "perhaps"}, "rediscover"},
		{fields{"extra_params": numberedPairs(101)}, "at most 100"},
	} {
		for _, base := range []fields{as.client(), {"client_id": "vault", "client_secret": secret}} {
			m.rejects("config/weather", with(base, with(test.change, fields{"server_url": "https://mcp.example.com"})), test.says)
			if base["token_url"] != nil && test.change["rediscover"] == nil {
				m.rejects("config/weather", with(base, with(test.change, fields{"verify": false})), test.says)
			}
			if test.change["issuer"] == nil {
				break // discovery does not use the field
			}
		}
	}
	equal(t, "the configs", m.list("config/"), nil)
	as.asked(t, 0, "after writes that are refused")
}

// Tools write keys in all these forms.
func TestWellFormedCredentialsAreAccepted(t *testing.T) {
	ec, ed := ecKey(t, elliptic.P384()), edKey(t)
	sec1 := must(x509.MarshalECPrivateKey(ec))(t)
	certificate := certificateOf(t, ec, time.Now().Add(longLife))
	for _, give := range []fields{
		{"private_key": encodePEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))},
		{"private_key": encodePEM("EC PRIVATE KEY", sec1)},
		{"private_key": pemOf(t, ed), "token_endpoint_auth_method": "private_key_jwt"},
		{"private_key": "  \n" + pemOf(t, rsaKey()) + "\n\n", "signing_alg": "PS256"},
		{"private_key": pemOf(t, ec), "certificate": certificate, "key_id": "a b/c?d", "publish_jwks": true},
		{"private_key": pemOf(t, ec), "assertion_audience": "Wetterdienst"},
		{"private_key": pemOf(t, ec), "issuer": "https://as.example.com/", "assertion_audience": "issuer"},
		{"client_certificate": certificate, "client_certificate_key": encodePEM("EC PRIVATE KEY", sec1)},
		{"client_certificate": certificate, "client_certificate_key": pemOf(t, ec), "token_endpoint_auth_method": "self_signed_tls_client_auth"},
		{"client_certificate": certificate + certificate, "client_certificate_key": pemOf(t, ec), "token_endpoint_auth_method": "tls_client_auth"},
	} {
		as, m := newAuthority(t).newServer(t, false), newMount(t)
		m.write("config/weather", with(with(as.endpoint(), give), fields{"verify": false}))
		as.asked(t, 0, "after a write with verify=false")
	}
}

func TestAConfigHoldsOneKindOfCredentials(t *testing.T) {
	as, kinds := newAuthority(t).newServer(t, false), credentialKinds(t)
	for _, has := range kinds {
		for _, gets := range kinds {
			if has.name == gets.name || has.field == "private_key" && gets.name == "plugin-made key" || has.name == "plugin-made key" && gets.field == "private_key" {
				continue // a signing key replaces another kind
			}
			t.Run(has.name+" and "+gets.name, func(t *testing.T) {
				m := newMount(t)
				m.write("config/weather", with(with(as.endpoint(), has.give), fields{"verify": false}))
				was := m.storage.entries(t)
				m.rejects("config/weather", with(gets.give, fields{"verify": false}),
					"one kind of credentials", "empty the others in the same write")
				m.rejects("config/maps", with(with(as.endpoint(), has.give), gets.give), "one kind of credentials")
				m.storage.unchanged(t, was)
			})
		}
	}
	as.asked(t, 0, "after writes that are refused")
}

// A config always has credentials.
func TestCredentialsCannotOnlyBeRemoved(t *testing.T) {
	as := newAuthority(t).newServer(t, false)
	for _, kind := range credentialKinds(t) {
		m := newMount(t)
		m.write("config/weather", with(with(as.endpoint(), kind.give), fields{"verify": false}))
		was := m.storage.entries(t)
		m.rejects("config/weather", kind.none, "client_secret is missing")
		m.storage.unchanged(t, was)
	}
	as.asked(t, 0, "after writes that are refused")
}

func TestKeyThatTheMetadataDoesNotName(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"token_endpoint_auth_methods_supported": []string{"client_secret_basic"}})
	client := fields{"server_url": mcp.url(), "client_id": "vault", "private_key": pemOf(t, edKey(t))}
	m.rejects("config/weather", client, "credentials are for private_key_jwt")
	as.asked(t, 0, "after the refused write")
	m.write("config/weather", with(client, fields{"token_endpoint_auth_method": "private_key_jwt"}))
	m.asserted(as.await(1))
}

func TestPluginMadeKeyThatTheServerCannotVerify(t *testing.T) {
	m, _, mcp := discoverable(t, fields{"token_endpoint_auth_signing_alg_values_supported": []string{"ES256"}})
	client := fields{"server_url": mcp.url(), "client_id": "vault", "key_type": "ed25519"}
	m.rejects("config/weather", client, "EdDSA", "names ES256")
	equal(t, "the configs", m.list("config/"), nil)
	m.write("config/weather", with(client, fields{"key_type": "ec-p256"}))
}

func TestPinnedHTTPEndpointNeedsThePermissionThatLetItIn(t *testing.T) {
	m, as, mcp := discoverable(t, nil)
	m.write("config/weather", with(mcp.client(), fields{"allow_insecure_http": true}))
	m.edit("weather", func(c *config) {
		c.Discovered.TokenURL = strings.Replace(as.URL, "127.0.0.1", "as.example.com", 1) + "/token"
	})
	m.rejects("config/weather",
		fields{"allow_insecure_http": false, "client_secret": secret, "verify": false}, "uses http", "rediscover=true")
}
