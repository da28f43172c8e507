package mcpoauth

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

const publicURL = "https://vault.example.com/v1/mcp-oauth"

// newIssuerMount is a mount whose public URL is set.
func newIssuerMount(t *testing.T) *mount {
	t.Helper()
	m := newMount(t)
	m.write("settings", fields{"public_url": publicURL})
	return m
}

// public reads a published document, as an authorization server does.
func (m *mount) public(path string) (document fields) {
	m.t.Helper()
	body, cache := m.raw(path, "application/json")
	equal(m.t, "Cache-Control", cache, "private, max-age=300")
	noError(m.t, json.Unmarshal(body, &document))
	return document
}

// pathOf returns the path of a URL in the mount.
func pathOf(t *testing.T, url any) string {
	t.Helper()
	text, _ := url.(string)
	path, ok := strings.CutPrefix(text, publicURL+"/")
	if !ok {
		t.Fatalf("%v is not a URL of the mount", url)
	}
	return path
}

// claimsOf verifies a JWT with the keys at a path of the mount, and returns its header and claims.
func (m *mount) claimsOf(path, token string) (header jose.Header, claims fields) {
	m.t.Helper()
	set, _ := m.raw(path, "application/json")
	header = verifyJWT(m.t, set, token, &claims)
	return header, claims
}

// verifyJWT verifies a JWT with the key from a JWK Set that the JWT's header names, and decodes its claims.
func verifyJWT(t *testing.T, set []byte, token string, claims any) jose.Header {
	t.Helper()
	var keySet jose.JSONWebKeySet
	noError(t, json.Unmarshal(set, &keySet))
	signed := must(jose.ParseSignedCompact(token, signingAlgorithms))(t)
	header := signed.Signatures[0].Protected
	keys := keySet.Key(header.KeyID)
	if len(keys) != 1 {
		t.Fatalf("%d keys are named %q", len(keys), header.KeyID)
	}
	equal(t, "the algorithm of the signature", header.Algorithm, keys[0].Algorithm)
	noError(t, json.Unmarshal(must(signed.Verify(keys[0]))(t), claims))
	return header
}

var signingAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA}

// lifetimeOf returns the lifetime of an assertion in seconds.
func lifetimeOf(claims fields) float64 { return claims["exp"].(float64) - claims["iat"].(float64) }

// The mount is the issuer of client assertions, and their subject identifies the client.
func TestIdentityIssuer(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	endpoint := as.URL + "/token"
	warnings := m.write("config/weather", fields{"token_url": endpoint, "identity": "issuer", "assertion_audience": "api://AzureADTokenExchange"})
	as.asked(t, 0, "before the issuer can be trusted")
	shown := m.read("keys/weather")
	issuer := shown["issuer"].(string)
	contains(t, "the issuer", issuer, publicURL+"/issuer/weather-")
	shows(t, shown, fields{
		"subject": "weather", "audience": "api://AzureADTokenExchange",
		"jwks_uri": issuer + "/jwks", "jwks_path": pathOf(t, issuer) + "/jwks",
	})
	contains(t, "the warnings", strings.Join(warnings, "\n"), issuer+",", `"weather"`, `"api://AzureADTokenExchange"`,
		"refresh/weather")

	metadata := m.public(pathOf(t, issuer) + "/.well-known/openid-configuration")
	sameFields(t, metadata, fields{
		"issuer": issuer, "jwks_uri": issuer + "/jwks", "response_types_supported": []any{"id_token"},
		"subject_types_supported": []any{"public"}, "id_token_signing_alg_values_supported": []any{"RS256"},
	})

	m.token("weather")
	form := as.await(1).form
	if form.Has("client_id") || form.Get("grant_type") != "client_credentials" || form.Has("assertion") || as.await(1).header.Get("Authorization") != "" {
		t.Errorf("the request is %v", slices.Sorted(maps.Keys(form)))
	}
	header, claims := m.claimsOf(pathOf(t, metadata["jwks_uri"]), form.Get("client_assertion"))
	equal(t, "alg and typ", []any{header.Algorithm, header.ExtraHeaders[jose.HeaderType]}, []any{"RS256", "JWT"})
	if claims["iss"] != issuer || claims["sub"] != "weather" || claims["aud"] != "api://AzureADTokenExchange" ||
		len(claims["jti"].(string)) < 22 || lifetimeOf(claims) != 60 {
		t.Errorf("the claims are %v", claims)
	}

	m.write("config/weather", fields{"client_id": "app", "assertion_ttl": "10m"})
	form = as.await(2).form
	equal(t, "client_id", form.Get("client_id"), "app")
	again, claims := m.claimsOf(pathOf(t, metadata["jwks_uri"]), form.Get("client_assertion"))
	equal(t, "kid and lifetime", []any{again.KeyID, lifetimeOf(claims)}, []any{header.KeyID, 600.0})
}

