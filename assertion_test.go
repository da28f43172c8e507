package mcpoauth

import (
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

// assertion is a client assertion (RFC 7523 section 3) as it arrived.
type assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"` // an array would not decode
	ID       string `json:"jti"`
	Expires  int64  `json:"exp"`

	header jose.Header
}

// asserted checks the assertion of a token request with the keys of keys/weather, and
// gives it.
func (m *mount) asserted(request tokenRequest) assertion {
	m.t.Helper()
	if got := request.form.Get("client_assertion_type"); got != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		m.t.Errorf("the assertion's type is %q", got)
	}
	if request.clientSecret != "" || request.form.Has("client_secret") {
		m.t.Error("a secret came beside the assertion")
	}
	data, err := json.Marshal(m.read("keys/weather"))
	if err != nil {
		m.t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data, &set); err != nil {
		m.t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(request.form.Get("client_assertion"),
		[]jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA})
	if err != nil {
		m.t.Fatal(err)
	}
	a := assertion{header: signed.Signatures[0].Protected}
	keys := set.Key(a.header.KeyID)
	if len(keys) != 1 {
		m.t.Fatalf("keys/weather holds %d keys named %q", len(keys), a.header.KeyID)
	}
	if keys[0].Algorithm != a.header.Algorithm {
		m.t.Errorf("the assertion is signed with %s, by a key published for %s", a.header.Algorithm, keys[0].Algorithm)
	}
	payload, err := signed.Verify(keys[0])
	if err != nil {
		m.t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &a); err != nil {
		m.t.Fatal(err)
	}
	if left := time.Until(time.Unix(a.Expires, 0)); left <= 0 || left > time.Minute {
		m.t.Errorf("the assertion is good for %s", left)
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
			if a.Issuer != "vault" || a.Subject != "vault" || a.Audience != as.URL+"/token" || len(a.ID) < 22 {
				t.Errorf("the assertion is %+v", a)
			}
			if test.kid == "" {
				thumbprint, err := (&jose.JSONWebKey{Key: test.key.Public()}).Thumbprint(crypto.SHA256)
				if err != nil {
					t.Fatal(err)
				}
				test.kid = base64.RawURLEncoding.EncodeToString(thumbprint)
			}
			if a.header.Algorithm != test.alg || a.header.KeyID != test.kid || a.header.ExtraHeaders[jose.HeaderType] != "JWT" {
				t.Errorf("the header is %+v", a.header)
			}
			wanted := any(nil)
			if text, ok := test.more["certificate"].(string); ok {
				block, _ := pem.Decode([]byte(text))
				sum := sha256.Sum256(block.Bytes)
				wanted = base64.RawURLEncoding.EncodeToString(sum[:])
			}
			if got := a.header.ExtraHeaders["x5t#S256"]; got != wanted {
				t.Errorf("x5t#S256 is %v; want %v", got, wanted)
			}
			if got := m.read("keys/weather")["active_key_id"]; got != test.kid {
				t.Errorf("active_key_id is %v; want %q", got, test.kid)
			}
		})
	}
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
			if got, want := m.asserted(as.await(1)).Audience, test.audience(as); got != want {
				t.Errorf("aud is %q; want %q", got, want)
			}
		})
	}
}

// From the MCP server's URL alone: its authorization server's issuer is the audience.
func TestAssertionForADiscoveredServer(t *testing.T) {
	m, as, mcp := discoverable(t, fields{
		"token_endpoint_auth_methods_supported":            []string{"private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": []string{"PS256", "ES256"},
	})
	m.write("config/weather", fields{"server_url": mcp.url(), "client_id": "vault", "private_key": pemOf(t, rsaKey())})
	if a := m.asserted(as.await(1)); a.Audience != as.URL || a.header.Algorithm != "PS256" {
		t.Errorf("the assertion is %+v", a)
	}
}

// Replays are refused.
func TestEveryAttemptHasAFreshAssertion(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"private_key": pemOf(t, edKey(t))}))
	m.write("role/weather/reader", fields{"scopes": "read"})
	m.write("config/weather", fields{"audience": "weather"})
	seen := map[string]bool{}
	for n := 1; n <= 3; n++ {
		seen[m.asserted(as.await(n)).ID] = true
	}
	if len(seen) != 3 {
		t.Errorf("3 requests had %d different jti", len(seen))
	}
}

func TestKeyIDMayChangeWithoutTheKey(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"private_key": pemOf(t, edKey(t))}))
	thumbprint := m.read("keys/weather")["active_key_id"]
	m.write("config/weather", fields{"key_id": "named"})
	if got := m.asserted(as.await(2)).header.KeyID; got != "named" {
		t.Errorf("kid is %q", got)
	}
	m.write("config/weather", fields{"key_id": ""})
	if got := m.read("keys/weather")["active_key_id"]; got != thumbprint {
		t.Errorf("kid is %q; want the thumbprint again", got)
	}
}

