package grant

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// published returns the keys as a JWK Set.
func published(t *testing.T, keys ...*Key) []byte {
	t.Helper()
	return must(PublicJWKS(keys...))(t)
}

// asserting is a request with private_key_jwt.
func asserting(over http.RoundTripper, k *Key) *request {
	r := newRequest(over)
	r.AuthMethod = PrivateKeyJWT
	r.Assertion = &Assertion{Key: k, Audience: "https://as.example.com"}
	return r
}

// verified checks an assertion with the published keys, as an authorization server does, and returns its header and
// claims.
func verified(t *testing.T, assertion, alg string, jwks []byte) (jose.Header, map[string]any) {
	t.Helper()
	var set jose.JSONWebKeySet
	noError(t, json.Unmarshal(jwks, &set))
	signed := must(jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)}))(t)
	header := signed.Signatures[0].Protected
	keys := set.Key(header.KeyID)
	if len(keys) != 1 {
		t.Fatalf("%d keys named %q", len(keys), header.KeyID)
	}
	payload := must(signed.Verify(keys[0]))(t)
	var claims map[string]any
	noError(t, json.Unmarshal(payload, &claims))
	return header, claims
}

func TestAssertionIsVerifiedWithThePublishedKey(t *testing.T) {
	for _, tc := range []struct{ key, alg string }{
		{"RSA 2048", "RS256"},
		{"RSA 2048", "PS256"},
		{"P-256", "ES256"},
		{"P-384", "ES384"},
		{"Ed25519", "EdDSA"},
	} {
		t.Run(tc.alg, func(t *testing.T) {
			k := key(t, tc.key)
			k.Alg = tc.alg
			keys := []*Key{k}
			if tc.key != "P-384" && tc.key != "Ed25519" {
				keys = append(keys, key(t, "P-384"), key(t, "Ed25519"))
			}
			jwks := published(t, keys...)
			synctest.Test(t, func(t *testing.T) {
				form := sent(t, asserting(nil, k)).PostForm
				header, claims := verified(t, form.Get("client_assertion"), tc.alg, jwks)
				if header.KeyID != k.ID || header.Algorithm != tc.alg || header.ExtraHeaders["typ"] != "JWT" ||
					len(header.ExtraHeaders) != 1 {
					t.Errorf("header %+v", header)
				}
				now := float64(time.Now().Unix())
				want := map[string]any{
					"iss": "weather", "sub": "weather",
					"aud": "https://as.example.com", // a string, not an array
					"jti": claims["jti"],
					"iat": now - 5, "nbf": now - 5, "exp": now + 55,
				}
				if !maps.Equal(claims, want) {
					t.Errorf("claims %v, want %v", claims, want)
				}
			})
		})
	}
}

func TestAssertionIsAllThatAuthenticates(t *testing.T) {
	r := asserting(nil, key(t, "P-256"))
	r.ClientSecret = testSecret // unused, so it must not be sent
	r.Resources = []string{"https://a.example.com/mcp"}
	req := sent(t, r)
	want := url.Values{
		"grant_type":            {"client_credentials"},
		"client_id":             {"weather"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {req.PostForm.Get("client_assertion")},
		"resource":              {"https://a.example.com/mcp"},
	}
	if req.PostForm.Encode() != want.Encode() || len(req.PostForm.Get("client_assertion")) < 100 {
		t.Errorf("sent %v", req.PostForm)
	}
	if _, ok := req.Header["Authorization"]; ok {
		t.Error("an Authorization header as well")
	}
}

// Servers refuse a repeated assertion, even if the first attempt failed.
func TestEveryAttemptHasAFreshAssertion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := key(t, "Ed25519")
		jwks := published(t, k)
		seen := map[any]bool{}
		n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
			req.ParseForm()
			_, claims := verified(t, req.PostForm.Get("client_assertion"), "EdDSA", jwks)
			if jti, _ := claims["jti"].(string); len(jti) < 26 { // base32 of at least 128 bits
				t.Errorf("jti %q", jti)
			}
			if life := claims["exp"].(float64) - claims["iat"].(float64); life > 60 || claims["exp"].(float64) != float64(time.Now().Unix()+55) {
				t.Errorf("lives %v seconds: %v", life, claims)
			}
			seen[claims["jti"]] = true
			answering(503, "", "")(w, req)
		}}
		r := asserting(n, k)
		for range 5 {
			if _, err := r.Do(t.Context()); err == nil {
				t.Error("no error")
			}
			time.Sleep(700 * time.Millisecond) // in the bubble's time
		}
		if len(seen) != 5 || n.count != 5 {
			t.Errorf("%d ids in %d requests of 5 attempts", len(seen), n.count)
		}
	})
}