// The assertion is the grant itself (RFC 7523 section 2.1).
func TestGrantJWTBearer(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	base := fields{
		"token_url": as.URL + "/token", "identity": "issuer", "grant": "jwt_bearer", "assertion_subject": "agent-7",
		"resource": "https://weather.example.com/mcp", "scopes": "a b",
	}
	const bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	for n, test := range []struct {
		write         fields
		id, secret    string // in the Authorization header
		params        []string
		audience      string
		lifetime      float64
		authenticates string
	}{
		{nil, "", "", nil, as.URL + "/token", 300, "none"},
		{fields{"issuer": as.URL, "key_type": "rsa-2048"}, "", "", nil, as.URL + "/token", 300, "none"},
		{fields{"assertion_audience": "issuer", "assertion_ttl": 30, "key_type": "ec-p256"}, "", "", nil, as.URL, 30, "none"},
		{fields{"client_id": "app"}, "", "", []string{"client_id"}, as.URL, 30, "none"},
		{fields{"client_secret": secret}, "app", secret, nil, as.URL, 30, "client_secret_basic"},
		{fields{"token_endpoint_auth_method": "client_secret_post"}, "", "", []string{"client_id", "client_secret"}, as.URL, 30, "client_secret_post"},
	} {
		m.write("config/weather", with(base, test.write))
		base = fields{}
		m.refresh("weather", nil)
		if as.count() < n+1 {
			m.token("weather")
		}
		request := as.await(n + 1)
		form := request.form
		want := slices.Sorted(slices.Values(append([]string{"assertion", "grant_type", "resource", "scope"}, test.params...)))
		equal(t, "the parameters", slices.Sorted(maps.Keys(form)), want)
		equal(t, "the resource", form["resource"], []string{"https://weather.example.com/mcp"})
		equal(t, "the grant and credentials", []string{form.Get("grant_type"), request.clientID, request.clientSecret},
			[]string{bearer, test.id, test.secret})
		shown := m.read("keys/weather")
		_, claims := m.claimsOf(shown["jwks_path"].(string), form.Get("assertion"))
		shows(t, claims, fields{"iss": shown["issuer"], "sub": "agent-7", "aud": test.audience})
		equal(t, "the audience shown", shown["audience"], test.audience)
		equal(t, "the lifetime", lifetimeOf(claims), test.lifetime)
		shows(t, m.read("status/weather"), fields{"token_endpoint_auth_method": test.authenticates})
	}
}

// The server's error is returned after one request, with the assertion's issuer and subject.
func TestRefusedGrantIsNotRetried(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	as.answers(refusing(http.StatusBadRequest, "invalid_grant"))
	m.write("config/weather", fields{
		"token_url": as.URL + "/token", "identity": "issuer", "grant": "jwt_bearer", "resource": "https://weather.example.com/mcp",
	})
	issuer := m.read("keys/weather")["issuer"].(string)
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather", nil, "invalid_grant", "said the server", "iss \""+issuer+"\"", `sub "weather"`, "assertion_subject=")
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather", nil, "invalid_grant")
	as.asked(t, 1, "after two reads")
}

// The client's id is the URL of its description.
func TestIdentityDocument(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	as.describes(nil)
	warnings := m.write("config/weather", fields{"issuer": as.URL, "identity": "document"})
	shown := m.read("keys/weather")
	url := shown["document_url"].(string)
	contains(t, "the document's URL", url, publicURL+"/client/weather-")
	shows(t, shown, fields{"audience": as.URL, "issuer": nil, "subject": nil})
	contains(t, "the warnings", strings.Join(warnings, "\n"), url)
	id := strings.TrimPrefix(url, publicURL+"/client/")
	sameFields(t, m.public(pathOf(t, url)), fields{
		"client_id": url, "client_name": "weather", "redirect_uris": []any{url + "/none"}, "grant_types": []any{"client_credentials"},
		"response_types": []any{}, "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": publicURL + "/jwks/" + id,
	})
	m.token("weather")
	form := as.await(1).form
	_, claims := m.claimsOf("jwks/"+id, form.Get("client_assertion"))
	equal(t, "the client", form.Get("client_id"), url)
	shows(t, claims, fields{"iss": url, "sub": url, "aud": as.URL})
	equal(t, "client_id", m.read("config/weather")["client_id"], "")
	m.unpublished(id + "-none")
}