// Moving to a server that wants another algorithm: what the old one wanted is no matter.
func TestKeyForAnotherServersAlgorithm(t *testing.T) {
	m, as, mcp := discoverable(t, fields{"token_endpoint_auth_signing_alg_values_supported": []string{"RS256"}})
	m.write("config/weather", fields{"server_url": mcp.url(), "client_id": "vault", "private_key": pemOf(t, rsaKey())})
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"private_key": pemOf(t, edKey(t))},
		"signs with EdDSA", "names RS256")
	as.asked(t, 1, "after a key that the server does not know")
	as.describes(fields{"token_endpoint_auth_signing_alg_values_supported": []string{"EdDSA"}})
	m.write("config/weather", fields{"private_key": pemOf(t, edKey(t)), "rediscover": true})
	other := newAuthServer(t)
	m.write("config/weather", fields{"token_url": other.URL + "/token", "private_key": pemOf(t, ecKey(t, elliptic.P256()))})
	if got := m.asserted(other.await(1)).header.Algorithm; got != "ES256" {
		t.Errorf("the algorithm is %s", got)
	}
}

// A private key is in no answer, error or log, in none of its forms.
func TestPrivateKeysStayInside(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	as.answers(func(r tokenRequest) (int, fields) {
		return 400, fields{"error": "invalid_client", "error_description": "of " + r.form.Get("client_assertion")}
	})
	given := pemOf(t, ecKey(t, elliptic.P256()))
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(as.endpoint(), fields{"private_key": given}), "invalid_client")
	m.write("config/weather", with(as.endpoint(), fields{"private_key": given, "verify": false}))
	m.write("config/maps", with(as.endpoint(), fields{"key_type": "ec-p256", "publish_jwks": true}))
	made := m.config("maps")
	var secrets []string
	for _, text := range []string{given, made.Keys[0].PEM} {
		block, _ := pem.Decode([]byte(text))
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		private, err := (&jose.JSONWebKey{Key: key}).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
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
			data, err := json.Marshal(m.read(path + name))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = m.Write(data)
		}
	}
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"private_key": given[:100]}, "private_key")
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range secrets {
		if strings.Contains(m.said.String(), s) {
			t.Error("something that was said holds a private key")
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
		if got := as.count() > 1; got != test.asks {
			t.Errorf("%v asks: %t; want %t", slices.Sorted(maps.Keys(test.change)), got, test.asks)
		}
		m.holds("weather", fmt.Sprintf("t0ken-%d", as.count()))
	}
}

// However a key came to be damaged in storage, it is told and not quoted.
func TestDamagedKeyInStorage(t *testing.T) {
	as, m := newAuthority(t).newServer(t, false), newMount(t)
	for name, kind := range map[string]credentialKind{"maps": credentialKinds(t)[1], "weather": credentialKinds(t)[3]} {
		m.write("config/"+name, with(with(as.endpoint(), kind.give), fields{"verify": false}))
		c, err := m.store().config(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if c.ClientCertificateKey = secret; len(c.Keys) > 0 {
			c.Keys[0].PEM = secret
		}
		if err := m.store().putConfig(t.Context(), name, c); err != nil {
			t.Fatal(err)
		}
		m.refused(http.StatusBadGateway, logical.ReadOperation, "token/"+name, nil, "key")
		m.read("status/" + name)
		m.read("config/" + name)
	}
	m.refused(http.StatusInternalServerError, logical.ReadOperation, "keys/maps", nil, "private_key")
	as.asked(t, 0, "with damaged keys")
}

// The algorithm is the operator's, or the first of the key's that the server names.
func TestAlgorithmOfAKey(t *testing.T) {
	stored, err := storedKey(mustParse(t, pemOf(t, rsaKey())), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		asked string
		named []string
		want  string // empty: none fits
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

func mustParse(t *testing.T, text string) *grant.Key {
	t.Helper()
	key, err := grant.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// What servers demand of an assertion beyond RFC 7523, and how each is undone.
func TestWhatAnAssertionSays(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "named by its JWK", Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	thumbprint, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	as, m := newAuthServer(t), newMount(t)
	own := base64.RawURLEncoding.EncodeToString(thumbprint)
	for n, step := range []struct {
		write    fields
		typ, kid string // kid "": none
		claims   fields
		read     any // key_id of the config, as it is read
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
			data, err := base64.RawURLEncoding.DecodeString(parts[i])
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, into); err != nil {
				t.Fatal(err)
			}
		}
		kid, _ := header["kid"].(string)
		if header["typ"] != step.typ || kid != step.kid {
			t.Errorf("after %v the header is %v", slices.Sorted(maps.Keys(step.write)), header)
		}
		for _, own := range []string{"iss", "sub", "aud", "jti", "iat", "nbf", "exp"} {
			delete(claims, own)
		}
		if want := step.claims; len(claims) != len(want) || len(want) > 0 && fmt.Sprint(claims) != fmt.Sprint(want) {
			t.Errorf("after %v the further claims are %v; want %v", slices.Sorted(maps.Keys(step.write)), claims, want)
		}
		if got := m.read("config/weather")["key_id"]; got != step.read {
			t.Errorf("after %v key_id reads %v; want %v", slices.Sorted(maps.Keys(step.write)), got, step.read)
		}
		was := m.storage.entries(t)
		m.write("config/weather", m.read("config/weather"))
		m.storage.unchanged(t, was)
	}
}

// An empty key_id of a client with a secret is none, and does not wait for a key.
func TestEmptyKeyIDWithoutAKey(t *testing.T) {
	as, m := newAuthServer(t), newMount(t)
	m.write("config/weather", with(as.client(), fields{"key_id": ""}))
	m.write("config/weather", fields{"client_secret": "", "private_key": pemOf(t, ecKey(t, elliptic.P256()))})
	if a := m.asserted(as.await(2)); a.header.KeyID == "" {
		t.Errorf("the header is %+v", a.header)
	}
}