func TestAssertionNamesKeyAndCertificate(t *testing.T) {
	k := key(t, "P-256")
	k.ID = `the operator's "own" <id>`
	cert := issue(t, issued{key: testKeys()["P-256"]})
	sum := sha256.Sum256(cert.leaf.Raw)
	r := asserting(nil, k)
	r.Assertion.Certificate = must(ParseCertificate(cert.pem, k))(t)
	header, _ := verified(t, sent(t, r).PostForm.Get("client_assertion"), "ES256", published(t, k))
	if header.KeyID != k.ID || header.ExtraHeaders["x5t#S256"] != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Errorf("header %+v", header)
	}
}

// Some servers repeat the assertion in their error.
func TestEchoedAssertionIsBlanked(t *testing.T) {
	k := key(t, "RSA 2048")
	for name, echo := range map[string]func(assertion string) string{
		"whole":            func(a string) string { return a },
		"in the form":      func(a string) string { return "client_assertion=" + url.QueryEscape(a) + "&client_id=weather" },
		"base64":           func(a string) string { return base64.StdEncoding.EncodeToString([]byte(a)) },
		"cut":              func(a string) string { return a[:200] },
		"signature alone":  func(a string) string { return a[strings.LastIndex(a, ".")+1:] },
		"without its end":  func(a string) string { return a[:strings.LastIndex(a, ".")] },
		"spread over many": func(a string) string { return strings.ReplaceAll(a, ".", " . ") },
	} {
		var sent string
		n := &network{handler: func(w http.ResponseWriter, req *http.Request) {
			req.ParseForm()
			sent = req.PostForm.Get("client_assertion")
			body, err := json.Marshal(map[string]string{"error": "invalid_client", "error_description": "refused: " + echo(sent)})
			if err != nil {
				t.Error(err)
			}
			answering(401, "application/json", string(body))(w, req)
		}}
		_, err := asserting(n, k).Do(t.Context())
		if _, ok := err.(*RefusedError); !ok || !strings.HasPrefix(err.Error(), "invalid_client: refused: ") {
			t.Errorf("%s: %T %v", name, err, err)
			continue
		}
		if !strings.Contains(err.Error(), redacted) {
			t.Errorf("%s: %v", name, err)
		}
		for part := range strings.SplitSeq(sent, ".") {
			for i := 0; i+16 <= len(part); i++ {
				if strings.Contains(err.Error(), part[i:i+16]) {
					t.Fatalf("%s: a piece of the assertion in %v", name, err)
				}
			}
		}
	}
}

func TestUnsignableRequestsAreNotSent(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*request)
		want   string
	}{
		"no assertion":  {func(r *request) { r.Assertion = nil }, "private_key_jwt needs a private_key"},
		"no key":        {func(r *request) { r.Assertion.Key = nil }, "private_key_jwt needs a private_key"},
		"an empty key":  {func(r *request) { r.Assertion.Key = &Key{ID: "a"} }, "private_key_jwt needs a private_key"},
		"no audience":   {func(r *request) { r.Assertion.Audience = "" }, "private_key_jwt needs an assertion_audience"},
		"no algorithm":  {func(r *request) { r.Assertion.Key.Alg = "" }, `signing_alg "" does not fit the private key: use ES256`},
		"another key's": {func(r *request) { r.Assertion.Key.Alg = "RS256" }, `signing_alg "RS256" does not fit the private key: use ES256`},
		"none":          {func(r *request) { r.Assertion.Key.Alg = "none" }, `signing_alg "none" does not fit the private key: use ES256`},
	} {
		t.Run(name, func(t *testing.T) {
			r := asserting(nil, key(t, "P-256"))
			tc.change(r)
			wantNotSent(t, r, tc.want)
		})
	}
}

