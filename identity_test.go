package mcpoauth

import (
	"encoding/json"
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

// newIssuerMount is a mount that knows its URL.
func newIssuerMount(t *testing.T) *mount {
	t.Helper()
	m := newMount(t)
	m.write("settings", fields{"public_url": publicURL})
	return m
}

// public reads what is published at a path, as an authorization server does.
func (m *mount) public(path string) fields {
	m.t.Helper()
	data := m.data(logical.ReadOperation, path, nil)
	body, _ := data[logical.HTTPRawBody].([]byte)
	sameFields(m.t, data, fields{
		logical.HTTPContentType: "application/json", logical.HTTPStatusCode: http.StatusOK, logical.HTTPRawBody: body,
		logical.HTTPCacheControlHeader: "private, max-age=300",
	})
	checkSecretFree(m.t, path, string(body))
	var document fields
	if err := json.Unmarshal(body, &document); err != nil {
		m.t.Fatal(err)
	}
	return document
}

// pathOf is a URL of the mount as a path in it.
func pathOf(t *testing.T, url any) string {
	t.Helper()
	text, _ := url.(string)
	path, ok := strings.CutPrefix(text, publicURL+"/")
	if !ok {
		t.Fatalf("%v is no URL of the mount", url)
	}
	return path
}

// claimsOf verifies a JWT by the keys at a path of the mount, and gives its header and claims.
func (m *mount) claimsOf(path, token string) (header jose.Header, claims fields) {
	m.t.Helper()
	data := m.data(logical.ReadOperation, path, nil)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data[logical.HTTPRawBody].([]byte), &set); err != nil {
		m.t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA})
	if err != nil {
		m.t.Fatal(err)
	}
	header = signed.Signatures[0].Protected
	keys := set.Key(header.KeyID)
	if len(keys) != 1 {
		m.t.Fatalf("%d keys named %q are published at %s", len(keys), header.KeyID, path)
	}
	payload, err := signed.Verify(keys[0])
	if err != nil {
		m.t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		m.t.Fatal(err)
	}
	return header, claims
}

// lifetimeOf is how long an assertion is valid, in seconds.
func lifetimeOf(claims fields) float64 { return claims["exp"].(float64) - claims["iat"].(float64) }

// The mount is the issuer of client assertions; the server knows the client by their subject.
func TestIdentityIssuer(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	endpoint := as.URL + "/token"
	warnings := m.write("config/weather", fields{"token_url": endpoint, "identity": "issuer", "assertion_audience": "api://AzureADTokenExchange"})
	as.asked(t, 0, "before the issuer can be trusted")
	shown := m.read("keys/weather")
	issuer := shown["issuer"].(string)
	if !strings.HasPrefix(issuer, publicURL+"/issuer/weather-") || shown["subject"] != "weather" || shown["audience"] != "api://AzureADTokenExchange" {
		t.Errorf("keys/weather shows %v", shown)
	}
	told := strings.Join(warnings, "\n")
	for _, want := range []string{issuer + ",", `"weather"`, `"api://AzureADTokenExchange"`, "refresh/weather"} {
		if !strings.Contains(told, want) {
			t.Errorf("the write does not tell %s: %q", want, warnings)
		}
	}

	metadata := m.public(pathOf(t, issuer) + "/.well-known/openid-configuration")
	want := fields{
		"issuer": issuer, "jwks_uri": issuer + "/jwks", "response_types_supported": []any{"id_token"},
		"subject_types_supported": []any{"public"}, "id_token_signing_alg_values_supported": []any{"RS256"},
	}
	sameFields(t, metadata, want)
	if shown["jwks_uri"] != issuer+"/jwks" || shown["jwks_path"] != pathOf(t, issuer)+"/jwks" {
		t.Errorf("keys/weather shows %v", shown)
	}

	m.token("weather")
	form := as.await(1).form
	if form.Has("client_id") || form.Get("grant_type") != "client_credentials" || form.Has("assertion") || as.await(1).header.Get("Authorization") != "" {
		t.Errorf("the request is %v", slices.Sorted(maps.Keys(form)))
	}
	header, claims := m.claimsOf(pathOf(t, metadata["jwks_uri"]), form.Get("client_assertion"))
	if header.Algorithm != "RS256" || header.KeyID == "" || header.ExtraHeaders[jose.HeaderType] != "JWT" {
		t.Errorf("the header is %+v", header)
	}
	if claims["iss"] != issuer || claims["sub"] != "weather" || claims["aud"] != "api://AzureADTokenExchange" ||
		len(claims["jti"].(string)) < 22 || lifetimeOf(claims) != 60 {
		t.Errorf("the claims are %v", claims)
	}

	m.write("config/weather", fields{"client_id": "app", "assertion_ttl": "10m"})
	form = as.await(2).form
	if form.Get("client_id") != "app" {
		t.Errorf("client_id is %q", form.Get("client_id"))
	}
	again, claims := m.claimsOf(pathOf(t, metadata["jwks_uri"]), form.Get("client_assertion"))
	if again.KeyID != header.KeyID || lifetimeOf(claims) != 600 {
		t.Errorf("the claims are %v", claims)
	}
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
		if form.Get("grant_type") != bearer || !slices.Equal(form["resource"], []string{"https://weather.example.com/mcp"}) ||
			request.clientID != test.id || request.clientSecret != test.secret {
			t.Errorf("request %d is for %q at %q, of %q", n+1, form.Get("grant_type"), form["resource"], request.clientID)
		}
		shown := m.read("keys/weather")
		_, claims := m.claimsOf(shown["jwks_path"].(string), form.Get("assertion"))
		if claims["iss"] != shown["issuer"] || claims["sub"] != "agent-7" || claims["aud"] != test.audience || shown["audience"] != test.audience || lifetimeOf(claims) != test.lifetime {
			t.Errorf("the claims of request %d are %v", n+1, claims)
		}
		if got := m.read("status/weather")["token_endpoint_auth_method"]; got != test.authenticates {
			t.Errorf("the status of request %d is %v", n+1, got)
		}
	}
}

