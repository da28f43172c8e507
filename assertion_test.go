package mcpoauth

import (
	"cmp"
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-plugin-mcp-oauth/vault-plugin-mcp-oauth/internal/grant"
)

// assertion is a client assertion (RFC 7523 section 3) in a token request.
type assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"` // an array does not decode into a string
	ID       string `json:"jti"`
	Expires  int64  `json:"exp"`

	header jose.Header
}

// asserted verifies the assertion of a token request with the keys of keys/weather, and returns it.
func (m *mount) asserted(request tokenRequest) assertion {
	m.t.Helper()
	equal(m.t, "the assertion's type", request.form.Get("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	if request.clientSecret != "" || request.form.Has("client_secret") {
		m.t.Error("a secret was sent with the assertion")
	}
	var a assertion
	a.header = verifyJWT(m.t, must(json.Marshal(m.read("keys/weather")))(m.t), request.form.Get("client_assertion"), &a)
	if left := time.Until(time.Unix(a.Expires, 0)); left <= 0 || left > time.Minute {
		m.t.Errorf("the assertion is valid for %s", left)
	}
	return a
}

func TestAssertionOfTheOperatorsKey(t *testing.T) {
	p384 := ecKey(t, elliptic.P384())
	for _, test := range []struct {
		name string
		key  crypto.Signer
		more fields
		alg  string
		kid  string // empty: the thumbprint
	}{
		{"RSA", rsaKey(), nil, "RS256", ""},
		{"RSA with PS256", rsaKey(), fields{"signing_alg": "PS256"}, "PS256", ""},
		{"P-256", ecKey(t, elliptic.P256()), nil, "ES256", ""},
		{"P-384", p384, fields{"key_id": "key 7"}, "ES384", "key 7"},
		{"Ed25519", edKey(t), nil, "EdDSA", ""},
		{"with its certificate", p384, fields{"certificate": certificateOf(t, p384, time.Now().Add(time.Hour))}, "ES384", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			m.write("config/weather", with(with(as.endpoint(), fields{"private_key": pemOf(t, test.key)}), test.more))
			a := m.asserted(as.await(1))
			equal(t, "iss, sub and aud", []string{a.Issuer, a.Subject, a.Audience}, []string{"vault", "vault", as.URL + "/token"})
			equal(t, "a long jti", len(a.ID) >= 22, true)
			if test.kid == "" {
				test.kid = thumbprintOf(t, test.key)
			}
			equal(t, "alg, kid and typ", []any{a.header.Algorithm, a.header.KeyID, a.header.ExtraHeaders[jose.HeaderType]},
				[]any{test.alg, test.kid, "JWT"})
			wanted := any(nil)
			if text, ok := test.more["certificate"].(string); ok {
				block, _ := pem.Decode([]byte(text))
				sum := sha256.Sum256(block.Bytes)
				wanted = base64.RawURLEncoding.EncodeToString(sum[:])
			}
			equal(t, "x5t#S256", a.header.ExtraHeaders["x5t#S256"], wanted)
			equal(t, "active_key_id", m.read("keys/weather")["active_key_id"], test.kid)
		})
	}
}

func thumbprintOf(t *testing.T, key crypto.Signer) string {
	t.Helper()
	return base64.RawURLEncoding.EncodeToString(must((&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256))(t))
}