// Every path without a published document returns the same 404.
func TestPublicPathsAreTheSame404ForAllElse(t *testing.T) {
	m := newIssuerMount(t)
	base := fields{"token_url": "https://as.example.com/token", "issuer": "https://as.example.com"}
	m.write("config/a", with(base, fields{"identity": "issuer"}))
	m.write("config/b", with(base, fields{"identity": "document"}))
	m.write("config/c", made(nil))
	m.write("config/d", made(fields{"publish_jwks": false}))
	id := map[string]string{}
	for _, server := range []string{"a", "b", "c"} {
		_, id[server], _ = strings.Cut(strings.TrimSuffix(m.read("keys/" + server)["jwks_path"].(string), "/jwks"), "/")
	}
	for path, there := range map[string]bool{
		"issuer/" + id["a"] + "/jwks":                             true,
		"issuer/" + id["a"] + "/.well-known/openid-configuration": true,
		"jwks/" + id["a"]:                                         false,
		"client/" + id["a"]:                                       false,
		"client/" + id["b"]:                                       true,
		"jwks/" + id["b"]:                                         true,
		"issuer/" + id["b"] + "/jwks":                             false,
		"issuer/" + id["b"] + "/.well-known/openid-configuration": false,
		"jwks/" + id["c"]:                                         true,
		"client/" + id["c"]:                                       false,
		"issuer/" + id["c"] + "/jwks":                             false,
		"client/d":                                                false, "jwks/d": false, "issuer/d/jwks": false,
		"issuer/" + id["a"]: false, "issuer/": false, "client/": false, "jwks/": false,
		"issuer/" + id["a"] + "/.well-known/other":                 false,
		"issuer/" + id["a"] + "/.well-known/openid-configuration/": false,
		"client/" + id["b"] + "/none":                              false,
		"jwks/..":                                                  false, "jwks/absent": false,
		"issuer/a b/jwks":                false,
		"issuer/" + long(1000) + "/jwks": false,
	} {
		if there {
			m.public(path)
			continue
		}
		odd := fields{"client_secret": []string{"a"}}
		equal(t, path, m.refused(http.StatusNotFound, logical.ReadOperation, path, odd), "nothing is published here")
	}
}

// Callers without a Vault token must not be able to load Vault. Other nodes give the same answers.
func TestIdentitiesAreAnsweredFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		active := newIssuerMount(t)
		storage := active.storage
		base := fields{"token_url": "https://as.example.com/token", "issuer": "https://as.example.com"}
		active.write("config/a", with(base, fields{"identity": "issuer"}))
		active.write("config/b", with(base, fields{"identity": "document"}))
		paths := []string{
			pathOf(t, active.read("keys/a")["issuer"]) + "/.well-known/openid-configuration", active.read("keys/a")["jwks_path"].(string),
			pathOf(t, active.read("keys/b")["document_url"]), active.read("keys/b")["jwks_path"].(string),
		}
		standby := newNode(t, storage, consts.ReplicationPerformanceStandby)
		active.restart()
		synctest.Wait()
		before := storage.calls.Load()
		for _, path := range paths {
			for range 10 {
				sameFields(t, active.public(path), standby.public(path))
			}
		}
		equal(t, "storage calls by 80 requests", storage.calls.Load()-before, int64(0))
		active.delete("config/a")
		for _, path := range paths[:2] {
			active.missing(path, "nothing is published here")
		}
	})
}