// An error of the server's is told as it is, after one request, and with what the assertion held.
func TestRefusedGrantIsToldWithoutAnotherTry(t *testing.T) {
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
	if !strings.HasPrefix(url, publicURL+"/client/weather-") || shown["audience"] != as.URL || shown["issuer"] != nil || shown["subject"] != nil {
		t.Errorf("keys/weather shows %v", shown)
	}
	if !strings.Contains(strings.Join(warnings, "\n"), url) {
		t.Errorf("the write does not tell the document's URL: %q", warnings)
	}
	id := strings.TrimPrefix(url, publicURL+"/client/")
	sameFields(t, m.public(pathOf(t, url)), fields{
		"client_id": url, "client_name": "weather", "redirect_uris": []any{url + "/none"}, "grant_types": []any{"client_credentials"},
		"response_types": []any{}, "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": publicURL + "/jwks/" + id,
	})
	m.token("weather")
	form := as.await(1).form
	_, claims := m.claimsOf("jwks/"+id, form.Get("client_assertion"))
	if form.Get("client_id") != url || claims["iss"] != url || claims["sub"] != url || claims["aud"] != as.URL {
		t.Errorf("the client is %q, and the claims are %v", form.Get("client_id"), claims)
	}
	if got := m.read("config/weather")["client_id"]; got != "" {
		t.Errorf("client_id reads %v", got)
	}
	m.unpublished(id + "-none")
}

// One 404 for all that is not there, and for what other configs publish elsewhere.
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
		"jwks/..":                                                  false,
		"issuer/a b/jwks":                                          false,
		"issuer/" + long(1000) + "/jwks":                           false,
	} {
		if there {
			m.public(path)
			continue
		}
		if got := m.refused(http.StatusNotFound, logical.ReadOperation, path, fields{"client_secret": []string{"a"}}); got != "nothing is published here" {
			t.Errorf("%s answers %q, which tells it from others", path, got)
		}
	}
}

// Callers without a Vault token must not be able to make Vault work, and other nodes answer the same.
func TestIdentitiesAreAnsweredFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &testStorage{}
		active := newNode(t, storage, 0)
		active.write("settings", fields{"public_url": publicURL})
		base := fields{"token_url": "https://as.example.com/token", "issuer": "https://as.example.com"}
		active.write("config/a", with(base, fields{"identity": "issuer"}))
		active.write("config/b", with(base, fields{"identity": "document"}))
		paths := []string{
			pathOf(t, active.read("keys/a")["issuer"]) + "/.well-known/openid-configuration", active.read("keys/a")["jwks_path"].(string),
			pathOf(t, active.read("keys/b")["document_url"]), active.read("keys/b")["jwks_path"].(string),
		}
		standby := newNode(t, storage, consts.ReplicationPerformanceStandby)
		active.stop()
		active.start()
		synctest.Wait()
		before := storage.calls.Load()
		for _, path := range paths {
			for range 10 {
				sameFields(t, active.public(path), standby.public(path))
			}
		}
		if n := storage.calls.Load() - before; n != 0 {
			t.Errorf("80 requests made %d storage calls; want none", n)
		}
		active.delete("config/a")
		for _, path := range paths[:2] {
			active.refused(http.StatusNotFound, logical.ReadOperation, path, nil, "nothing is published here")
		}
	})
}