func TestAudienceOfAssertions(t *testing.T) {
	const literal = "https://tenant.example.com/"
	for _, test := range []struct {
		name     string
		config   func(as *authServer) fields
		audience func(as *authServer) string
	}{
		{"token_url", func(*authServer) fields { return nil }, func(as *authServer) string { return as.URL + "/token" }},
		{"issuer beside token_url", func(*authServer) fields { return fields{"issuer": literal} }, func(*authServer) string { return literal }},
		{"issuer, said", func(*authServer) fields { return fields{"issuer": literal, "assertion_audience": "issuer"} }, func(*authServer) string { return literal }},
		{"token endpoint, said", func(*authServer) fields { return fields{"issuer": literal, "assertion_audience": "token_endpoint"} }, func(as *authServer) string { return as.URL + "/token" }},
		{"literal", func(*authServer) fields { return fields{"assertion_audience": literal} }, func(*authServer) string { return literal }},
		{"discovered", func(as *authServer) fields { return fields{"token_url": "", "issuer": as.URL} }, func(as *authServer) string { return as.URL }},
		{"discovered, token endpoint said", func(as *authServer) fields {
			return fields{"token_url": "", "issuer": as.URL, "assertion_audience": "token_endpoint"}
		}, func(as *authServer) string { return as.URL + "/token" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			as, m := newAuthServer(t), newMount(t)
			as.describes(nil)
			m.write("config/weather", with(with(as.endpoint(), fields{"private_key": pemOf(t, edKey(t))}), test.config(as)))
			equal(t, "aud", m.asserted(as.await(1)).Audience, test.audience(as))
		})
	}
}

// The audience is the issuer that discovery finds from the MCP server's URL.
func TestAssertionForADiscoveredServer(t *testing.T) {
	m, as, mcp := discoverable(t, fields{
		"token_endpoint_auth_methods_supported":            []string{"private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": []string{"PS256", "ES256"},
	})
	m.write("config/weather", fields{"server_url": mcp.url(), "client_id": "vault", "private_key": pemOf(t, rsaKey())})
	a := m.asserted(as.await(1))
	equal(t, "aud and alg", a.Audience+" "+a.header.Algorithm, as.URL+" PS256")
}

// Authorization servers refuse replays.
func TestEveryAttemptHasAFreshAssertion(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"private_key": pemOf(t, edKey(t))}))
	m.write("role/weather/reader", fields{"scopes": "read"})
	m.write("config/weather", fields{"audience": "weather"})
	seen := map[string]bool{}
	for n := range 3 {
		seen[m.asserted(as.await(n+1)).ID] = true
	}
	equal(t, "different jti in 3 requests", len(seen), 3)
}

// A key for another server ignores the algorithms of the old server.
func TestKeyForAnotherServersAlgorithm(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"token_endpoint_auth_signing_alg_values_supported": []string{"RS256"}})
	m.write("config/weather", fields{"server_url": mcp.url(), "client_id": "vault", "private_key": pemOf(t, rsaKey())})
	m.rejects("config/weather", fields{"private_key": pemOf(t, edKey(t))}, "signs with EdDSA", "names RS256")
	as.asked(t, 1, "after a key that the server does not know")
	as.describes(fields{"token_endpoint_auth_signing_alg_values_supported": []string{"EdDSA"}})
	m.write("config/weather", fields{"private_key": pemOf(t, edKey(t)), "rediscover": true})
	other := newAuthServer(t)
	m.write("config/weather", fields{"token_url": other.URL + "/token", "private_key": pemOf(t, ecKey(t, elliptic.P256()))})
	equal(t, "the algorithm", m.asserted(other.await(1)).header.Algorithm, "ES256")
}