func TestFaultyIdentities(t *testing.T) {
	key := pemOf(t, edKey(t))
	certificate, certificateKey := certificateAndKey(t)
	issuer := fields{"token_url": "https://as.example.com/token", "issuer": "https://as.example.com", "identity": "issuer", "resource": "https://a.example.com"}
	bearer, document := with(issuer, fields{"grant": "jwt_bearer"}), with(issuer, fields{"identity": "document"})
	static := with(issuer, fields{"identity": "static", "client_id": "vault", "client_secret": secret})
	m := newIssuerMount(t)
	was := m.storage.entries(t)
	for _, test := range []struct {
		base, change fields
		says         string
	}{
		{issuer, fields{"identity": "other"}, "write static, issuer or document"},
		{issuer, fields{"grant": "other"}, "write client_credentials or jwt_bearer"},
		// These are refused before a key is read or made.
		{issuer, fields{"identity": "other", "private_key": key}, "write static, issuer or document"},
		{issuer, fields{"identity": "other", "key_type": "other"}, "write static, issuer or document"},
		{issuer, fields{"grant": "other", "key_type": "other"}, "write client_credentials or jwt_bearer"},
		{issuer, fields{"token_url": "other", "key_type": "other"}, "token_url"},
		{issuer, fields{"assertion_ttl": "9s", "key_type": "other"}, "between 10s and 1h"},
		{static, fields{"token_endpoint_auth_method": "other", "client_secret": "", "key_type": "other"}, "token_endpoint_auth_method"},
		{static, fields{"client_id": "", "client_secret": "", "key_type": "other"}, "client_id is missing"},
		{static, fields{"grant": "jwt_bearer"}, "goes with identity=issuer"},
		{document, fields{"grant": "jwt_bearer"}, "goes with identity=issuer"},
		{static, fields{"assertion_subject": "a"}, "goes with identity=issuer"},
		{static, fields{"assertion_ttl": "2m"}, "assertion_ttl goes with a signing key"},
		{document, fields{"assertion_subject": "a"}, "goes with identity=issuer"},
		{issuer, fields{"assertion_subject": publicURL + "/issuer/weather-x"}, "must not be an issuer"},
		{issuer, fields{"assertion_subject": "a\nb"}, "printable"},
		{issuer, fields{"assertion_audience": "https://a.example.com https://b.example.com"}, "several audiences"},
		{issuer, fields{"assertion_audience": "https://a.example.com,https://b.example.com"}, "several audiences"},
		{bearer, fields{"assertion_audience": `["https://a.example.com","https://b.example.com"]`}, "several audiences"},
		{issuer, fields{"private_key": key}, "private_key does not go with identity=issuer"},
		{document, fields{"private_key": key}, "private_key does not go with identity=document"},
		{issuer, fields{"key_id": "named"}, "key_id"},
		{issuer, fields{"key_id": ""}, "key_id"},
		{issuer, fields{"certificate": "x"}, "certificate"},
		{issuer, fields{"publish_jwks": true}, "publish_jwks goes with identity=static"},
		{issuer, fields{"client_secret": secret}, "one kind of credentials"},
		{issuer, fields{"client_certificate": certificate, "client_certificate_key": certificateKey}, "one kind of credentials"},
		{issuer, fields{"token_endpoint_auth_method": "client_secret_post"}, "private_key_jwt"},
		{issuer, fields{"assertion_ttl": "9s"}, "between 10s and 1h"},
		{issuer, fields{"assertion_ttl": "61m"}, "between 10s and 1h"},
		{issuer, fields{"assertion_claims": fields{"iss": "a"}}, "iss"},
		{document, fields{"client_id": "vault"}, "client_id does not go with identity=document"},
		{document, fields{"issuer": ""}, "needs the issuer"},
		{bearer, fields{"resource": ""}, "exactly one resource, and this is for 0"},
		{bearer, fields{"resource": "https://a.example.com,https://b.example.com"}, "exactly one resource, and this is for 2"},
		{bearer, fields{"omit_resource": true, "resource": ""}, "exactly one resource"},
		{bearer, fields{"token_endpoint_auth_method": "private_key_jwt"}, "one key must not sign both"},
		{bearer, fields{"assertion_type": "client-authentication+jwt"}, "does not authenticate the client"},
		{bearer, fields{"client_secret": secret}, "client_id is missing"},
		{bearer, fields{"client_id": "a", "token_endpoint_auth_method": "client_secret_basic"}, "needs client_secret"},
		{bearer, fields{"client_id": "a", "client_secret": secret, "token_endpoint_auth_method": "tls_client_auth"}, "does not go with the credentials"},
		{bearer, fields{"client_id": "a", "client_secret": secret, "client_certificate": certificate, "client_certificate_key": certificateKey}, "one kind of credentials"},
		{bearer, fields{"client_id": "a", "client_secret": secret + "\n"}, "line break"},
		{bearer, fields{"client_id": "a:b", "client_secret": secret, "raw_basic_auth": true}, "raw_basic_auth"},
	} {
		m.rejects("config/weather", with(test.base, test.change), test.says)
	}
	m.storage.unchanged(t, was)
	unsettled := newMount(t)
	unsettled.rejects("config/weather", issuer, "settings public_url=")
	unsettled.rejects("config/weather", with(issuer, fields{"key_type": "other"}), "settings public_url=")

	m.write("config/weather", bearer)
	for _, resources := range []fields{{"resource": "https://a.example.com,https://b.example.com"}, {"omit_resource": true}} {
		m.rejects("role/weather/reader", with(resources, fields{"verify": false}), "exactly one resource")
	}
	m.write("role/weather/reader", fields{"resource": "https://b.example.com", "verify": false})
}