// What the fields of an identity must not be.
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
		// Before a key is looked at or made.
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
		{bearer, fields{"assertion_type": "client-authentication+jwt"}, "no client authentication"},
		{bearer, fields{"client_secret": secret}, "client_id is missing"},
		{bearer, fields{"client_id": "a", "token_endpoint_auth_method": "client_secret_basic"}, "needs client_secret"},
		{bearer, fields{"client_id": "a", "client_secret": secret, "token_endpoint_auth_method": "tls_client_auth"}, "does not go with the credentials"},
		{bearer, fields{"client_id": "a", "client_secret": secret, "client_certificate": certificate, "client_certificate_key": certificateKey}, "one kind of credentials"},
		{bearer, fields{"client_id": "a", "client_secret": secret + "\n"}, "line break"},
		{bearer, fields{"client_id": "a:b", "client_secret": secret, "raw_basic_auth": true}, "raw_basic_auth"},
	} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(test.base, test.change), test.says)
	}
	m.storage.unchanged(t, was)
	unsettled := newMount(t)
	unsettled.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", issuer, "settings public_url=")
	unsettled.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", with(issuer, fields{"key_type": "other"}), "settings public_url=")

	m.write("config/weather", bearer)
	for _, resources := range []fields{{"resource": "https://a.example.com,https://b.example.com"}, {"omit_resource": true}} {
		m.refused(http.StatusBadRequest, logical.UpdateOperation, "role/weather/reader", with(resources, fields{"verify": false}), "exactly one resource")
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
		for field, want := range written {
			sameFields(t, fields{field: read[field]}, fields{field: want})
		}
		shown := m.read("keys/weather")
		m.write("config/weather", with(read, fields{"verify": false}))
		sameFields(t, m.read("config/weather"), read)
		sameFields(t, m.read("keys/weather"), shown)
		m.delete("config/weather")
	}
	// A default that was read and written back follows the grant.
	m.write("config/weather", fields{"token_url": "https://as.example.com/token", "identity": "issuer", "resource": "https://a.example.com"})
	m.write("config/weather", with(m.read("config/weather"), fields{"verify": false}))
	m.write("config/weather", fields{"grant": "jwt_bearer"})
	if got := m.read("config/weather")["assertion_ttl"]; got != int64(300) {
		t.Errorf("assertion_ttl is %v", got)
	}
}

// What authorization servers trust changes with what it says, and only then; and no key ever signs for two
// purposes.
func TestIdentityChangesWithWhatItIsTrustedFor(t *testing.T) {
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
		if got := trusted() != before; got != test.url {
			t.Errorf("%v: what is trusted was %v and is %v", test.change, before, trusted())
		}
		if got := m.read("keys/weather")["active_key_id"] != key; got != test.key {
			t.Errorf("%v: another key: %t; want %t", test.change, got, test.key)
		}
		if got := as.count() > asked; got != test.asks {
			t.Errorf("%v: the server is asked: %t; want %t", test.change, got, test.asks)
		}
		if text, ok := before.(string); ok && test.url {
			path := strings.TrimPrefix(text, publicURL+"/")
			if strings.HasPrefix(path, issuerPrefix) {
				path += "/jwks"
			}
			m.refused(http.StatusNotFound, logical.ReadOperation, path, nil, "nothing is published here")
		}
	}
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"token_url": "https://thief.example.com/token", "verify": false}, "must supply key_type (which makes a new key) too")
}

// An assertion that is caught elsewhere is from an issuer, or of a client, that no server trusts.
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
			t.Errorf("%v: what was caught is trusted at %s", base, trusted)
		}
		_, claims := m.claimsOf(shown, caught)
		if id, _, _ := strings.Cut(strings.TrimPrefix(trusted, issuerPrefix), "/"); strings.Contains(claims["iss"].(string), id) {
			t.Errorf("%v: what was caught is from the trusted issuer %v", base, claims["iss"])
		}
	}
}