func TestParseCertificate(t *testing.T) {
	k := key(t, "P-256")
	own := issue(t, issued{key: testKeys()["P-256"]})
	other := issue(t, issued{key: testKeys()["P-384"]})
	for _, tc := range []struct{ name, in, want string }{
		{"one", own.pem, ""},
		{"with its chain", own.pem + other.pem, ""},
		{"not the key's", other.pem, "certificate does not belong to the private key: write the certificate and the key of one pair"},
		{"chain first", other.pem + own.pem, "certificate: PEM block 2 is the certificate of the private key, but block 1 must be: put it first, then its chain"},
		{"the key", pkcs8(t, testKeys()["P-256"]), "certificate: PEM block 1 is a private key, which has a field of its own, private_key"},
		{"words", "x", `certificate must hold a certificate in PEM form ("-----BEGIN CERTIFICATE-----"); with the vault command, certificate=@cert.pem reads a file`},
	} {
		cert, err := ParseCertificate(tc.in, k)
		if errorText(err) != tc.want || err == nil && !cert.Equal(own.leaf) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// RFC 9864 names the algorithm of Ed25519. The library cannot verify under this name.
func TestEd25519ByItsName(t *testing.T) {
	k := key(t, "Ed25519")
	k.Alg = algEd25519
	if public := string(published(t, k)); !strings.Contains(public, `"alg":"Ed25519"`) {
		t.Error(public)
	}
	assertion := must((&Assertion{Key: k, Audience: "https://as.example.com"}).sign("weather", time.Now()))(t)
	parts := strings.Split(assertion, ".")
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !ed25519.Verify(k.signer.Public().(ed25519.PublicKey), []byte(parts[0]+"."+parts[1]), signature) {
		t.Error("the signature is wrong", err)
	}
	var header map[string]string
	if !decodePart(parts[0], &header) || header["alg"] != "Ed25519" || header["kid"] != k.ID || header["typ"] != "JWT" || len(header) != 3 {
		t.Errorf("header %v", header)
	}
}

func TestAssertionTypeAndClaims(t *testing.T) {
	k := key(t, "P-256")
	k.ID = ""
	a := &Assertion{
		Key: k, Audience: "https://as.example.com", Type: TypeClientAuthentication,
		Claims: map[string]any{"tenant": "t-1", "roles": []string{"a"}, "level": 3},
	}
	assertion := must(a.sign("weather", time.Now()))(t)
	parts := strings.Split(assertion, ".")
	var header, claims map[string]any
	if !decodePart(parts[0], &header) || !decodePart(parts[1], &claims) {
		t.Fatal(assertion)
	}
	if header["typ"] != "client-authentication+jwt" || len(header) != 2 { // typ and alg, without a kid
		t.Errorf("header %v", header)
	}
	if claims["tenant"] != "t-1" || claims["level"] != 3.0 || claims["iss"] != "weather" || len(claims) != 10 {
		t.Errorf("claims %v", claims)
	}
}

func TestAssertionClaimsAreNotTheClients(t *testing.T) {
	for _, claim := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"} {
		r := asserting(nil, key(t, "P-256"))
		r.Assertion.Claims = map[string]any{claim: "x"}
		wantNotSent(t, r, `assertion_claims must not hold "`+claim+`"`)
		if !IsRegisteredClaim(claim) {
			t.Errorf("%s is not registered", claim)
		}
	}
}