func TestIdentityRoundTrips(t *testing.T) {
	m := newIssuerMount(t)
	for _, written := range []fields{
		{"identity": "issuer", "grant": "jwt_bearer", "assertion_subject": "agent", "assertion_ttl": int64(299), "client_id": "app", "resource": []string{"https://a.example.com"}},
		{"identity": "issuer", "grant": "jwt_bearer", "assertion_ttl": int64(300), "resource": []string{"https://a.example.com"}},
		{"identity": "issuer", "grant": "client_credentials", "assertion_subject": "agent", "assertion_ttl": int64(3600)},
		{"identity": "document", "grant": "client_credentials", "assertion_ttl": int64(60)},
		{"identity": "static", "grant": "client_credentials", "assertion_ttl": int64(10), "client_id": "vault", "key_type": "rsa-2048"},
	} {
		m.write("config/weather", with(fields{"token_url": "https://as.example.com/token", "issuer": "https://as.example.com", "verify": false}, written))
		read := m.read("config/weather")
		shows(t, read, written)
		shown := m.read("keys/weather")
		m.write("config/weather", with(read, fields{"verify": false}))
		sameFields(t, m.read("config/weather"), read)
		sameFields(t, m.read("keys/weather"), shown)
		m.delete("config/weather")
	}
	// A default that a client read and wrote back still follows the grant.
	m.write("config/weather", fields{"token_url": "https://as.example.com/token", "identity": "issuer", "resource": "https://a.example.com"})
	m.write("config/weather", with(m.read("config/weather"), fields{"verify": false}))
	m.write("config/weather", fields{"grant": "jwt_bearer"})
	equal(t, "assertion_ttl", m.read("config/weather")["assertion_ttl"], int64(300))
}

// The URL that authorization servers trust changes exactly when its purpose does, so a key never signs for two
// purposes.
func TestURLOfAnIdentityChangesWithItsPurpose(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	trusted := func() any {
		shown := m.read("keys/weather")
		return []any{shown["issuer"], shown["document_url"], shown["jwks_path"]}[slices.Index([]bool{shown["issuer"] != nil, shown["document_url"] != nil, true}, true)]
	}
	endpoint := as.URL + "/token"
	for _, test := range []struct {
		change         fields
		url, key, asks bool
	}{
		{fields{"token_url": endpoint, "identity": "issuer", "resource": "https://a.example.com"}, true, true, false},
		{fields{"scopes": "a"}, false, false, true},
		{fields{"identity": "issuer"}, false, false, false},
		{fields{"client_id": "app", "assertion_ttl": "2m"}, false, false, true},
		{fields{"key_type": "ec-p256"}, false, true, false},
		{fields{"assertion_subject": "agent"}, true, false, false},
		{fields{"assertion_claims": "tenant=north"}, true, false, false},
		{fields{"token_url": endpoint + "/other", "key_type": "ec-p256"}, true, true, false},
		{fields{"assertion_audience": "https://a.example.com"}, true, false, false},
		{fields{"grant": "jwt_bearer"}, true, true, false},
		{fields{"grant": "client_credentials"}, true, true, false},
		{fields{"identity": "document", "client_id": "", "assertion_subject": ""}, true, true, false},
		{fields{"identity": "static", "client_id": "vault", "publish_jwks": true}, true, true, false},
		{fields{"identity": "issuer", "publish_jwks": false}, true, true, false},
	} {
		var before any
		var key any
		if m.list("config/") != nil {
			before, key = trusted(), m.read("keys/weather")["active_key_id"]
		}
		asked := as.count()
		m.write("config/weather", test.change)
		equal(t, fmt.Sprint("another URL after ", test.change), trusted() != before, test.url)
		equal(t, fmt.Sprint("another key after ", test.change), m.read("keys/weather")["active_key_id"] != key, test.key)
		equal(t, fmt.Sprint("a request after ", test.change), as.count() > asked, test.asks)
		if text, ok := before.(string); ok && test.url {
			path := strings.TrimPrefix(text, publicURL+"/")
			if strings.HasPrefix(path, issuerPrefix) {
				path += "/jwks"
			}
			m.missing(path, "nothing is published here")
		}
	}
	m.rejects("config/weather", fields{"token_url": "https://thief.example.com/token", "verify": false}, "must supply key_type (which makes a new key) too")
}