// Settings take no identity away: it goes to another URL when it is written again.
func TestIdentityKeepsItsURLWhenSettingsChange(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	m.write("config/weather", fields{"token_url": as.URL + "/token", "identity": "issuer"})
	shown := m.read("keys/weather")
	const other = "https://other.example.com/v1/mcp-oauth"
	if warnings := m.write("settings", fields{"public_url": other}); len(warnings) != 1 || !strings.Contains(warnings[0], "the identities of weather keep") {
		t.Errorf("the warnings are %q", warnings)
	}
	m.write("config/weather", fields{"scopes": "a"})
	sameFields(t, m.read("keys/weather"), shown)
	_, claims := m.claimsOf(shown["jwks_path"].(string), as.await(1).form.Get("client_assertion"))
	if claims["iss"] != shown["issuer"] {
		t.Errorf("the issuer is %v", claims["iss"])
	}
	m.write("config/weather", fields{"identity": "issuer"})
	if got := m.read("keys/weather")["issuer"].(string); !strings.HasPrefix(got, other+"/issuer/weather-") || strings.HasSuffix(got, strings.TrimPrefix(shown["issuer"].(string), publicURL)) {
		t.Errorf("the issuer was %v and is %v", shown["issuer"], got)
	}
	if warnings := m.write("settings", fields{"public_url": other}); warnings != nil {
		t.Errorf("the warnings are %q", warnings)
	}
	m.write("settings", fields{"public_url": ""})
	m.write("config/weather", fields{"scopes": "b"})
	m.refused(http.StatusBadRequest, logical.UpdateOperation, "config/weather", fields{"identity": "issuer"}, "settings public_url=")
}

// A rotated key is published before it signs, and the old one after; tokens are refreshed all the while.
func TestRotationOfAnIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("settings", fields{"public_url": publicURL})
		m.write("config/weather", fields{"token_url": "https://as.example.com/token", "identity": "issuer"})
		path := m.read("keys/weather")["jwks_path"].(string)
		first := m.signsWith("weather")
		m.data(logical.UpdateOperation, "keys/weather/rotate", nil)
		if got := m.read("keys/weather")["jwks_path"]; got != path || m.signsWith("weather") != first {
			t.Errorf("after a rotation the path is %v", got)
		}
		equal(t, "the keys", keyIDs(t, m.public(path)["keys"].([]any)), []string{first, m.read("keys/weather")["next_key_id"].(string)})
		time.Sleep(11 * time.Minute)
		if m.signsWith("weather") == first {
			t.Error("the new key does not sign")
		}
		if got := len(m.public(path)["keys"].([]any)); got != 2 {
			t.Errorf("%d keys are published", got)
		}
	})
}

// What some authorization servers refuse.
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
		{publicURL, long(120), fields{"identity": "document"}, "take 120"},
		{publicURL, long(120), fields{"identity": "issuer"}, ""},
	} {
		m := newMount(t)
		m.write("settings", fields{"public_url": test.url})
		base := with(fields{"token_url": "https://as.example.com/token", "issuer": "https://as.example.com"}, test.config)
		m.write("config/"+test.server, base)
		warnings := m.write("config/"+test.server, fields{"max_ttl": "1h", "verify": false})
		status := m.read("status/" + test.server)["warnings"].([]string)
		for _, got := range [][]string{warnings, status} {
			if len(got) != min(1, len(test.says)) || len(got) > 0 && !strings.Contains(got[0], test.says) {
				t.Errorf("%v: the warnings are %q; want %q", test.config, got, test.says)
			}
		}
	}
}

// A token is that of its client: who the assertions say it is counts only where no client_id says it.
func TestTokensOfAnIdentity(t *testing.T) {
	as, m := newAuthServer(t), newIssuerMount(t)
	m.write("config/weather", with(as.endpoint(), fields{"key_type": "ec-p256"}))
	first := m.token("weather")
	m.write("config/weather", fields{"identity": "issuer"})
	if got := m.token("weather"); got != first {
		t.Error("the token of a client that is the same was dropped")
	}
	m.write("config/weather", fields{"client_id": "", "verify": false})
	second := m.token("weather")
	m.write("config/weather", fields{"assertion_subject": "agent"})
	third := m.token("weather")
	m.write("config/weather", fields{"grant": "jwt_bearer", "resource": "https://a.example.com"})
	fourth := m.token("weather")
	if all := slices.Compact([]string{first, second, third, fourth}); len(all) != 4 {
		t.Errorf("the tokens are %q; want one for each subject and grant", all)
	}
}

// Clients that only their assertions name don't share the window of a failure.
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