// Private keys, in any form, are kept out of answers, errors and logs.
func TestPrivateKeysStayInside(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.answers(func(r tokenRequest) (int, fields) {
		return 400, fields{"error": "invalid_client", "error_description": "of " + r.form.Get("client_assertion")}
	})
	given := pemOf(t, ecKey(t, elliptic.P256()))
	m.rejects("config/weather", with(as.endpoint(), fields{"private_key": given}), "invalid_client")
	m.write("config/weather", with(as.endpoint(), fields{"private_key": given, "verify": false}))
	m.write("config/maps", with(as.endpoint(), fields{"key_type": "ec-p256", "publish_jwks": true}))
	made := m.config("maps")
	var secrets []string
	for _, text := range []string{given, made.Keys[0].PEM} {
		block, _ := pem.Decode([]byte(text))
		private := must(json.Marshal(jose.JSONWebKey{Key: must(x509.ParsePKCS8PrivateKey(block.Bytes))(t)}))(t)
		var jwk struct{ D string }
		if err := json.Unmarshal(private, &jwk); err != nil || jwk.D == "" {
			t.Fatalf("%v", err)
		}
		lines := strings.Split(text, "\n")
		secrets = append(secrets, lines[1], lines[2], jwk.D)
	}
	for _, name := range []string{"weather", "maps"} {
		m.refused(http.StatusBadRequest, logical.ReadOperation, "token/"+name, nil, "invalid_client")
		for _, path := range []string{"config/", "keys/", "status/"} {
			_, _ = m.Write(must(json.Marshal(m.read(path + name)))(t))
		}
	}
	m.rejects("config/weather", fields{"private_key": given[:100]}, "private_key")
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range secrets {
		if strings.Contains(m.said.String(), s) {
			t.Error("an error, an answer or a log line holds a private key")
		}
	}
}

func TestWhichFieldsOfAKeyAskTheAuthorizationServer(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	for _, test := range []struct {
		change fields
		asks   bool
	}{
		{fields{"private_key": pemOf(t, key)}, false},
		{fields{"publish_jwks": true}, false},
		{fields{"token_endpoint_auth_method": "private_key_jwt"}, false},
		{fields{"key_id": "named"}, true},
		{fields{"certificate": certificateOf(t, key, time.Now().Add(time.Hour))}, true},
		{fields{"private_key": pemOf(t, edKey(t))}, true},
		{fields{"private_key": pemOf(t, key), "assertion_audience": "https://as.example.com"}, true},
	} {
		as, m := newAuthServer(t), newMount(t)
		m.write("config/weather", with(as.endpoint(), fields{"private_key": pemOf(t, key)}))
		m.write("config/weather", test.change)
		equal(t, fmt.Sprint("a request after ", slices.Sorted(maps.Keys(test.change))), as.count() > 1, test.asks)
		m.holds("weather", fmt.Sprintf("t0ken-%d", as.count()))
	}
}

// The error names a key that is damaged in storage, and does not quote it.
func TestDamagedKeyInStorage(t *testing.T) {
	as, m := newAuthority(t).newServer(t, false), newMount(t)
	for name, kind := range map[string]credentialKind{"maps": credentialKinds(t)[1], "weather": credentialKinds(t)[3]} {
		m.write("config/"+name, with(with(as.endpoint(), kind.give), fields{"verify": false}))
		m.edit(name, func(c *config) {
			if c.ClientCertificateKey = secret; len(c.Keys) > 0 {
				c.Keys[0].PEM = secret
			}
		})
		m.refused(http.StatusBadGateway, logical.ReadOperation, "token/"+name, nil, "key")
		m.read("status/" + name)
		m.read("config/" + name)
	}
	m.refused(http.StatusInternalServerError, logical.ReadOperation, "keys/maps", nil, "private_key")
	as.asked(t, 0, "with damaged keys")
}

// The algorithm is the operator's choice, or else the first algorithm of the key that the server supports.
func TestAlgorithmOfAKey(t *testing.T) {
	stored := must(storedKey(must(grant.ParseKey(pemOf(t, rsaKey())))(t), time.Time{}))(t)
	for _, test := range []struct {
		asked string
		named []string
		want  string // empty: no algorithm fits
	}{
		{"", nil, "RS256"},
		{"PS256", nil, "PS256"},
		{"", []string{"ES256", "PS256"}, "PS256"},
		{"RS256", []string{"PS256"}, "RS256"},
		{"", []string{"ES256"}, ""},
		{"ES256", nil, ""},
	} {
		c := &config{SigningAlg: test.asked, Discovered: &discovered{SigningAlgs: test.named}, Keys: keyRing{stored}}
		key, err := c.key(stored)
		if (err == nil) != (test.want != "") || err == nil && key.Alg != test.want {
			t.Errorf("asked %q, named %q: %v, %v; want %q", test.asked, test.named, key, err, test.want)
		}
	}
	if _, err := (&config{}).key(signingKey{ID: "a", PEM: "damaged"}); err == nil {
		t.Error("a damaged key was parsed")
	}
}