// If a thief's server receives an assertion, its issuer or client is not trusted by any other server.
func TestIdentityIsNotTrustedElsewhere(t *testing.T) {
	for _, base := range []fields{
		{"identity": "issuer", "assertion_subject": "agent"},
		{"identity": "issuer", "grant": "jwt_bearer", "resource": "https://a.example.com"},
		{"identity": "document"},
	} {
		as, thief, m := newAuthServer(t), newAuthServer(t), newIssuerMount(t)
		param := "client_assertion"
		if base["grant"] == "jwt_bearer" {
			param = "assertion"
		}
		m.write("config/weather", with(base, fields{"token_url": as.URL + "/token", "assertion_audience": as.URL}))
		m.token("weather")
		trusted := m.read("keys/weather")["jwks_path"].(string)
		if !m.accepts(trusted, as.URL, as.await(1).form.Get(param)) {
			t.Fatal("the client's own assertion is not accepted")
		}
		m.write("config/weather", fields{"token_url": thief.URL + "/token", "key_type": "rsa-2048"})
		m.refresh("weather", nil)
		caught := thief.await(1).form.Get(param)
		shown := m.read("keys/weather")["jwks_path"].(string)
		if !m.accepts(shown, as.URL, caught) || m.accepts(trusted, as.URL, caught) || shown == trusted {
			t.Errorf("%v: the caught assertion is trusted at %s", base, trusted)
		}
		_, claims := m.claimsOf(shown, caught)
		if id, _, _ := strings.Cut(strings.TrimPrefix(trusted, issuerPrefix), "/"); strings.Contains(claims["iss"].(string), id) {
			t.Errorf("%v: the caught assertion is from the trusted issuer %v", base, claims["iss"])
		}
	}
}

// An identity keeps its URL when settings change, until it is written again.
func TestIdentityKeepsItsURLWhenSettingsChange(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	m.write("config/weather", fields{"token_url": as.URL + "/token", "identity": "issuer"})
	shown := m.read("keys/weather")
	const other = "https://other.example.com/v1/mcp-oauth"
	warns(t, "other settings", m.write("settings", fields{"public_url": other}), "the identities of weather keep")
	m.write("config/weather", fields{"scopes": "a"})
	sameFields(t, m.read("keys/weather"), shown)
	_, claims := m.claimsOf(shown["jwks_path"].(string), as.await(1).form.Get("client_assertion"))
	equal(t, "the issuer", claims["iss"], shown["issuer"])
	m.write("config/weather", fields{"identity": "issuer"})
	if got := m.read("keys/weather")["issuer"].(string); !strings.HasPrefix(got, other+"/issuer/weather-") || strings.HasSuffix(got, strings.TrimPrefix(shown["issuer"].(string), publicURL)) {
		t.Errorf("the issuer was %v and is %v", shown["issuer"], got)
	}
	equal(t, "the warnings", m.write("settings", fields{"public_url": other}), nil)
	m.write("settings", fields{"public_url": ""})
	m.write("config/weather", fields{"scopes": "b"})
	m.rejects("config/weather", fields{"identity": "issuer"}, "settings public_url=")
}

// A rotated key is published before its first signature, and the old key until after its last.
func TestRotationOfAnIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newIssuerMount(t)
		m.write("config/weather", fields{"token_url": "https://as.example.com/token", "identity": "issuer"})
		path := m.read("keys/weather")["jwks_path"].(string)
		first := m.signsWith("weather")
		m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
		shows(t, m.read("keys/weather"), fields{"jwks_path": path})
		equal(t, "the key that signs", m.signsWith("weather"), first)
		equal(t, "the keys", keyIDs(t, m.public(path)["keys"].([]any)), []string{first, m.read("keys/weather")["next_key_id"].(string)})
		time.Sleep(11 * time.Minute)
		if m.signsWith("weather") == first {
			t.Error("the new key does not sign")
		}
		equal(t, "published keys", len(m.public(path)["keys"].([]any)), 2)
	})
}

// Some authorization servers do not support these identities.
func TestWarningsOfAnIdentity(t *testing.T) {
	const entra = "api://AzureADTokenExchange"
	for _, test := range []struct {
		url, server string
		config      fields
		says        string // empty: no warning
	}{
		{publicURL, "weather", fields{"identity": "issuer"}, ""},
		{publicURL, "weather", fields{"identity": "document"}, ""},
		{"https://vault.example.com:8200/v1/mcp-oauth", "weather", fields{"identity": "issuer"}, "another port than 443"},
		{"https://vault.example.com:8200/v1/mcp-oauth", "weather", fields{"identity": "document"}, "another port than 443"},
		{publicURL, "weather", fields{"identity": "issuer", "assertion_audience": entra}, ""},
		{publicURL, "weather", fields{"identity": "issuer", "assertion_audience": entra, "key_type": "ec-p256"}, "RS256 only"},
		{publicURL, "weather", fields{"identity": "issuer", "assertion_audience": entra, "signing_alg": "PS256"}, "RS256 only"},
		{publicURL, "weather", fields{"identity": "issuer", "key_type": "ec-p256"}, ""},
		{publicURL, long(120), fields{"identity": "document"}, "accept at most 120"},
		{publicURL, long(120), fields{"identity": "issuer"}, ""},
	} {
		m := newMount(t)
		m.write("settings", fields{"public_url": test.url})
		base := with(fields{"token_url": "https://as.example.com/token", "issuer": "https://as.example.com"}, test.config)
		m.write("config/"+test.server, base)
		warnings := m.write("config/"+test.server, fields{"max_ttl": "1h", "verify": false})
		status := m.read("status/" + test.server)["warnings"].([]string)
		warns(t, fmt.Sprint("the write of ", test.config), warnings, test.says)
		warns(t, fmt.Sprint("the status of ", test.config), status, test.says)
	}
}

// A token belongs to its client. The subject of assertions identifies the client only if client_id is unset.
func TestTokensOfAnIdentity(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	first := m.token("weather")
	m.write("config/weather", fields{"identity": "issuer"})
	m.holds("weather", first)
	m.write("config/weather", fields{"client_id": "", "verify": false})
	second := m.token("weather")
	m.write("config/weather", fields{"assertion_subject": "agent"})
	third := m.token("weather")
	m.write("config/weather", fields{"grant": "jwt_bearer", "resource": "https://a.example.com"})
	fourth := m.token("weather")
	equal(t, "different tokens", len(slices.Compact([]string{first, second, third, fourth})), 4)
}

// Clients that are identified only by their assertions do not share a backoff window.
func TestIdentitiesDoNotShareAWindow(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	base := fields{"token_url": as.URL + "/token", "identity": "issuer"}
	m.write("config/weather", base)
	m.write("config/maps", base)
	as.answers(refusing(http.StatusUnauthorized, "invalid_client"))
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather", nil, "invalid_client", "check that the server trusts that issuer")
	as.answers(granting(nil))
	m.token("maps")
}

// The error of a refused grant holds no assertion.
func TestEchoedGrantIsBlanked(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	as.answers(func(r tokenRequest) (int, fields) {
		return http.StatusBadRequest, fields{"error": "invalid_grant", "error_description": "of " + r.form.Get("assertion")}
	})
	m.write("config/weather", fields{"token_url": as.URL + "/token", "identity": "issuer", "grant": "jwt_bearer", "resource": "https://a.example.com"})
	m.refused(http.StatusBadRequest, logical.ReadOperation, "token/weather", nil, "invalid_grant", "[redacted]")
}