// Some servers demand more of an assertion than RFC 7523. An operator can meet each demand, and undo it.
func TestClaimsAndHeaderOfAnAssertion(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	jwk := must(json.Marshal(jose.JSONWebKey{Key: key, KeyID: "named by its JWK", Algorithm: "ES256"}))(t)
	as, m, own := newAuthServer(t), newMount(t), thumbprintOf(t, key)
	for n, step := range []struct {
		write    fields
		typ, kid string // kid empty: no kid
		claims   fields
		read     any // key_id as the config's read shows it
	}{
		{with(as.endpoint(), fields{"private_key": pemOf(t, key)}), "JWT", own, nil, nil},
		{fields{"key_id": ""}, "JWT", "", nil, ""},
		{fields{"assertion_type": "client-authentication+jwt"}, "client-authentication+jwt", "", nil, ""},
		{fields{"key_id": "a name"}, "client-authentication+jwt", "a name", nil, "a name"},
		{fields{"key_id": "thumbprint", "assertion_type": ""}, "JWT", own, nil, nil},
		{fields{"assertion_claims": "tenant=north"}, "JWT", own, fields{"tenant": "north"}, nil},
		{fields{"assertion_claims": []string{"tenant=north", "b=c=d"}}, "JWT", own, fields{"tenant": "north", "b": "c=d"}, nil},
		{fields{"assertion_claims": `{"level":3,"roles":["a"]}`}, "JWT", own, fields{"level": 3.0, "roles": []any{"a"}}, nil},
		{fields{"assertion_claims": fields{"nested": fields{"a": nil}}}, "JWT", own, fields{"nested": fields{"a": nil}}, nil},
		{fields{"assertion_claims": ""}, "JWT", own, nil, nil},
		{fields{"private_key": string(jwk)}, "JWT", "named by its JWK", nil, "named by its JWK"},
		{fields{"scopes": "a"}, "JWT", "named by its JWK", nil, "named by its JWK"},
		{fields{"private_key": string(jwk), "key_id": "mine"}, "JWT", "mine", nil, "mine"},
	} {
		m.write("config/weather", step.write)
		parts := strings.Split(as.await(n+1).form.Get("client_assertion"), ".")
		var header, claims fields
		for i, into := range []*fields{&header, &claims} {
			noError(t, json.Unmarshal(must(base64.RawURLEncoding.DecodeString(parts[i]))(t), into))
		}
		kid, _ := header["kid"].(string)
		equal(t, fmt.Sprint("typ and kid after ", slices.Sorted(maps.Keys(step.write))), []any{header["typ"], kid}, []any{step.typ, step.kid})
		for _, own := range []string{"iss", "sub", "aud", "jti", "iat", "nbf", "exp"} {
			delete(claims, own)
		}
		equal(t, fmt.Sprint("further claims after ", slices.Sorted(maps.Keys(step.write))), claims, step.claims)
		equal(t, "the active key", m.read("keys/weather")["active_key_id"], cmp.Or(step.kid, own))
		shows(t, m.read("config/weather"), fields{"key_id": step.read})
		was := m.storage.entries(t)
		m.write("config/weather", m.read("config/weather"))
		m.storage.unchanged(t, was)
	}
}

// An empty key_id of a client with a secret has no effect on a later key.
func TestEmptyKeyIDWithoutAKey(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"key_id": ""}))
	m.write("config/weather", fields{"client_secret": "", "private_key": pemOf(t, ecKey(t, elliptic.P256()))})
	if a := m.asserted(as.await(2)); a.header.KeyID == "" {
		t.Errorf("the header is %+v", a.header)
	}
}
